"""VPT against the published way: visual prompts layer by layer, a fixed text."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_classifier, stock_image_features, unit
from trainers.prompting.independent import VisualPrompts


@pytest.mark.parametrize("phrase", ["a photo of a", "an_origami"])
@pytest.mark.parametrize("depth", [1, 3])
def test_logits_and_gradients_are_those_of_the_published_way(run, stock_vit, depth, phrase):
    trainer = run(
        "VPT",
        "TRAINER.VPT.PROMPT_DEPTH_VISION",
        str(depth),
        "TRAINER.VPT.N_CTX_VISION",
        "3",
        "TRAINER.VPT.CTX_INIT",
        phrase,
        flags=("--no-train",),
    )[0]
    torch.manual_seed(depth)
    learner = scrambled(trainer.model.learner)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 2])
    scores = trainer.model.scores(images[None])
    gradients = torch.autograd.grad(
        trainer.model.loss(scores, labels)[0], list(learner.parameters())
    )

    features = unit(stock_image_features(stock_vit, images, learner.ctx, list(learner.deep_ctx)))
    text = stock_classifier(
        stock_vit, f"{phrase.replace('_', ' ')} {{}}.", trainer.model.classnames
    )
    expected = stock_vit.logit_scale.exp() * features @ text.T
    references = torch.autograd.grad(F.cross_entropy(expected, labels), list(learner.parameters()))
    torch.testing.assert_close(scores.logits[0], expected, rtol=1e-4, atol=1e-3)
    assert len(gradients) == depth
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() / reference.norm() < 1e-3


def test_texts_are_encoded_once_a_run(run, monkeypatch):
    from trainers.prompting.text import TextEncoder

    calls = []
    forward = TextEncoder.forward
    monkeypatch.setattr(
        TextEncoder,
        "forward",
        lambda self, *arguments: calls.append(1) or forward(self, *arguments),
    )
    run("VPT")
    assert calls == [1, 1], "to look whether the CLIP knows the names, and for the run"


def test_it_starts_gaussian():
    torch.manual_seed(0)
    prompts = VisualPrompts(768, 8, 12)
    assert all(0.018 < layer.std() < 0.022 for layer in prompts.parameters())


def test_parameters_on_vit_b16_shapes(vit_b16):
    """The deep recipe: 12 layers × 8 tokens × 768."""
    assert (
        sum(p.numel() for p in VisualPrompts(vit_b16.image.width, 8, 12).parameters())
        == 12 * 8 * 768
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("PROMPT_DEPTH_VISION", "0", "must be at least 1"),
        ("N_CTX_VISION", "0", "must be at least 1"),
        ("PROMPT_DEPTH_VISION", "4", "has 3 layers to prompt"),
        ("CTX_INIT", "a photo of a {}.", "without braces"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.VPT.{key}", value, trainer="VPT")
    assert f"TRAINER.VPT.{key}" in error and message in error
