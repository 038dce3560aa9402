"""What a run's answers show: the numbers behind the report's figures. Pure functions on arrays."""

from collections.abc import Sequence

import numpy
import torch
from sklearn.metrics import cohen_kappa_score

from trainers.evaluation.uncertainty import BINS, selective_risk

DOUBT = "max_probability"  # the measure of doubt that images are ordered by: 1 − the answer's probability


def reliability_points(
    confidence: numpy.ndarray, right: numpy.ndarray, bins: int = BINS
) -> numpy.ndarray:
    """Mean confidence and share of right answers over bins that hold equally many images, as in the adaptive calibration error.

    Args:
        confidence: (N,) probability of the answer; right: (N,) bool; bins: at most that many, none of them empty.

    Returns:
        (B, 2) in [0, 1], by confidence.
    """
    order = numpy.argsort(confidence, kind="stable")
    parts = [part for part in numpy.array_split(order, bins) if len(part)]
    return numpy.array([[confidence[part].mean(dtype=float), right[part].mean()] for part in parts])


def risk_coverage(
    doubts: Sequence[numpy.ndarray], wrongs: Sequence[numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The risk–coverage curve, mean over seeds.

    Args:
        doubts: a (N,) array for each seed, larger is more doubtful; wrongs: a (N,) bool array for each seed.

    Returns:
        coverage n / N and mean error among the n least doubted, (N,) each, in [0, 1]; N is the largest of the seeds', between whose points
        the others are interpolated.
    """
    curves = [
        selective_risk(torch.from_numpy(doubt), torch.from_numpy(wrong)).numpy()
        for doubt, wrong in zip(doubts, wrongs)
    ]
    coverage = numpy.arange(1, max(map(len, curves)) + 1) / max(map(len, curves))
    return coverage, numpy.mean(
        [
            numpy.interp(coverage, numpy.arange(1, len(curve) + 1) / len(curve), curve)
            for curve in curves
        ],
        axis=0,
    )


def histogram(
    groups: dict[str, numpy.ndarray], bins: int = 20
) -> tuple[numpy.ndarray, dict[str, numpy.ndarray]]:
    """Shares of each group's values, over edges that all groups have in common, equally far apart on a logarithmic axis.

    Args:
        groups: name → (N,) values, at least 0; a group without any is left out.

    Returns:
        edges (bins + 1,), name → (bins,) shares in percent, each summing to 100.
    """
    tiny = numpy.finfo("float32").tiny  # what underflowed to 0 is below all others
    groups = {
        name: numpy.log10(numpy.maximum(values, tiny, dtype=float))
        for name, values in groups.items()
        if len(values)
    }
    edges = numpy.histogram_bin_edges(numpy.concatenate(list(groups.values())), bins)
    return 10**edges, {
        name: 100 * numpy.histogram(values, edges)[0] / len(values)
        for name, values in groups.items()
    }


def agreement(votes: numpy.ndarray, answer: numpy.ndarray, label: numpy.ndarray) -> numpy.ndarray:
    """How often two templates say the same.

    Args:
        votes: (M, N) classes; answer, label: (N,), what was answered, and what is right.

    Returns:
        (M + 2, M + 2) in percent: templates, answer, truth.
    """
    said = numpy.vstack([votes, answer, label])
    return 100 * (said[:, None] == said[None]).mean(axis=2)


def kappa(votes: numpy.ndarray) -> numpy.ndarray:
    """How far two templates agree beyond what their frequencies of classes make likely (Cohen, 1960, "A Coefficient of Agreement for
    Nominal Scales").

    Args:
        votes: (M, N) classes.

    Returns:
        (M, M): 1 where they always agree, 0 where as often as by chance, and down to -1.
    """

    def between(
        one: numpy.ndarray, other: numpy.ndarray
    ) -> float:  # 0 / 0 where both have one and the same class throughout
        return 1.0 if (one == other).all() else cohen_kappa_score(one, other)

    return numpy.array([[between(one, other) for other in votes] for one in votes])


def oracle(votes: numpy.ndarray, label: numpy.ndarray) -> float:
    """Share of the images, in percent, for which at least one of the (M, N) votes is the (N,) label."""
    return 100 * (votes == label).any(axis=0).mean()


def certain_mistakes(doubt: numpy.ndarray, right: numpy.ndarray, number: int) -> numpy.ndarray:
    """Indices of the wrong answers with the least doubt, that first; at equal doubt in the order of the images."""
    order = numpy.argsort(doubt, kind="stable")
    return order[~right[order]][:number]


def most_doubted(doubt: numpy.ndarray, number: int) -> numpy.ndarray:
    """Indices of the images with the most doubt, that first; at equal doubt in the order of the images."""
    return numpy.argsort(-doubt, kind="stable")[:number]


def certain_answers(
    doubt: numpy.ndarray, right: numpy.ndarray, label: numpy.ndarray, number: int
) -> numpy.ndarray:
    """Indices of the right answers with the least doubt, that first, at most one of each class."""
    order = numpy.argsort(doubt, kind="stable")
    order = order[right[order]]
    return order[numpy.sort(numpy.unique(label[order], return_index=True)[1])][:number]
