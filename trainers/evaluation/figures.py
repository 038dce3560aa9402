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


def voters(templates: int) -> list[str]:
    """The names that M templates are shown under."""
    return [f"template {number}" for number in range(1, 1 + templates)]


def votes_alone(templates: Sequence[float]) -> str:
    """How often each template alone is right, in words; M accuracies in percent."""
    return f"templates alone {', '.join(f'{accuracy:.1f}' for accuracy in templates)} %"


def decimal(value: float) -> str:
    """A number in [0, 1] with two significant digits; vacuities span many orders of magnitude."""
    return (
        "less than 0.000001"
        if value < 1e-6
        else numpy.format_float_positional(value, precision=2, fractional=False, trim="-")
    )
