"""Whether corrected rows of a table were chosen by certainty, so that they say nothing of the other rows.

References:
    Mann and Whitney (1947), "On a Test of Whether one of Two Random Variables is Stochastically Larger than
    the Other": the test of ranks.
"""

from dataclasses import dataclass

import numpy

CHANCE = 0.01  # below which rows are said to have been chosen
FEWEST_ROWS = 5  # rows of either kind, below which nothing is tested


@dataclass(frozen=True)
class CorrectedRows:
    """Whether corrected rows are like the rest.

    Attributes:
        corrected, rows: how many were corrected, and of how many.
        rank: mean share in [0, 1] of the rows that are more certain than a corrected one.
        p_value: of the test of ranks, 1 where too few rows can tell.
    """

    corrected: int
    rows: int
    rank: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        return self.p_value < CHANCE

    def says(self) -> str:
        """Return a sentence on the corrected rows; "" where they may be like the rest."""
        if not self.is_shown:
            return ""
        which = "more" if self.rank < 0.5 else "less"
        return (
            f"The {self.corrected} rows that were looked at are {which} certain than the other "
            f"{self.rows - self.corrected}: the accuracy is of pictures like these, and nothing is promised for "
            "the others. Rows that are drawn at random say it: predict.py --label-next N --at-random"
        )


def chosen(uncertainty: numpy.ndarray, is_corrected: numpy.ndarray) -> CorrectedRows:
    """Compare the ranks of corrected rows with those of the rest, two-sided.

    Args:
        uncertainty: (N,), of all rows; is_corrected: (N,), bool.
    """
    corrected = int(is_corrected.sum())
    rows = len(uncertainty)
    if min(corrected, rows - corrected) < FEWEST_ROWS:
        return CorrectedRows(corrected, rows, 0.5, 1.0)
    from scipy.stats import mannwhitneyu  # here, since it takes a second to import

    found = mannwhitneyu(uncertainty[is_corrected], uncertainty[~is_corrected])
    rank = float(found.statistic) / (corrected * (rows - corrected))
    return CorrectedRows(corrected, rows, rank, float(found.pvalue))
