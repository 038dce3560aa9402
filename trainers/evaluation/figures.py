"""Numbers of an evaluation as they are shown: intervals, the names of votes, small numbers."""

import math
from collections.abc import Sequence

import numpy

NORMAL = 1.959963984540054  # the quantile of the normal distribution that leaves 2.5 %


def wilson(number: float, of: float) -> tuple[float, float]:
    """The ends in [0, 1] of the 95 % interval of a share (Wilson, 1927, "Probable Inference, the
    Law of Succession, and Statistical Inference").

    Args:
        number, of: how many of how many; fractions where these are worth fewer independent ones, see
            ``effective_number``.
    """
    share = number / of
    square = NORMAL**2
    middle = share + square / (2 * of)
    half = NORMAL * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    low = (middle - half) / (1 + square / of)
    high = (middle + half) / (1 + square / of)
    return max(0.0, low), min(1.0, high)


def effective_number(right: numpy.ndarray, groups: numpy.ndarray) -> float:
    """Return the number of independent images that N images are worth, if those of a group are not independent:
    N over the design effect of the share that is answered right (Rao and Scott, 1992, "A Simple
    Method for the Analysis of Clustered Binary Data", §2), at most N. Where all answers are right, or
    all are wrong, nothing shows the effect: then it is the number of groups.

    Args:
        right: (N,) bool; groups: (N,), the number of each image's group.
    """
    images = len(right)
    _, group, sizes = numpy.unique(groups, return_inverse=True, return_counts=True)
    share = right.mean()
    if len(sizes) == images:
        return float(images)
    if len(sizes) == 1 or share in (0, 1):
        return float(len(sizes))
    rest = numpy.bincount(group, right) - share * sizes  # (G,), Σ_i (right_i − share) of each group
    factor = len(sizes) / (len(sizes) - 1)
    design_effect = factor * (rest**2).sum() / (images * share * (1 - share))
    return float(images / max(1.0, design_effect))


def voters(templates: int) -> list[str]:
    """The names that M templates are shown under."""
    return [f"template {number}" for number in range(1, 1 + templates)]


def votes_alone(templates: Sequence[float]) -> str:
    """Name each template's own accuracy in words; M accuracies in percent."""
    return f"templates alone {', '.join(f'{accuracy:.1f}' for accuracy in templates)} %"


def decimal(value: float) -> str:
    """A number in [0, 1] with two significant digits; vacuities span many orders of magnitude."""
    return (
        "less than 0.000001"
        if value < 1e-6
        else numpy.format_float_positional(value, precision=2, fractional=False, trim="-")
    )
