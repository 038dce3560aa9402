"""Published numbers beside one's own: ``published.yaml``, and how far a table is from it.

Numbers are compared where they are numbers of the same experiment: accuracy, the backbone ViT-B/16,
16 shots, averages over the same data sets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainers.common.readers import read_yaml

from .rows import Column, Key, Table

PUBLISHED = Path(__file__).with_name("published.yaml")
PUBLISHED_CLIP = "ViT-B/16"
PUBLISHED_SHOTS = 16
BASE2NEW_MEASURES = ["base", "new", "H"]  # order of the numbers
TRANSFER_LISTS = {
    "cross-data-set from imagenet": "cross_dataset",
    "domain generalisation from imagenet": "domain_generalisation",
}  # title of a table → protocol


@cache
def read_published() -> dict[str, Any]:
    known: dict[str, Any] = read_yaml(PUBLISHED)
    return known


@dataclass(frozen=True)
class Comparison:
    """A number beside the published one.

    Attributes:
        row, name: where it stands; recipe: of the published number, "": the trainer's own for that
        protocol.
        published: in percent; mean: over the seeds; deviation: the seeds' sample standard
        deviation, None of one seed; seeds: their number.
    """

    row: Key
    name: Column
    recipe: str
    published: float
    mean: float
    deviation: float | None
    seeds: int

    @property
    def difference(self) -> float:
        """Our number minus the published one."""
        return self.mean - self.published

    @property
    def deviations(self) -> float | None:
        """``difference`` in standard deviations; None where those are not known."""
        return self.difference / self.deviation if self.deviation else None

    def __str__(self) -> str:
        """``92.19 (-0.69, -0.9 sd)``."""
        deviations = "" if self.deviations is None else f", {self.deviations:+.1f} sd"
        return f"{self.published:.2f} ({self.difference:+.2f}{deviations})"


def published_beside(table: Table, row: Key) -> tuple[str, dict[Any, float]]:
    """Return the recipe of a row's published numbers, for ``Comparison``, and the numbers by
    column; none where none are known.
    """
    data, shots, trainer, _ = row
    config = table.runs_of(row)[0].config  # a row's may name its seeds
    backbones = {run.record["config"]["MODEL"]["BACKBONE"]["NAME"] for run in table.runs_of(row)}
    if backbones != {PUBLISHED_CLIP} or shots != PUBLISHED_SHOTS:
        return "", {}
    known = read_published()
    is_average = table.is_average(row)
    if table.title == "base-to-new":
        if not is_average:
            return "", dict(
                zip(BASE2NEW_MEASURES, known["base2new"].get(trainer, {}).get(data, ()))
            )
        averaged = {other[0] for other in table.means.index if other[1:] == row[1:]} - {data}
        methods = known["base2new_average"] if averaged == set(known["base2new"]["CoOp"]) else {}
        columns = BASE2NEW_MEASURES
    else:
        protocol = TRANSFER_LISTS.get(table.title)
        methods = {} if is_average or protocol is None else known[protocol]
        columns = ["source", *methods.get("order", ())[1:]]
    # a method with several published recipes has the row's recipe in its name
    method = f"{trainer} {config}"
    recipe = config if method in methods else ""
    numbers = dict(zip(columns, methods.get(method, methods.get(trainer, ()))))
    if {*columns} != {*table.names}:  # the average is of other data sets
        numbers.pop("average", None)
    return recipe, numbers


def comparisons(table: Table) -> Iterator[Comparison]:
    """Yield every cell with a published number."""
    deviations = table.groups.std()
    for row, seeds in table.seeds.items() if len(table.heads) == 4 else ():
        recipe, published = published_beside(table, row)
        for name in table.names:
            if name not in published:
                continue
            mean = table.means.loc[row, name].item()
            deviation = deviations.loc[row, name].item() if seeds > 1 else None
            yield Comparison(row, name, recipe, published[name], mean, deviation, seeds)
