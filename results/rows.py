"""Tables of values over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
from numpy.typing import ArrayLike
from pandas import DataFrame, MultiIndex, Series
from pandas.core.groupby import DataFrameGroupBy

from .runs import FinishedRun

CONFIDENCE_LEVEL = 0.95  # of intervals
HEADS = ("data set", "shots", "trainer", "config")
SERIES_HEADS = ("tested on", "model")  # of tables with a row for each ``RunSeries``
Column = str | int  # a number of shots in the few-shot table
Key = tuple[Any, ...]  # of a row, by the table's heads
Line = tuple[Key, int, Mapping[Any, float | None]]  # a row's key, seed, column → value


@dataclass
class Table:
    """A value for each row, seed and column.

    Attributes:
        title: the name of the values.
        frame: a line for each row and seed, its index the heads and ``seed``; NaN where one is missing.
        runs: the runs behind each row, where it has some.
        has_h_of_means: whether H follows from the mean base and new accuracy, as papers print it,
        and not from each seed's.
        notes: remarks on the rows for a reader, a line each.
    """

    title: str
    frame: DataFrame
    runs: Mapping[Key, Sequence[FinishedRun]] = field(default_factory=dict)
    has_h_of_means: bool = False
    notes: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        title: str,
        heads: Sequence[str],
        lines: Sequence[Line],
        columns: Sequence[Column] | None = None,
    ) -> "Table":
        """Make a table out of lines. Several may belong to one row and seed: the first with a
        value counts.

        Rows and, unless given, columns stand in the order of their first line.
        """
        names = [*heads, "seed"]
        index = MultiIndex.from_tuples([(*key, seed) for key, seed, _ in lines], names=names)
        frame = DataFrame([values for *_, values in lines], index, columns, dtype=float)
        return cls(title, frame.groupby(level=names, sort=False, dropna=False).first())

    @property
    def heads(self) -> list[str]:
        return list(self.frame.index.names[:-1])

    @property
    def names(self) -> list[Column]:
        """The columns."""
        return list(self.frame.columns)

    def is_average(self, row: Key) -> bool:
        """Whether a row is the mean of others, so that it has no runs of its own."""
        return row not in self.runs

    def runs_of(self, row: Key) -> list[FinishedRun]:
        """Return the runs behind a row; behind an average, the runs of all its data sets."""
        if not self.is_average(row):
            return list(self.runs[row])
        return [run for key, runs in self.runs.items() if key[1:] == row[1:] for run in runs]

    @cached_property
    def by_seed(self) -> DataFrame:
        """The values of the seeds that have all of them."""
        return self.frame.dropna()

    @property
    def groups(self) -> DataFrameGroupBy:
        """``by_seed``, row by row."""
        return self.by_seed.groupby(level=self.heads, sort=False, dropna=False)

    @cached_property
    def means(self) -> DataFrame:
        """Mean over seeds, a line a row."""
        means = self.groups.mean()
        if self.has_h_of_means:
            means["H"] = harmonic_mean((means["base"], means["new"]))
        return means

    @cached_property
    def deviations(self) -> DataFrame:
        """Sample standard deviation over seeds; NaN of one seed, and of an H that follows from
        means.
        """
        deviations = self.groups.std()
        if self.has_h_of_means:
            deviations["H"] = float("nan")
        return deviations

    @property
    def seeds(self) -> Series:
        """Number of seeds of each row."""
        return self.groups.size()


def harmonic_mean(pair: Iterable[ArrayLike]) -> numpy.ndarray:
    """2ab / (a + b) of two numbers, or of arrays of one shape; 0 where both are 0 (Xian et al., 2017,
    "Zero-Shot Learning — the Good, the Bad and the Ugly").
    """
    base, new = map(numpy.asarray, pair)
    total = base + new
    mean: numpy.ndarray = 2 * base * new / numpy.where(total > 0, total, 1)
    return mean
