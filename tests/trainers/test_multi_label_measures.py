"""The multi-label measures are torchmetrics'."""

import numpy
import pytest
import torch
from torchmetrics.classification import (
    BinaryCalibrationError,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from trainers.evaluation.multi_label import f1, f1_interval, measure_multi_label

NAMES = ["ant", "bee", "cat"]


def drawn(number=60):
    rng = numpy.random.default_rng(0)
    truth = rng.random((number, 3)) < [0.5, 0.2, 0.1]
    probability = (0.4 * truth + 0.6 * rng.random((number, 3))).astype(numpy.float32)
    probability[:20] = probability[:20].round(1)  # some are equal
    return probability, truth


def test_they_are_torchmetrics():
    probability, truth = drawn()
    given = probability >= 0.5
    found = measure_multi_label(probability, given, truth, NAMES)
    answers, labels = torch.from_numpy(probability), torch.from_numpy(truth).int()

    def of(metric, values=answers):
        return (100 * metric(values, labels)).tolist()

    assert found["map"] == pytest.approx(of(MultilabelAveragePrecision(3)), abs=1e-3)
    whole = torch.from_numpy(given).int()
    assert found["micro_f1"] == pytest.approx(of(MultilabelF1Score(3, average="micro"), whole))
    assert found["macro_f1"] == pytest.approx(of(MultilabelF1Score(3, average="macro"), whole))
    precisions = of(MultilabelAveragePrecision(3, average=None))
    f1s = of(MultilabelF1Score(3, average=None), whole)
    eces = []
    for label, name in enumerate(NAMES):
        ece = BinaryCalibrationError(n_bins=15)(answers[:, label], labels[:, label])
        eces.append(100 * ece.item())
        own = found["per_label"][name]
        assert own["positives"] == truth[:, label].sum()
        assert own["average_precision"] == pytest.approx(precisions[label], abs=1e-3)
        assert own["f1"] == pytest.approx(f1s[label], abs=1e-4)
        assert own["ece"] == pytest.approx(eces[-1], abs=1e-3)
    assert found["ece"] == pytest.approx(numpy.mean(eces), abs=1e-3)


def test_a_label_that_does_not_occur_has_no_precision_and_no_part_in_the_means():
    probability, truth = drawn()
    truth[:, 2] = False
    given = probability >= 0.5
    found = measure_multi_label(probability, given, truth, NAMES)
    two = measure_multi_label(probability[:, :2], given[:, :2], truth[:, :2], NAMES[:2])
    assert found["per_label"]["cat"]["average_precision"] is None
    assert (found["map"], found["macro_f1"]) == (two["map"], two["macro_f1"])


def test_the_interval_of_f1_is_that_of_a_bootstrap_of_groups():
    rng = numpy.random.default_rng(0)
    groups = numpy.repeat(numpy.arange(200), 3)
    truth = numpy.repeat(rng.random((200, 4)) < 0.3, 3, axis=0)
    given = truth ^ numpy.repeat(rng.random((200, 4)) < 0.1, 3, axis=0)
    drawn = []
    for _ in range(1000):
        some = rng.integers(0, 200, 200)
        rows = (3 * some[:, None] + numpy.arange(3)).ravel()
        drawn.append(f1(given[rows], truth[rows]))
    expected = numpy.quantile(drawn, [0.025, 0.975])
    numpy.testing.assert_allclose(f1_interval(given, truth, groups), expected, atol=0.5)
    alone = f1_interval(given, truth, numpy.arange(600))
    assert alone[1] - alone[0] < 0.7 * (expected[1] - expected[0])  # copies are no more pictures


def test_a_perfect_ranking_is_no_better_than_perfect():
    """Sums of rounded steps are above 1 there, which no record may say."""
    for positives in range(1, 60):
        truth = numpy.arange(2 * positives)[:, None] < positives
        probability = numpy.linspace(1, 0, 2 * positives, dtype=numpy.float32)[:, None]
        assert measure_multi_label(probability, truth, truth, ["ant"])["map"] == pytest.approx(100)
        assert measure_multi_label(probability, truth, truth, ["ant"])["map"] <= 100
