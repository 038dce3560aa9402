"""Trainings that end where another method's does, PromptSRC's mean over epochs, and ProGrad's projection."""

import math

import pytest
import torch

from tests.conftest import GOLDEN
from trainers.engine.checkpoint import MODEL_NAME
from trainers.prograd import project
from trainers.promptsrc import PromptSRCMethod, gaussian_weights


def options(name, settings):
    return [
        word
        for key, value in settings.items()
        for word in (f"TRAINER.{name.upper()}.{key}", str(value))
    ]


@pytest.mark.parametrize("name, settings, of, its", GOLDEN["methods"]["cases"])
def test_it_trains_to_the_answers_of_the_method_that_it_is_a_case_of(
    run, trained, name, settings, of, its
):
    """From the same seed on: it draws the same numbers in the same order."""
    expected, _ = trained(of, *options(of, its))
    found, _ = trained(name, *options(name, settings))
    images, _ = found.parse_batch_test(next(iter(found.test_loader)))
    untrained = run(of, *options(of, its), flags=("--no-train",))[0]
    with torch.no_grad():
        ours, theirs, before = (each.model(images).logits for each in (found, expected, untrained))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert (theirs - before).abs().max() > 0.1, "training moved nothing"


@pytest.mark.parametrize("strength", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_projection_takes_away_what_works_against_the_general_gradient(sign, strength):
    general, task = torch.randn(2, 3, 5, dtype=torch.float64)
    task = task * sign * (task * general).sum().sign()  # along or against
    expected = task
    if sign < 0:
        expected = task - strength * (task * general).sum() / (general**2).sum() * general
    torch.testing.assert_close(project(task, general, strength), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(project(task, 0 * general, strength), task)


@pytest.mark.parametrize("epochs, mean, std", [(20, 15, 1), (20, 6, 10), (50, 45, 5)])
def test_promptsrcs_weights_are_a_gaussians_values_that_sum_to_one(epochs, mean, std):
    density = [math.exp(-0.5 * ((epoch - mean) / std) ** 2) for epoch in range(1, epochs + 1)]
    expected = [value / sum(density) for value in density]
    assert gaussian_weights(epochs, mean, std).tolist() == pytest.approx(expected, rel=1e-9)
    assert gaussian_weights(3, 1000, 1).tolist() == pytest.approx([0, 0, 1]), "all underflow"


@pytest.mark.parametrize("name", ["PromptSRC", "DePTPromptSRC", "CDCPromptSRC"])
def test_the_final_prompts_are_the_weighted_mean_over_epochs(run, monkeypatch, name):
    """Of all that is learned, the head's and every template's parameters included."""
    seen, end_epoch = [], PromptSRCMethod.end_epoch

    def noted(self, *epochs):
        seen.append({key: value.clone() for key, value in self.learner.named_parameters()})
        end_epoch(self, *epochs)

    monkeypatch.setattr(PromptSRCMethod, "end_epoch", noted)
    monkeypatch.setattr(
        "trainers.promptsrc.DIVERSE_TEMPLATES", ["a photo of a {}."]
    )  # it is faster
    trainer, _, folder = run(name, f"TRAINER.{name.upper()}.GPA_STD", "2")
    last = torch.load(f"{folder}/{MODEL_NAME}/model.pth.tar-3", weights_only=True)["state_dict"]
    for key, value in trainer.model.learner.named_parameters():
        epochs = [prompts[key] for prompts in seen]
        mean = sum(w * part for w, part in zip(gaussian_weights(3, 2, 2).tolist(), epochs))
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)
        assert torch.equal(last[key], value) and not torch.allclose(value, epochs[2], atol=1e-7)
