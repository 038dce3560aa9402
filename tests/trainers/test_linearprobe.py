"""The linear probe against the conditions of its minimum, and its search against the official loop."""

import numpy
import pytest
import torch

from tests.reference import unit
from trainers.linearprobe import GRID, STEPS, best_strength, fitted


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("C", [0.1, 30.0])
def test_weights_are_the_minimum_of_the_regularised_cross_entropy(classes, C):
    """½ |W|² + C Σ CE has no slope there. Of two classes, whose weights are opposite, the difference alone is regularised: ½ |w₁ − w₀|²."""
    torch.manual_seed(0)
    features, labels = unit(torch.randn(60, 16)), torch.arange(60) % classes
    weight, bias = (part.requires_grad_() for part in fitted(features, labels, C, classes))
    logits = features.double() @ weight.T + bias
    size = (weight[1] - weight[0]).square().sum() if classes == 2 else weight.square().sum()
    slopes = torch.autograd.grad(
        size / 2 + C * torch.nn.functional.cross_entropy(logits, labels, reduction="sum"),
        [weight, bias],
    )
    if classes == 2:
        slopes = [slope[1] - slope[0] for slope in slopes]
    assert all(slope.abs().max() < 1.1e-4 * C * len(features) for slope in slopes), (
        "the solver's tolerance, of the mean over images"
    )


def test_one_class_and_a_class_without_images():
    features = unit(torch.randn(6, 8))
    assert not any(
        part.any() for part in fitted(features, torch.zeros(6, dtype=torch.long), 1.0, 1)
    )
    weight, bias = fitted(features, torch.tensor([0, 2, 2, 0, 3, 3]), 1.0, 4)
    assert (
        (features.double() @ weight.T + bias).softmax(dim=1)[:, 1].max() == 0
        and not weight[1].any()
        and weight[[0, 2, 3]].any(dim=1).all()
    )


@pytest.mark.parametrize("peak", [2.7e-3, 0.4, 55.0, 1e6])
def test_the_search_ends_where_the_official_one_does(peak):
    def accuracy(C):
        return -abs(numpy.log10(C) - numpy.log10(peak))

    found = best_strength(accuracy)
    tried = [accuracy(C) for C in GRID]
    left, right = 0.1 * GRID[tried.index(max(tried))], 10 * GRID[tried.index(max(tried))]
    for _ in range(
        STEPS
    ):  # lpclip/linear_probe.py in words: the end with the higher accuracy stays, the other moves to the middle
        final = right if accuracy(left) < accuracy(right) else left
        middle = (left * right) ** 0.5
        left, right = (middle, right) if final == right else (left, middle)
    assert found == pytest.approx(final, rel=1e-6) and abs(numpy.log10(found / peak)) < 0.02 + (
        peak == 2.7e-3
    )


def test_the_probe_is_what_the_features_of_training_and_validation_images_say(run):
    trainer, record, _ = run("LinearProbe")
    probe, names = trainer.model.learner, trainer.model.classnames
    (features,), labels = trainer.model.features_of(trainer.training_images())
    assert labels.tolist() == [label for label in range(len(names)) for _ in range(4)]
    weight, bias = fitted(features, labels, record["learned"]["C"], len(names))
    torch.testing.assert_close(probe.weight.double(), weight, rtol=1e-4, atol=1e-5)
    images = torch.randn(3, 3, 32, 32)
    logits = trainer.model.encode_images(images[None])[0].double() @ weight.T + bias
    torch.testing.assert_close(
        trainer.model.answer(images[None]).probability.double(),
        logits.softmax(dim=1),
        rtol=1e-3,
        atol=1e-5,
    )


def test_other_classes_have_zero_shot_clips_answers(run):
    _, _, folder = run("LinearProbe", "DATASET.SUBSAMPLE_CLASSES", "base", name="base")
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    trainer, record, _ = run(
        "LinearProbe", *new, name="new", flags=("--eval-only", "--model-dir", str(folder))
    )
    _, zero_shot, _ = run("ZeroshotCLIP", *new, name="zero-shot")
    assert trainer.model.learner.weight is None
    assert record["metrics"]["test"]["nll"] == pytest.approx(
        zero_shot["metrics"]["test"]["nll"], rel=1e-5
    )


def test_a_strength_of_zero_is_refused(refusal):
    assert "C is 0.0, it must be above 0" in refusal(
        "TRAINER.LINEARPROBE.C", "0.0", trainer="LinearProbe"
    )
