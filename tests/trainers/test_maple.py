"""MaPLe against the published way: 77 positions, visual prompts a linear map of the textual ones, layer by layer."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled, trainer_node
from tests.reference import stock_context_features, stock_image_features, unit
from trainers.maple import MultiModalPrompts, add_maple_config

NAMES = ["cat", "person_on_a_bike", "a very long name of a class, with comma", "bus"]


def learner_of(backbone, *pairs):
    return MultiModalPrompts(trainer_node(add_maple_config, *pairs), NAMES, backbone)


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "n_ctx, phrase, words",
    [(2, "a photo of a", "a photo of a"), (4, "a photo of a", "a photo of a"), (3, "", None)],
)
def test_features_and_gradients_are_those_of_the_published_way(
    vit, stock_vit, n_ctx, phrase, words, depth
):
    torch.manual_seed(depth)
    learner = scrambled(learner_of(vit, "N_CTX", n_ctx, "CTX_INIT", phrase, "PROMPT_DEPTH", depth))
    parameters = list(learner.parameters())
    images, text_weight, image_weight = (
        torch.randn(2, 3, 32, 32),
        torch.randn(len(NAMES), 48),
        torch.randn(2, 48),
    )

    prompts = learner()
    text = unit(vit.text(prompts.prefix, prompts.suffix, prompts.end, prompts.deep_text)[0])
    image = vit.image(images[None], prompts.visual, prompts.deep_visual)[0]
    gradients = torch.autograd.grad(
        (text * text_weight).sum() + (image * image_weight).sum(), parameters, allow_unused=True
    )

    deep = list(learner.compound_prompts_text)
    visual = [F.linear(learner.ctx, learner.proj.weight, learner.proj.bias)]
    visual += [
        F.linear(layer, m.weight, m.bias)
        for layer, m in zip(deep, learner.compound_prompt_projections, strict=True)
    ]
    expected_text = stock_context_features(stock_vit, learner.ctx, NAMES, words, deep)
    expected_image = stock_image_features(stock_vit, images, visual[0], visual[1:])
    expected = torch.autograd.grad(
        (expected_text * text_weight).sum() + (expected_image * image_weight).sum(), parameters
    )

    assert relative(text, expected_text) < 1e-5 and relative(image, expected_image) < 1e-5
    for gradient, reference in zip(gradients, expected, strict=True):
        assert relative(gradient, reference) < 1e-4


def test_it_starts_as_the_official_code_does(vit, stock_vit):
    """From the phrase's first tokens; Gaussian deep prompts; one deep projection drawn and copied; the first drawn on its own."""
    torch.manual_seed(0)
    learner = learner_of(vit, "PROMPT_DEPTH", 3)
    import clip

    phrase = stock_vit.token_embedding(clip.tokenize("a photo of a"))[0, 1:3]
    assert torch.equal(learner.ctx, phrase)
    assert all(0.015 < layer.std() < 0.025 for layer in learner.compound_prompts_text)
    first, second = learner.compound_prompt_projections
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)
    assert not torch.equal(first.weight, learner.proj.weight) and first.weight is not second.weight


@pytest.mark.parametrize("depth, millions", [(9, "3.555"), (1, "0.395")])
def test_parameters_on_vit_b16_shapes(vit_b16, depth, millions):
    """The paper's 3.55 M at depth 9 with two tokens: 9 layers × (2 × 512 + 512 × 768 + 768)."""
    count = sum(p.numel() for p in learner_of(vit_b16, "PROMPT_DEPTH", depth).parameters())
    assert count == depth * (2 * 512 + 512 * 768 + 768) and f"{count / 1e6:.3f}" == millions


def test_saved_names_are_the_official_ones(vit):
    assert set(learner_of(vit, "PROMPT_DEPTH", 2).state_dict()) == {
        "ctx",
        "proj.weight",
        "proj.bias",
        "compound_prompts_text.0",
        "compound_prompt_projections.0.weight",
        "compound_prompt_projections.0.bias",
    }


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("PROMPT_DEPTH", "0", "is 0, it must be at least 1"),
        ("N_CTX", "0", "is 0, it must be at least 1"),
        ("PROMPT_DEPTH", "4", "has 3 layers to prompt"),
        ("PREC", "fp8", "PREC is 'fp8'"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.MAPLE.{key}", value, trainer="MaPLe")
    assert message in error and key in error
