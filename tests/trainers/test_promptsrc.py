"""PromptSRC's loss against loops with the stock encoders, and its Gaussian-weighted mean against the checkpoints of every epoch."""

import math

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_context_features, stock_image_features, unit
from trainers.engine.checkpoint import MODEL_NAME
from trainers.promptsrc import PromptSRC, gaussian_weights
from trainers.templates import DIVERSE_TEMPLATES


def test_loss_and_gradient_are_those_of_the_published_formula(run, stock_vit):
    trainer = run(
        "PromptSRC",
        "TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT",
        "7",
        "TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT",
        "3",
        flags=("--no-train",),
    )[0]
    torch.manual_seed(5)
    learner, names = scrambled(trainer.model.learner), trainer.model.classnames
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 2])
    loss, figures = trainer.model.loss(trainer.model.scores(images[None]), labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    frozen_text = 0
    for template in DIVERSE_TEMPLATES:  # the mean of features that are not normalised
        frozen_text = (
            frozen_text
            + stock_vit.encode_text(clip.tokenize([template.format(name) for name in names])) / 60
        )
    frozen_text, frozen_image = unit(frozen_text), unit(stock_vit.encode_image(images))
    text = stock_context_features(
        stock_vit, learner.ctx, names, "a photo of a", list(learner.deep_ctx)
    )
    image = unit(
        stock_image_features(stock_vit, images, learner.visual.ctx, list(learner.visual.deep_ctx))
    )
    scale = stock_vit.logit_scale.exp()
    logits, frozen_logits = scale * image @ text.T, scale * frozen_image @ frozen_text.T
    divergence = 0
    for b in range(3):
        for k in range(6):
            p, q = frozen_logits[b].softmax(0)[k], logits[b].softmax(0)[k]
            divergence = divergence + p * (p.log() - q.log()) / (3 * 6)
    parts = {
        "loss_ce": F.cross_entropy(logits, labels),
        "loss_text": (text - frozen_text).abs().sum() / (6 * 48),
        "loss_image": (image - frozen_image).abs().sum() / (3 * 48),
        "loss_kl": divergence,
    }
    expected = (
        parts["loss_ce"] + 7 * parts["loss_text"] + 3 * parts["loss_image"] + parts["loss_kl"]
    )
    references = torch.autograd.grad(expected, list(learner.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, part in parts.items():
        assert figures[name] == pytest.approx(part.item(), rel=1e-3)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() / reference.norm() < 1e-3


@pytest.mark.parametrize("epochs, mean, std", [(20, 15, 1), (20, 6, 10), (50, 45, 5)])
def test_weights_are_a_gaussians_values_that_sum_to_one(epochs, mean, std):
    density = [
        math.exp(-0.5 * ((epoch - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        for epoch in range(1, epochs + 1)
    ]
    assert gaussian_weights(epochs, mean, std).tolist() == pytest.approx(
        [value / sum(density) for value in density], rel=1e-9
    )


def test_a_mean_far_behind_the_last_epoch_leaves_the_last_epochs_prompts():
    assert gaussian_weights(3, 1000, 1).tolist() == pytest.approx([0, 0, 1])


@pytest.fixture
def after_each_epoch(monkeypatch):
    """The prompts as they are after each epoch, before the last ones are replaced by the mean."""
    seen, after_epoch = [], PromptSRC.after_epoch

    def spy(self):
        seen.append(
            {name: value.clone() for name, value in self.model.learner.state_dict().items()}
        )
        after_epoch(self)

    monkeypatch.setattr(PromptSRC, "after_epoch", spy)
    return seen


def test_the_final_prompts_are_the_weighted_mean_over_epochs(run, after_each_epoch):
    trainer, _, folder = run(
        "PromptSRC", "TRAINER.PROMPTSRC.GPA_STD", "2", "TRAIN.CHECKPOINT_FREQ", "1"
    )
    weights = gaussian_weights(3, 2, 2).tolist()
    last, second = (
        torch.load(folder / MODEL_NAME / f"model.pth.tar-{epoch}", weights_only=True)
        for epoch in (3, 2)
    )
    for name, value in trainer.model.learner.state_dict().items():
        mean = sum(
            weight * prompts[name]
            for weight, prompts in zip(weights, after_each_epoch, strict=True)
        )
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)
        assert torch.equal(last["state_dict"][name], value), "the mean is what is saved"
        assert torch.equal(second["state_dict"][name], after_each_epoch[1][name]), (
            "until then it is the epoch's own prompts"
        )
        torch.testing.assert_close(
            second["training_state"]["aggregate"][name],
            weights[0] * after_each_epoch[0][name] + weights[1] * after_each_epoch[1][name],
        )
        assert not torch.allclose(value, after_each_epoch[2][name], rtol=1e-5, atol=1e-7)


def test_a_resumed_run_goes_on_with_the_mean_of_the_epochs_before(run):
    """Without its memory the mean would miss the first two epochs' share."""
    options = ("TRAINER.PROMPTSRC.GPA_STD", "2", "TRAIN.CHECKPOINT_FREQ", "1")
    whole, _, folder = run("PromptSRC", *options, name="whole")
    (folder / MODEL_NAME / "checkpoint").write_text("model.pth.tar-2\n")
    resumed, _, _ = run("PromptSRC", *options, name="resumed", flags=("--resume", str(folder)))
    assert resumed.start_epoch == 2
    for name, value in whole.model.learner.state_dict().items():
        assert torch.equal(value, resumed.model.learner.state_dict()[name])


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("GPA_STD", "0", "must be at least 1"),
        ("TEXT_LOSS_WEIGHT", "-1", "must not be negative"),
        ("IMAGE_LOSS_WEIGHT", "-1", "must not be negative"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.PROMPTSRC.{key}", value, trainer="PromptSRC")
    assert f"TRAINER.PROMPTSRC.{key}" in error and message in error
