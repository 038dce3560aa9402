"""Metrics against hand computation and textbook loops."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from trainers.evaluation.prediction import Prediction, measure

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
LABELS = torch.tensor([0, 0, 2, 1])


def test_metrics_by_hand():
    metrics = measure(Prediction(PROBABILITY), LABELS, ["a", "b", "c"])
    assert metrics["images"] == 4
    assert metrics["accuracy"] == 75
    assert metrics["per_class_accuracy"] == {"a": 50, "b": 100, "c": 100}
    assert metrics["macro_f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    assert metrics["nll"] == pytest.approx(-sum(map(math.log, (0.7, 0.4, 0.7, 0.4))) / 4)
    assert metrics["brier"] == pytest.approx((0.14 + 0.62 + 0.14 + 0.54) / 4)
    # the mistake is the third of four in order of doubt
    expected = {"aurc": 100 * (0 + 0 + 1 / 3 + 1 / 4) / 4, "error_auroc": 100 * 2 / 3}
    assert metrics["uncertainty"] == {"max_probability": pytest.approx(expected)}


def test_ece_is_torchmetrics():
    probability = torch.randn(400, 5).mul(2).softmax(-1)
    labels = torch.randint(5, (400,))
    expected = multiclass_calibration_error(probability, labels, 5, n_bins=15)
    found = measure(Prediction(probability), labels, "abcde")["ece"]
    assert found == pytest.approx(100 * expected.item(), rel=1e-3)


TEMPLATES = torch.stack([PROBABILITY, PROBABILITY.roll(1, dims=1)])


def test_templates_and_vacuity():
    ascending = torch.tensor([0.1, 0.2, 0.3, 0.4])
    prediction = Prediction(PROBABILITY, TEMPLATES, ascending, ascending / 2, -ascending)
    metrics = measure(prediction, LABELS, ["a", "b", "c"])
    assert metrics["template_accuracy"] == [75, 0]
    assert metrics["mean_vacuity"] == pytest.approx(0.25)
    assert metrics["mean_conflict"] == pytest.approx(0.125)
    expected = {"max_probability": 200, "vacuity": 100, "conflict": 100, "energy": 200}
    for name, value in expected.items():
        assert metrics["uncertainty"][name]["error_auroc"] == pytest.approx(value / 3)
    mean = TEMPLATES.mean(0).gather(1, LABELS[:, None]).log().mean()
    assert metrics["mean_probability_nll"] == pytest.approx(-mean.item(), rel=1e-5)


def test_classes_without_images_do_not_count_and_those_of_one_name_are_told_apart():
    found = measure(Prediction(PROBABILITY[:2]), LABELS[:2], ["a", "b", "c"])
    assert found["per_class_accuracy"] == {"a": 50}
    found = measure(Prediction(PROBABILITY), LABELS, ["sunglasses", "b", "sunglasses"])
    expected = {"sunglasses (0)": 50, "b": 100, "sunglasses (2)": 100}
    assert found["per_class_accuracy"] == expected
