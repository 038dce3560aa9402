"""Rows of figures, a value a seed: what tables are made of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .runs import Run

if TYPE_CHECKING:  # imported where tables are made: it takes a second
    from pandas import DataFrame, Series

HEADS = ("data set", "shots", "trainer", "config")
Column = str | int  # a number of shots in the few-shot table
Key = tuple[Any, ...]  # of a row, by the table's heads
Line = tuple[Any, ...]  # a row's key, seed, column, value


@dataclass
class Table:
    """Figures, a value for each row, seed and column.

    Attributes:
        title: what the figures are.
        frame: a line for each row and seed, its index the heads and ``seed``; NaN where a figure is missing.
        derived: name → function of such a frame's columns.
        of_means: those derived figures that follow from the means over seeds, as papers print them.
        runs: the runs behind each row, where it has some.
    """

    title: str
    frame: "DataFrame"
    derived: Mapping[str, Callable[["DataFrame"], "Series"]] = field(default_factory=dict)
    of_means: tuple[str, ...] = ()
    runs: Mapping[Key, Sequence[Run]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        title: str,
        heads: Sequence[str],
        lines: Iterable[Line],
        columns: Sequence[Column] | None = None,
        **more: Any,
    ) -> "Table":
        """A table out of single figures; rows and, unless given, columns in the order in which they come up."""
        from pandas import DataFrame, MultiIndex

        names = [*heads, "seed"]
        long = DataFrame(list(lines), columns=[*names, "column", "value"])
        long = long.drop_duplicates([*names, "column"])  # a copied run
        wide = long.pivot(index=names, columns="column", values="value").astype(float)
        order = MultiIndex.from_frame(long[names].drop_duplicates())
        found = list(long["column"].unique()) if columns is None else list(columns)
        return cls(title, wide.reindex(index=order, columns=found), **more)

    @property
    def heads(self) -> list[str]:
        return list(self.frame.index.names[:-1])

    def runs_of(self, row: Key) -> list[Run]:
        """The runs behind a row; of an average those of all its data sets."""
        return [
            run
            for key, runs in self.runs.items()
            if key == row or row[0].startswith("average") and key[1:] == row[1:]
            for run in runs
        ]

    @property
    def names(self) -> list[Column]:
        """The columns, measured and derived."""
        return [*self.frame.columns, *self.derived]

    @cached_property
    def by_seed(self) -> "DataFrame":
        """Measured and derived figures of the seeds that have all of them."""
        whole = self.frame.dropna()
        return whole.assign(**{name: function(whole) for name, function in self.derived.items()})

    @cached_property
    def means(self) -> "DataFrame":
        """Mean over seeds, a line a row."""
        means = self.by_seed.groupby(level=self.heads, sort=False, dropna=False).mean()
        return means.assign(**{name: self.derived[name](means) for name in self.of_means})

    @cached_property
    def deviations(self) -> "DataFrame":
        """Sample standard deviation over seeds; NaN of one seed, and of figures that follow from means."""
        groups = self.by_seed.groupby(level=self.heads, sort=False, dropna=False)
        return groups.std().assign(**dict.fromkeys(self.of_means, float("nan")))

    @property
    def seeds(self) -> "Series":
        """Number of seeds of each row."""
        return self.by_seed.groupby(level=self.heads, sort=False, dropna=False).size()
