"""CoCoOp against the published way: one image after the other, 77 positions, the meta-net written out."""

import pytest
import torch
import torch.nn.functional as F

import trainers.cocoop
from tests.conftest import scrambled, trainer_node
from tests.reference import stock_context_features, unit
from trainers.cocoop import ConditionalContext, add_cocoop_config

NAMES = ["cat", "person_on_a_bike", "a very long name of a class, with comma", "bus"]


@pytest.fixture
def trainer(run):
    built = run("CoCoOp", flags=("--no-train",))[0]
    torch.manual_seed(1)
    scrambled(built.model.learner)
    return built


def published_logits(model, learner, images, names):
    first, second = learner.meta_net.linear1, learner.meta_net.linear2
    rows = []
    for image in images:
        feature = unit(model.encode_image(image[None]))[0]  # (E,)
        shift = (
            second.weight @ (first.weight @ feature + first.bias).clamp(min=0) + second.bias
        )  # (D,)
        rows.append(
            model.logit_scale.exp()
            * stock_context_features(model, learner.ctx + shift, names)
            @ feature
        )
    return torch.stack(rows)  # (B, K)


@pytest.mark.parametrize("at_once", [1, 13, 8192])
def test_logits_and_gradients_are_those_of_one_image_at_a_time(
    trainer, stock_vit, monkeypatch, at_once
):
    monkeypatch.setattr(trainers.cocoop, "TEXTS_AT_ONCE", at_once)
    learner, images = trainer.model.learner, torch.randn(3, 3, 32, 32)
    labels = torch.tensor([0, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    expected = published_logits(stock_vit, learner, images, trainer.model.classnames)
    references = torch.autograd.grad(F.cross_entropy(expected, labels), list(learner.parameters()))
    assert scores.logits.shape == (1, 3, 6) and scores.text_features.shape == (3, 6, 48)
    torch.testing.assert_close(scores.logits[0], expected, rtol=1e-4, atol=1e-3)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() / reference.norm() < 1e-3


def test_an_images_answer_does_not_depend_on_its_neighbours(trainer):
    images = torch.randn(1, 5, 3, 32, 32)
    with torch.no_grad():
        together = trainer.model.scores(images).logits[0]
        alone = torch.cat([trainer.model.scores(images[:, i : i + 1]).logits[0] for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)
    assert (together - together.mean(dim=0)).std() > 0.1, (
        "images must differ for this test to mean anything"
    )


def test_start_and_context_are_encoded_once_an_image_and_class_tokens_are_kept_once(vit):
    learner = ConditionalContext(trainer_node(add_cocoop_config, "N_CTX", 4), NAMES, vit)
    prompts = learner(torch.randn(3, 48))
    assert prompts.prefix.shape == (3, 5, 128) and prompts.suffix.shape[:2] == (1, len(NAMES))


def test_a_phrase_brings_its_own_length(vit, stock_vit):
    import clip

    learner = ConditionalContext(
        trainer_node(add_cocoop_config, "CTX_INIT", "a_photo_of_a"), NAMES, vit
    )
    assert torch.equal(
        learner.ctx, stock_vit.token_embedding(clip.tokenize("a photo of a"))[0, 1:5]
    )


def test_parameters_on_vit_b16_shapes(vit_b16):
    """4 × 512 of context, 512 × 32 + 32 and 32 × 512 + 512 of the meta-net: the paper's 35,360."""
    learner = ConditionalContext(
        trainer_node(add_cocoop_config, "CTX_INIT", "a photo of a"), NAMES, vit_b16
    )
    assert sum(p.numel() for p in learner.parameters()) == 35360
    assert set(learner.state_dict()) == {
        "ctx",
        *(f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
    }


def test_a_context_without_tokens_is_refused(refusal):
    assert "TRAINER.COCOOP.N_CTX is 0, it must be at least 1" in refusal(
        "TRAINER.COCOOP.N_CTX", "0", trainer="CoCoOp"
    )
