"""CoOp's prompts against the published way: 77 positions, concatenation class by class."""

import clip
import pytest
import torch

from tests.conftest import trainer_node
from tests.reference import stock_text_features
from trainers.common.errors import UserError
from trainers.coop import add_coop_config
from trainers.prompting.context import ContextLearner

NAMES = ["cat", "person_on_a_bike", "a very long name of a class, with comma", "bus"]


def settings(*pairs):
    return trainer_node(add_coop_config, *pairs)


def published_embeddings(model, names, context, position):
    """CoOp's ``PromptLearner.forward`` as its paper and repository describe it, one class after the other."""
    n_ctx = context.shape[-2]
    rows = []
    for k, name in enumerate(name.replace("_", " ") for name in names):
        tokens = clip.tokenize(" ".join(["X"] * n_ctx) + f" {name}.")
        embedded = model.token_embedding(tokens)[0]
        length = len(clip.tokenize(name)[0].nonzero()) - 2
        own = context[k] if context.dim() == 3 else context
        start, label, rest = (
            embedded[:1],
            embedded[1 + n_ctx : 1 + n_ctx + length],
            embedded[1 + n_ctx + length :],
        )
        half = n_ctx // 2
        parts = {
            "end": [start, own, label, rest],
            "middle": [start, own[:half], label, own[half:], rest],
            "front": [start, label, own, rest],
        }[position]
        rows.append(torch.cat(parts))
    end = clip.tokenize(
        [" ".join(["X"] * n_ctx) + f" {name.replace('_', ' ')}." for name in names]
    ).argmax(1)
    return torch.stack(rows), end


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 4, 5])
def test_features_and_gradients_are_those_of_the_published_way(
    vit, stock_vit, position, class_specific, n_ctx
):
    torch.manual_seed(0)
    learner = ContextLearner.from_settings(
        settings("N_CTX", n_ctx, "CSC", class_specific, "CLASS_TOKEN_POSITION", position),
        NAMES,
        vit.text,
    )
    learner.ctx.data.normal_()
    assert learner.ctx.shape == ((len(NAMES), n_ctx, 128) if class_specific else (n_ctx, 128))
    weight = torch.randn(len(NAMES), 48)
    prompts = learner()
    ours = vit.text(prompts.prefix, prompts.suffix, prompts.end)[0]
    (gradient,) = torch.autograd.grad((ours * weight).sum(), learner.ctx)

    context = learner.ctx.detach().clone().requires_grad_()
    theirs = stock_text_features(
        stock_vit, *published_embeddings(stock_vit, NAMES, context, position)
    )
    (expected,) = torch.autograd.grad((theirs * weight).sum(), context)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_a_phrase_brings_its_own_length_and_starts_as_the_hand_crafted_prompt(vit, stock_vit):
    learner = ContextLearner.from_settings(
        settings("CTX_INIT", "a photo of a", "N_CTX", 16), NAMES, vit.text
    )
    prompts = learner()
    expected = stock_vit.encode_text(
        clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    )
    torch.testing.assert_close(
        vit.text(prompts.prefix, prompts.suffix, prompts.end)[0], expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("class_specific", [False, True])
def test_a_phrase_may_be_written_with_underscores(vit, class_specific):
    """CoOp's scripts pass ``a_photo_of_a``, which the shell needs no quotes for."""
    plain, underscored = (
        ContextLearner.from_settings(
            settings("CTX_INIT", phrase, "CSC", class_specific), NAMES, vit.text
        )
        for phrase in ("a photo of a", "a_photo_of_a")
    )
    assert plain.ctx.shape[-2] == 4 and torch.equal(plain.ctx, underscored.ctx)


def test_class_specific_contexts_start_different_unless_a_phrase_is_given(vit):
    learner = ContextLearner.from_settings(settings("CSC", True, "N_CTX", 2), NAMES, vit.text)
    assert not torch.equal(learner.ctx[0], learner.ctx[1]) and learner.ctx.std() < 0.03
    phrase = ContextLearner.from_settings(
        settings("CSC", True, "CTX_INIT", "a photo"), NAMES, vit.text
    )
    assert torch.equal(phrase.ctx[0], phrase.ctx[3])


def test_only_the_context_is_saved(vit):
    learner = ContextLearner.from_settings(settings(), NAMES, vit.text)
    assert list(learner.state_dict()) == ["ctx"]
    assert sum(p.numel() for p in learner.parameters()) == 16 * vit.text.width


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ((), 16 * 512),
        (("N_CTX", 4), 4 * 512),
        (("CTX_INIT", "a photo of a"), 4 * 512),
        (("CSC", True), 4 * 16 * 512),
    ],
)
def test_parameters_on_vit_b16_shapes(vit_b16, pairs, expected):
    learner = ContextLearner.from_settings(settings(*pairs), NAMES, vit_b16.text)
    assert sum(p.numel() for p in learner.parameters()) == expected


def test_a_class_name_that_does_not_fit_is_quoted(vit):
    with pytest.raises(UserError, match="the class name 'word word.*too long"):
        ContextLearner.from_settings(settings("N_CTX", 16), ["word " * 70], vit.text)
