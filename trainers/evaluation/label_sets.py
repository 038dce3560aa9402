"""Measures of answers to pictures that may have several labels: each label is a question of its own."""

from collections.abc import Sequence
from typing import Any

import numpy
import torch

from .uncertainty import calibration_error

Z = 1.959964  # of a 95 % interval
Measures = dict[str, Any]  # as results.json has them


def measure_label_sets(
    probability: numpy.ndarray,
    given: numpy.ndarray,
    truth: numpy.ndarray,
    classnames: Sequence[str],
) -> Measures:
    """How good answers are.

    Args:
        probability: (N, K), in [0, 1], each label's own; given: (N, K) bool, the labels that were given.
        truth: (N, K) bool; classnames: K names.

    Returns:
        dict: ``images``, N; ``map``, the mean of the labels' average precisions; ``micro_f1`` of all
        labels of all pictures together and ``macro_f1``, the mean of the labels' (the field's OF1 and
        CF1); ``ece``, the mean of the labels' expected calibration errors, over bins of their
        probability; all in percent, and the means over labels that occur. ``per_label``: name → number
        of ``positives``, ``average_precision`` and ``f1`` (None without positives) and ``ece``.
    """
    # here, since importing a method must not take its time
    from sklearn.metrics import average_precision_score

    per_label: dict[str, dict[str, float | int | None]] = {}
    for label, name in enumerate(classnames):
        answer = probability[:, label].copy()
        right = truth[:, label]
        occurs = right.any()
        ece = calibration_error(torch.from_numpy(answer), torch.from_numpy(right))
        precision = 100 * float(average_precision_score(right, answer)) if occurs else None
        per_label[name] = {
            "positives": int(right.sum()),
            "average_precision": precision,
            "f1": f1(given[:, label], right) if occurs else None,
            "ece": 100 * ece,
        }
    occurring = [values for values in per_label.values() if values["positives"]]
    return {
        "images": len(truth),
        "micro_f1": f1(given, truth),
        "map": mean_of("average_precision", occurring),
        "macro_f1": mean_of("f1", occurring),
        "ece": mean_of("ece", occurring),
        "per_label": per_label,
    }


def mean_of(measure: str, labels: list[dict[str, float | int | None]]) -> float:
    """The mean of a measure over labels."""
    return float(numpy.mean([values[measure] for values in labels]))


def f1(given: numpy.ndarray, truth: numpy.ndarray) -> float:
    """2 · right / (given + true) in percent, of bool arrays of one shape; 0 where there is neither."""
    count = int(given.sum()) + int(truth.sum())
    return 200 * int((given & truth).sum()) / count if count else 0.0


def f1_interval(
    given: numpy.ndarray, truth: numpy.ndarray, groups: numpy.ndarray
) -> tuple[float, float]:
    """Ends of the 95 % interval of the F1 of all labels together, in percent. Its unit is a group: F1 is a
    ratio of two sums over groups, whose error is that of its linear part.

    Args:
        given, truth: (N, K), bool; groups: (N,), numbers.

    References:
        Cochran (1977), "Sampling Techniques", 3rd edition, §6.3: the variance of a ratio estimate.
    """
    _, place = numpy.unique(groups, return_inverse=True)
    number = place.max() + 1
    right = numpy.bincount(place, (given & truth).sum(axis=1))  # (G,)
    counts = numpy.bincount(place, given.sum(axis=1) + truth.sum(axis=1))
    ratio = f1(given, truth) / 100
    rest = 2 * right - ratio * counts
    error = numpy.sqrt(number / max(number - 1, 1) * numpy.square(rest).sum()) / counts.sum()
    return 100 * max(0.0, ratio - Z * error), 100 * min(1.0, ratio + Z * error)
