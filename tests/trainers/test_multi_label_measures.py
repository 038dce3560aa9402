"""The multi-label measures are torchmetrics'."""

import numpy
import pytest
import torch
from torchmetrics.classification import (
    BinaryCalibrationError,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from trainers.evaluation.multi_label import measure_multi_label

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
