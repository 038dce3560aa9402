"""Numbers of an evaluation as they are shown: intervals, the names of votes, small numbers."""

from collections.abc import Sequence

import numpy


def wilson(number: int, of: int) -> tuple[float, float]:
    """The ends in [0, 1] of the 95 % interval of a share (Wilson, 1927, "Probable Inference, the
    Law of Succession, and Statistical Inference")."""
    # here, since it takes a second to import: wrong arguments are answered at once
    from scipy.stats import binomtest

    bounds = binomtest(number, of).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def voters(templates: int, with_images: bool) -> list[str]:
    """Names of those who vote: M templates and, last, a classifier of image features if there is one."""
    names = [f"template {number}" for number in range(1, 1 + templates)]
    return [*names, "image classifier"] if with_images else names


def votes_alone(templates: Sequence[float], image: float | None) -> str:
    """How often each vote alone is right, in words; both in percent, ``image`` that of the
    classifier of image features."""
    words = f"templates alone {', '.join(f'{accuracy:.1f}' for accuracy in templates)} %"
    return words if image is None else f"{words}, image classifier alone {image:.1f} %"


def decimal(value: float) -> str:
    """A number in [0, 1] with two significant digits; vacuities span many orders of magnitude."""
    return (
        "less than 0.000001"
        if value < 1e-6
        else numpy.format_float_positional(value, precision=2, fractional=False, trim="-")
    )
