"""The ablation's table: what each part of a method brings, and what it costs.

    python -m analysis.ablation output/ablation [--format text|markdown|csv|latex|html] [--output FILE]

A line for each done row of configs/ablations/<trainer>.yaml, in the file's order: accuracy on base and new classes and H in percent, mean
± sample standard deviation over seeds; the difference of H to the row ``full`` over the seeds that both have, with a bootstrap interval
(``interval``); trained parameters, milliseconds a training step, images a second at test (medians over the row's runs, of which each has
its own median; texts are encoded once beforehand and not counted). Times include whatever else the machine was doing.
"""

import argparse
import csv
import io
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from tabulate import tabulate

from protocols.plan import ablation_rows
from results.render import LAYOUTS, run_table_command, summary, table_arguments, write_out
from results.rows import Column, Key, Row, Table
from results.runs import PREDICTIONS, Arrays, is_right, read_answers
from results.table import collect, read_records
from trainers.common.errors import UserError

log = logging.getLogger(__name__)

FULL = "full"  # the row that the others are compared with
RESAMPLES = 2000
LEVEL = 0.95
HEADS = (
    "row",
    "description",
    "seeds",
    "base",
    "new",
    "H",
    f"H − {FULL}",
    f"{100 * LEVEL:g} % interval",
    "parameters",
    "ms/step",
    "images/s",
)
PARTS = {"base": "train_base", "new": "test_new"}


Right = Sequence[
    numpy.ndarray
]  # bool (S, N_base) and (S, N_new): whether each seed's answer to each image is right


@dataclass
class Line:
    """What the table says of a row.

    Attributes:
        name, description: the row's.
        figures: ``base``, ``new``, ``H`` → percent of each seed.
        difference: of H to that of ``full``, mean over the seeds that both have; interval: its lower and upper end; both in points of
            percent, None where there is no such seed.
        parameters: trained ones; step_seconds: a training step's; images_per_second: at test; None where the records lack them.
    """

    name: str
    description: str
    figures: dict[Column, list[float]]
    difference: float | None
    interval: tuple[float, float] | None
    parameters: int
    step_seconds: float | None
    images_per_second: float | None


@dataclass
class Ablation:
    """The lines of one trainer on one data set; ``title`` says which."""

    title: str
    lines: list[Line]


def interval(
    row: Right, full: Right, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the difference of mean H between two rows of runs, in points of percent.

    A resample draws, with replacement, as many seeds, base images and new images as there are, the same for both rows: they share few-shot
    samples and test images, so what makes a seed or an image easy cancels. H is computed seed by seed from the accuracies on the drawn
    images, the difference is that of the means over the drawn seeds. The interval holds the middle ``level`` of the resampled differences
    (percentile interval: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", chapter 13; the seeds and images as two factors
    that are resampled each by itself: Owen, 2007, "The Pigeonhole Bootstrap"). With one seed it covers the images only, with few it is
    too narrow. It says nothing about other classes.

    Args:
        row, full: pairs of bool arrays (S, N_base) and (S, N_new): whether each seed's answer to each image is right.
        resamples: R; level: in (0, 1); seed: of the draws.

    Returns:
        lower and upper end; exactly 0 and 0 where the rows are the same.
    """
    generator = numpy.random.default_rng(seed)
    sizes = len(full[0]), full[0].shape[1], full[1].shape[1]
    seeds, base, new = (
        generator.multinomial(size, numpy.full(size, 1 / size), resamples) for size in sizes
    )  # (R, S), (R, N), (R, N)
    difference = resampled_h(row, seeds, base, new) - resampled_h(full, seeds, base, new)  # (R,)
    return tuple(numpy.quantile(difference, [(1 - level) / 2, (1 + level) / 2]).tolist())


def resampled_h(
    right: Right, seeds: numpy.ndarray, base: numpy.ndarray, new: numpy.ndarray
) -> numpy.ndarray:
    """Mean H over seeds of each resample, (R,) in percent.

    Args:
        right: bool arrays (S, N_base) and (S, N_new); seeds (R, S), base (R, N_base), new (R, N_new): how often each was drawn.
    """
    of_base, of_new = (
        100 * (drawn @ answers.T) / answers.shape[1] for drawn, answers in zip((base, new), right)
    )  # (R, S)
    total = of_base + of_new
    h = numpy.divide(
        2 * of_base * of_new, total, out=numpy.zeros_like(total), where=total > 0
    )  # (R, S)
    return (seeds * h).sum(axis=1) / seeds.shape[1]


class RowRuns:
    """The runs of one row on disk: ``<folder>/<part>/<data set>/shots_<N>/<trainer>/<row>/seed<S>``."""

    def __init__(self, folder: str | Path, row: Row) -> None:
        data, shots, trainer, name = row.key
        self.name, self.seeds = name, row.seeds(PARTS)
        self.folders = {
            (column, seed): Path(folder, part, data, f"shots_{shots}", trainer, name, f"seed{seed}")
            for column, part in PARTS.items()
            for seed in self.seeds
        }
        self.records = [
            record for place in self.folders.values() for _, record in read_records(place)
        ]

    def median(self, key: str) -> float | None:
        """Median of a number over the runs whose records have it; None where none has."""
        found = [record[key] for record in self.records if record.get(key) is not None]
        return statistics.median(found) if found else None

    def answers(self, column: str, seed: int) -> Arrays:
        """What was said of every test image.

        Raises:
            UserError: the run has left no such file.
        """
        path = self.folders[column, seed] / PREDICTIONS
        found = read_answers(path)
        if found is None:
            raise UserError(
                f"{path} is missing, which the intervals are computed from: delete {path.parent} and run it again"
            )
        return found

    def right(self, seeds: Sequence[int]) -> tuple[list[numpy.ndarray], list[list[str]]]:
        """Bool arrays (S, N_base) and (S, N_new), and the names of those images, which are the same for all seeds.

        Raises:
            UserError: they are not the same.
        """
        rights, images = [], []
        for column in PARTS:
            answers = [self.answers(column, seed) for seed in seeds]
            images.append(answers[0]["image"].tolist())
            if any(other["image"].tolist() != images[-1] for other in answers):
                raise UserError(
                    f"{self.folders[column, seeds[0]].parent}: its seeds were tested on different images, so no interval can "
                    "be computed: make them again with the same data"
                )
            rights.append(numpy.stack([is_right(answer) for answer in answers]))
        return rights, images


def compare(row: RowRuns, full: RowRuns | None) -> tuple[float | None, tuple[float, float] | None]:
    """Difference of H to the full method over the seeds that both have, and its interval; None and None where there is none.

    Args:
        row, full: ``RowRuns``; full None where it is not done.

    Raises:
        UserError: the two were tested on different images.
    """
    if full is None or row is full:
        return None, None
    seeds = sorted(set(row.seeds) & set(full.seeds))
    if not seeds:
        return None, None
    (rights, images), (full_rights, full_images) = row.right(seeds), full.right(seeds)
    if images != full_images:
        raise UserError(
            f"{row.name} and {full.name} were tested on different images: make both with the same data"
        )
    everything_once = [
        numpy.ones((1, size), dtype=int)
        for size in (len(seeds), *(right.shape[1] for right in rights))
    ]
    difference = resampled_h(rights, *everything_once) - resampled_h(full_rights, *everything_once)
    return difference.item(), interval(rights, full_rights)


def collect_ablations(folder: str | Path) -> list[Ablation]:
    """The ``Ablation`` of each trainer, data set and number of shots below a folder.

    Raises:
        UserError: nothing there, a trainer has no ablation, or runs that don't fit together.
    """
    table = next((table for table in collect(folder) if table.title == "base-to-new"), None)
    if table is None:
        raise UserError(
            f"no row of an ablation is done below {folder}: run.py --protocol ablation makes them"
        )
    groups: dict[Key, dict[str, Row]] = {}
    for row in table.rows:
        if not row.key[0].startswith("average"):
            groups.setdefault(row.key[:3], {})[row.key[3]] = row
    return [
        ablation(folder, table, data, shots, trainer, rows)
        for (data, shots, trainer), rows in groups.items()
    ]


def ablation(
    folder: str | Path, table: Table, data: str, shots: int, trainer: str, done: dict[str, Row]
) -> Ablation:
    """One ``Ablation``; done: name of a row → its ``results.rows.Row`` of the table."""
    rows = {row.name: row for row in ablation_rows(trainer)}
    for name in done.keys() - rows.keys():
        log.warning("left out: %s is no row of %s's ablation", name, trainer)
    runs = {name: RowRuns(folder, done[name]) for name in rows if name in done}
    lines = []
    for name, row in runs.items():
        lines.append(
            Line(
                name,
                rows[name].description,
                table.figures(done[name], by_seed=True),
                *compare(row, runs.get(FULL)),
                row.records[0]["parameters"]["learnable"],
                row.median("seconds_per_step"),
                row.median("test_images_per_second"),
            )
        )
    return Ablation(f"{trainer} on {data}, {shots} shots", lines)


def render_ablation(found: Ablation, style: str = "text") -> str:
    """The table as text, Markdown, CSV (a column for each figure), LaTeX or HTML (escaped)."""
    if style == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            [
                "row",
                "description",
                "seeds",
                *(
                    f"{name}_{figure}"
                    for name in ("base", "new", "H")
                    for figure in ("mean", "std")
                ),
                "difference",
                "lower",
                "upper",
                "parameters",
                "seconds_per_step",
                "images_per_second",
            ]
        )
        for line in found.lines:
            cells = [
                value
                for values in line.figures.values()
                for value in (
                    statistics.mean(values),
                    statistics.stdev(values) if len(values) > 1 else None,
                )
            ]
            cells += [line.difference, *(line.interval or (None, None))]
            writer.writerow(
                [
                    line.name,
                    line.description,
                    len(line.figures["H"]),
                    *(format_number(value, ".4f") for value in cells),
                    line.parameters,
                    format_number(line.step_seconds, ".6f"),
                    format_number(line.images_per_second, ".2f"),
                ]
            )
        return buffer.getvalue()
    lines = [
        [
            line.name,
            line.description,
            len(line.figures["H"]),
            *(summary(line.figures[name]) for name in ("base", "new", "H")),
            format_number(line.difference, "+.2f"),
            " … ".join(format_number(end, "+.2f") for end in line.interval or ()),
            f"{line.parameters:,}",
            format_number(line.step_seconds and 1000 * line.step_seconds, ".1f"),
            format_number(line.images_per_second, ".0f"),
        ]
        for line in found.lines
    ]
    return (
        tabulate(
            lines,
            headers=HEADS,
            tablefmt=LAYOUTS[style],
            disable_numparse=True,
            colalign=("left", "left", *("right",) * (len(HEADS) - 2)),
        )
        + "\n"
    )


def format_number(value: float | None, specification: str) -> str:
    """The number, or nothing where there is none."""
    return "" if value is None else format(value, specification)


def render_ablations(found: list[Ablation], style: str = "text") -> str:
    """All tables, each below its title where there are several."""
    return "\n".join(
        (f"{one.title}\n\n" if len(found) > 1 else "") + render_ablation(one, style)
        for one in found
    )


def print_tables(args: argparse.Namespace) -> None:
    write_out(render_ablations(collect_ablations(args.folder), args.format), args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    return run_table_command(
        print_tables, table_arguments(__doc__, "output/ablation").parse_args(arguments)
    )


if __name__ == "__main__":
    sys.exit(main())
