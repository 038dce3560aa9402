"""The one correction of all tables of several differences: Holm's, over the differences of the table.

References:
    - Holm (1979), "A simple sequentially rejective multiple test procedure".
"""

import functools
from collections.abc import Iterable

import numpy

from .rows import CONFIDENCE_LEVEL

ALPHA = 1 - CONFIDENCE_LEVEL


def by_holm(values: Iterable[float]) -> list[float]:
    """p of several tests, corrected for their number; 1 in the place of NaN."""
    return [*correct(tuple(numpy.nan_to_num([*values], nan=1.0).tolist()))]


@functools.cache  # each row of a table asks, and statsmodels calls the garbage collector each time
def correct(known: tuple[float, ...]) -> tuple[float, ...]:
    """Return p of several tests, none of them NaN, corrected for their number."""
    from statsmodels.stats.multitest import multipletests  # here, since it takes a second

    return tuple(multipletests(known, method="holm")[1].tolist()) if known else ()


def holm_over(number: int) -> str:
    """Return the words that follow a corrected p, with the number of tests; "" for a single test."""
    return f" by Holm over {number} differences" if number > 1 else ""
