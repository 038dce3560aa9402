"""Numbers behind the report's figures, from a run's answers. Pure functions on arrays."""

import numpy
import torch

from trainers.evaluation.uncertainty import BINS, selective_risk

UNCERTAINTY = "max_probability"  # orders the images: 1 − the answer's probability


def reliability_points(
    confidence: numpy.ndarray, right: numpy.ndarray, bins: int = BINS
) -> numpy.ndarray:
    """Mean confidence and share of right answers over bins that hold equally many images, as in the
    adaptive calibration error.

    Args:
        confidence: (N,) probability of the answer; right: (N,) bool; bins: at most that many, none
        of them empty.

    Returns:
        (B, 2) in [0, 1], by confidence.
    """
    order = numpy.argsort(confidence, kind="stable")
    parts = numpy.array_split(order, min(bins, len(order)))
    return numpy.array([[confidence[part].mean(dtype=float), right[part].mean()] for part in parts])


def risk_coverage(
    uncertainties: list[numpy.ndarray], wrongs: list[numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The risk–coverage curve, mean over seeds.

    Args:
        uncertainties: a (N,) array for each seed, larger is more uncertain.
        wrongs: a (N,) bool array for each seed.

    Returns:
        coverage n / N and mean error among the n least uncertain, (N,) each, in [0, 1]; N is the
        largest of the seeds', between whose points the others are interpolated.
    """
    curves = [
        selective_risk(*map(torch.from_numpy, of_seed)).numpy()
        for of_seed in zip(uncertainties, wrongs)
    ]
    longest = max(map(len, curves))
    coverage = numpy.arange(1, longest + 1) / longest
    risks = [
        numpy.interp(coverage, numpy.arange(1, len(curve) + 1) / len(curve), curve)
        for curve in curves
    ]
    return coverage, numpy.mean(risks, axis=0)


def histogram(
    groups: dict[str, numpy.ndarray], bins: int = 20
) -> tuple[numpy.ndarray, dict[str, numpy.ndarray]]:
    """Shares of each group's values, over edges that all groups have in common, equally far apart
    on a logarithmic axis.

    Args:
        groups: name → (N,) values, at least 0; a group without any is left out.

    Returns:
        edges (bins + 1,), name → (bins,) shares in percent, each summing to 100.
    """
    tiny = numpy.finfo("float32").tiny  # a probability that underflowed to 0 is below all others
    logarithms = {
        name: numpy.log10(numpy.maximum(values, tiny, dtype=float))
        for name, values in groups.items()
        if len(values)
    }
    edges = numpy.histogram_bin_edges(numpy.concatenate(list(logarithms.values())), bins)
    return 10**edges, {
        name: 100 * numpy.histogram(values, edges)[0] / len(values)
        for name, values in logarithms.items()
    }
