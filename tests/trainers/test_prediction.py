"""Metrics against hand computation and textbook loops."""

import math

import pytest
import torch

from tests.same_run import assert_equal
from trainers.evaluation.prediction import Prediction, measure, per_image

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
LABELS = torch.tensor([0, 0, 2, 1])


def test_metrics_by_hand():
    metrics = measure(Prediction(PROBABILITY), LABELS, ["a", "b", "c"])
    assert metrics["images"] == 4 and metrics["accuracy"] == 75
    assert metrics["per_class_accuracy"] == {"a": 50, "b": 100, "c": 100}
    assert metrics["macro_f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    assert metrics["nll"] == pytest.approx(-sum(map(math.log, (0.7, 0.4, 0.7, 0.4))) / 4)
    assert metrics["brier"] == pytest.approx((0.14 + 0.62 + 0.14 + 0.54) / 4)
    assert set(metrics["uncertainty"]) == {"max_probability"}
    assert metrics["uncertainty"]["max_probability"] == pytest.approx(
        {"aurc": 100 * (0 + 0 + 1 / 3 + 1 / 4) / 4, "error_auroc": 100 * 2 / 3}
    )  # the mistake is the third of four in order of doubt
    assert not {"template_accuracy", "mean_vacuity"} & set(metrics)


def test_ece_is_the_textbook_loop():
    torch.manual_seed(0)
    probability = torch.randn(400, 5).mul(2).softmax(-1)
    labels = torch.randint(5, (400,))
    confidence, answer = probability.max(dim=1)
    gap = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gap += inside.float().mean() * abs(
                (answer == labels)[inside].float().mean() - confidence[inside].mean()
            )
    assert measure(Prediction(probability), labels, "abcde")["ece"] == pytest.approx(
        100 * gap.item(), rel=1e-3
    )


TEMPLATES = torch.stack([PROBABILITY, PROBABILITY.roll(1, dims=1)])


def test_templates_and_vacuity():
    ascending = torch.tensor([0.1, 0.2, 0.3, 0.4])
    prediction = Prediction(PROBABILITY, TEMPLATES, ascending, ascending / 2, -ascending)
    metrics = measure(prediction, LABELS, ["a", "b", "c"])
    assert metrics["template_accuracy"] == [75, 0]
    means = metrics["mean_vacuity"], metrics["mean_conflict"]
    assert means == pytest.approx((0.25, 0.125))
    aurocs = {name: found["error_auroc"] for name, found in metrics["uncertainty"].items()}
    expected = {"max_probability": 200, "vacuity": 100, "conflict": 100, "energy": 200}
    assert aurocs == pytest.approx({name: value / 3 for name, value in expected.items()})
    mean = TEMPLATES.mean(0).gather(1, LABELS[:, None]).log().mean()
    assert metrics["mean_probability_nll"] == pytest.approx(-mean.item(), rel=1e-5)


def test_classes_without_images_do_not_count_and_those_of_one_name_are_told_apart():
    found = measure(Prediction(PROBABILITY[:2]), LABELS[:2], ["a", "b", "c"])
    assert found["per_class_accuracy"] == {"a": 50}
    found = measure(Prediction(PROBABILITY), LABELS, ["sunglasses", "b", "sunglasses"])
    expected = {"sunglasses (0)": 50, "b": 100, "sunglasses (2)": 100}
    assert found["per_class_accuracy"] == expected


def test_batches_are_put_together_in_order():
    whole = Prediction(PROBABILITY, TEMPLATES, torch.rand(4), energy=torch.rand(4))
    parts = [
        Prediction(
            PROBABILITY[part], TEMPLATES[:, part], whole.vacuity[part], energy=whole.energy[part]
        )
        for part in (slice(1), slice(1, 4))
    ]
    assert_equal(vars(Prediction.concatenate(parts)), vars(whole), "answers")


def test_what_is_kept_of_every_image():
    files = [f"/anywhere/dog/{i}.png" for i in range(4)]
    prediction = Prediction(PROBABILITY, TEMPLATES, torch.ones(4), torch.zeros(4))
    kept = per_image(prediction, LABELS, files)
    assert kept["image"].tolist() == ["dog/0.png", "dog/1.png", "dog/2.png", "dog/3.png"]
    assert kept["label"].tolist() == LABELS.tolist() and kept["top"].shape == (4, 3)
    assert kept["top"][1].tolist() == [1, 0, 2]
    assert kept["top_probability"][1].tolist() == pytest.approx([0.5, 0.4, 0.1])
    assert kept["vote"].tolist() == [[0, 1, 2, 1], [1, 2, 0, 2]]
    assert kept["vote_probability"][1].tolist() == pytest.approx([0.7, 0.5, 0.7, 0.4])
    assert kept["max_probability"].tolist() == pytest.approx([0.3, 0.5, 0.3, 0.6])
    assert kept.keys() >= {"vacuity", "conflict"} and "energy" not in kept
