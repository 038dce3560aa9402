"""Published figures beside one's own: ``published.yaml``, and how far a table is from it.

Figures are compared where they are figures of the same experiment: accuracy, the backbone ViT-B/16, 16 shots, averages over the same data sets.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .rows import Column, Row, Table

BACKBONE, SHOTS = "ViT-B/16", 16
POINTS, DEVIATIONS = 1.0, 2.0  # within either a figure counts as reproduced


@cache
def read_published() -> dict[str, Any]:
    with open(Path(__file__).parent / "published.yaml", encoding="utf-8") as file:
        return yaml.safe_load(file)


@dataclass(frozen=True)
class Comparison:
    """A figure beside the published one.

    Attributes:
        row, name: where it stands.
        published: in percent; mean: over the seeds; deviation: the seeds' sample standard deviation, None of one seed.
    """

    row: Row
    name: Column
    published: float
    mean: float
    deviation: float | None

    @property
    def points(self) -> float:
        """One's own less the published."""
        return self.mean - self.published

    @property
    def deviations(self) -> float | None:
        """``points`` in standard deviations; None where those are not known."""
        return self.points / self.deviation if self.deviation else None

    @property
    def reproduces(self) -> bool:
        return (
            abs(self.points) <= POINTS
            or self.deviations is not None
            and abs(self.deviations) <= DEVIATIONS
        )

    def __str__(self) -> str:
        """``92.19 (-0.69, -0.9 sd)``."""
        return f"{self.published:.2f} ({self.points:+.2f}{'' if self.deviations is None else f', {self.deviations:+.1f} sd'})"


def figure_of(table: Table, row: Row, name: Column) -> float | None:
    """The published figure of a cell, None where none is known or it is not of the same experiment."""
    data, shots, trainer, config = row.key
    if row.backbones != {BACKBONE} or shots != SHOTS:
        return None
    known = read_published()
    if table.title == "base-to-new" and name in ("base", "new", "H"):
        found = known["base2new"].get(trainer, {}).get(data)
        if data.startswith("average") and set(known["base2new"]["CoOp"]) == {
            other.key[0]
            for other in table.rows
            if other.key[1:] == row.key[1:] and other is not row
        }:
            found = of_method(known["base2new_average"], trainer, config)
        return found and found[("base", "new", "H").index(str(name))]
    for protocol, title in (
        ("cross_dataset", "cross-data-set from imagenet"),
        ("domain_generalisation", "domain generalisation from imagenet"),
    ):
        order = known[protocol]["order"]
        found = of_method(
            {key: value for key, value in known[protocol].items() if key != "order"},
            trainer,
            config,
        )
        column = "imagenet" if name == "source" else name
        is_whole = set(order) == {"imagenet", "average", *table.columns} - {"source"}
        if (
            table.title == title
            and found
            and column in order
            and not data.startswith("average")
            and (name != "average" or is_whole)
        ):
            return found[order.index(column)]
    return None


def of_method(figures: dict[str, list[float]], trainer: str, config: str) -> list[float] | None:
    """Of a method, or of one of its recipes where several are published."""
    return figures.get(f"{trainer} {config}", figures.get(trainer))


def comparisons(table: Table) -> Iterator[Comparison]:
    """Yields every cell of which a figure is published."""
    for row in table.rows if len(table.heads) == 4 else ():
        shown, by_seed = table.figures(row), table.figures(row, by_seed=True)
        for name in table.names:
            published, seeds = figure_of(table, row, name), by_seed[name]
            if published is not None:
                yield Comparison(
                    row,
                    name,
                    published,
                    statistics.mean(shown[name]),
                    statistics.stdev(seeds) if len(seeds) > 1 else None,
                )
