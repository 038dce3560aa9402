"""Thresholds and measures of multi-label answers: each label is a yes-or-no question of its own."""

from collections.abc import Mapping, Sequence

import numpy
import torch

from ..common.readers import Stored
from .uncertainty import calibration_error

Z = 1.959964  # of a 95 % interval
Measured = dict[str, Stored]  # as results.json has it


def best_thresholds(probability: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """Return the threshold (K,) of each label under which its F1 is largest, midway between two answers;
    infinity for a label without a picture, which is never given.

    Args:
        probability: (N, K), of pictures that the answers were not fitted to; truth: (N, K), bool.
    """
    thresholds = []
    for answer, right in zip(probability.T.astype(float), truth.T):
        order = numpy.argsort(-answer, kind="stable")
        answer = answer[order]
        found = right[order].cumsum()
        f1 = 2 * found / (numpy.arange(1, len(answer) + 1) + right.sum())
        following = numpy.append(answer[1:], 0.0)
        f1[answer == following] = 0  # equal ones stand or fall together
        last = int(f1.argmax())
        middle = (answer[last] + following[last]) / 2
        thresholds.append(middle if right.any() else numpy.inf)
    return numpy.array(thresholds)


def thresholds_of_folds(
    probability: numpy.ndarray, truth: numpy.ndarray, fold: numpy.ndarray
) -> numpy.ndarray:
    """Return the thresholds (F, K) of each fold that are best for the other folds, so that a picture's
    labels play no part in its answer.

    Args:
        probability: (N, K), out of fold; truth: (N, K), bool; fold: (N,), from 0.
    """
    parts = []
    for part in range(fold.max() + 1):
        others = fold != part
        parts.append(best_thresholds(probability[others], truth[others]))
    return numpy.array(parts)


def given_in(arrays: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
    """Return which labels (N, K) are given by the thresholds of each picture's fold; arrays: a run's kept
    ``probability`` (N, K), ``fold`` (N,) and ``threshold`` (F, K)."""
    given: numpy.ndarray = arrays["probability"] >= arrays["threshold"][arrays["fold"]]
    return given


def likelihood(labels: numpy.ndarray, probability: numpy.ndarray) -> numpy.ndarray:
    """Return the probability (N,), float64, of sets of labels if labels are independent; both (N, K)."""
    agreeing = numpy.where(labels, probability, 1 - probability.astype(float))
    product: numpy.ndarray = agreeing.prod(axis=1)
    return product


def measure_multi_label(
    probability: numpy.ndarray,
    given: numpy.ndarray,
    truth: numpy.ndarray,
    classnames: Sequence[str],
) -> Measured:
    """Measure answers.

    Args:
        probability: (N, K), in [0, 1], each label's own; given: (N, K) bool, the labels that were given.
        truth: (N, K) bool; classnames: K names.

    Returns:
        dict: ``images``, N; ``map``, the mean of the labels' average precisions; ``micro_f1`` of all
        labels of all pictures together and ``macro_f1``, the mean of the labels' (the field's OF1 and
        CF1); ``ece``, the mean of the labels' expected calibration errors, over bins of their
        probability; all in percent, and the means over labels that occur, None where none does.
        ``per_label``: name → number of ``positives``, ``average_precision`` and ``f1`` (None without
        positives) and ``ece``.
    """
    # here, since importing a method must not take its time
    from sklearn.metrics import average_precision_score

    per_label: dict[str, dict[str, float | int | None]] = {}
    for label, name in enumerate(classnames):
        answer = probability[:, label].copy()
        right = truth[:, label]
        occurs = right.any()
        ece = calibration_error(torch.from_numpy(answer), torch.from_numpy(right))
        precision = None
        if occurs:  # a sum of rounded steps can be above 1
            precision = min(100 * float(average_precision_score(right, answer)), 100.0)
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


def mean_of(measure: str, labels: Sequence[Mapping[str, float | int | None]]) -> float | None:
    """Return the mean of a measure over labels; None without any."""
    if not labels:
        return None
    return float(numpy.mean([values[measure] for values in labels]))


def f1(given: numpy.ndarray, truth: numpy.ndarray, weight: numpy.ndarray | None = None) -> float:
    """Return 2 · right / (given + true) in percent, of bool arrays (N, ...); 0 where there is neither.

    weight: (N,), of each image; None: all have the same.
    """
    images = len(given)
    each = numpy.ones(images) if weight is None else weight
    right = (given & truth).reshape(images, -1).sum(axis=1) @ each
    count = (given.reshape(images, -1).sum(axis=1) + truth.reshape(images, -1).sum(axis=1)) @ each
    return float(200 * right / count) if count else 0.0


def f1_interval(
    given: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    weight: numpy.ndarray | None = None,
) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the F1 of all labels together, in percent. Its unit is a
    group: F1 is a ratio of two sums over groups, whose error is its linear part's.

    Args:
        given, truth: (N, K), bool; groups: (N,), numbers; weight: (N,), of each image; None: all have the same.

    References:
        Cochran (1977), "Sampling Techniques", 3rd edition, §6.3: the variance of a ratio estimate.
    """
    _, place = numpy.unique(groups, return_inverse=True)
    number = int(numpy.max(place)) + 1
    each = numpy.ones(len(groups)) if weight is None else weight
    right = numpy.bincount(place, each * (given & truth).sum(axis=1))  # (G,)
    counts = numpy.bincount(place, each * (given.sum(axis=1) + truth.sum(axis=1)))
    if not counts.sum():
        return 0.0, 100.0
    ratio = f1(given, truth, weight) / 100
    rest = 2 * right - ratio * counts
    error = numpy.sqrt(number / max(number - 1, 1) * numpy.square(rest).sum()) / counts.sum()
    return 100 * max(0.0, ratio - Z * error), 100 * min(1.0, ratio + Z * error)
