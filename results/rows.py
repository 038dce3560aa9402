"""Rows and tables of figures, a value a seed."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEADS = ("data set", "shots", "trainer", "config")
Column = str | int  # a number of shots in the few-shot table
Key = tuple[
    Any, ...
]  # of a row; the parts of a protocol's: data set, shots (None where they are the columns), trainer, config


@dataclass
class Row:
    """One trainer with one config, on one data set.

    Attributes:
        key: data set, shots (None where they are the columns), trainer, config.
        values: column → seed → the metric.
        tested: seed → hashes of the prompts and backbones that were tested; one where all is well.
        backbones: names of the CLIPs of its runs.
    """

    key: Key
    values: dict[Column, dict[int, float]] = field(default_factory=dict)
    tested: dict[Any, set[tuple[str | None, str]]] = field(default_factory=dict)
    backbones: set[str] = field(default_factory=set)

    def add(self, seed: int, values: Mapping[Column, Any]) -> None:
        for column, value in values.items():
            self.values.setdefault(column, {})[seed] = value

    def seeds(self, columns: Iterable[Column]) -> list[int]:
        """Seeds for which all of the columns are done."""
        return sorted(set.intersection(*(set(self.values.get(column, ())) for column in columns)))


@dataclass
class Table:
    """Rows of one protocol.

    Attributes:
        title: what the figures are.
        columns: those that are measured; derived: name → function of a seed's measured figures (list, in the order of ``columns``).
        heads: what the parts of the rows' keys are.
        of_means: those of the derived figures that follow from the columns' means, as papers print them.
    """

    title: str
    rows: list[Row]
    columns: Sequence[Column]
    derived: dict[str, Callable[[list[float]], float]] = field(default_factory=dict)
    heads: tuple[str, ...] = HEADS
    of_means: tuple[str, ...] = ()

    @property
    def names(self) -> list[Column]:
        return [*self.columns, *self.derived]

    def figures(self, row: Row, by_seed: bool = False) -> dict[Column, list[float]]:
        """name of a column → its values over the complete seeds; of those in ``of_means`` one value, unless ``by_seed``."""
        seeds = row.seeds(self.columns)
        found = {column: [row.values[column][seed] for seed in seeds] for column in self.columns}
        for name, function in self.derived.items():
            if name in self.of_means and not by_seed:
                found[name] = [
                    function([statistics.mean(found[column]) for column in self.columns])
                ]
            else:
                found[name] = [
                    function([row.values[column][seed] for column in self.columns])
                    for seed in seeds
                ]
        return found
