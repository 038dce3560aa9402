"""The ablation's table: gain and cost of each part of a method.

    python -m results.ablation output/ablation --format markdown

A line for each done row of configs/ablations/<trainer>.yaml and <trainer>_….yaml, in their order: accuracy on base
and new classes and H in percent, mean ± sample standard deviation over seeds; the difference of H
to the row ``full`` over the seeds that both have, with a bootstrap interval (``bootstrap``) and its p
by Holm over all differences of the table; trained parameters, milliseconds a training step, images a second at test (medians over the row's runs, of
which each has its own median; texts are encoded once beforehand and not counted). Times include
whatever else the machine was doing.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import logging
import sys
from collections.abc import Mapping, Sequence

import numpy
from pandas import DataFrame

from protocols.plan import ablation_rows, further_ablations
from trainers.common.console import counted
from trainers.common.errors import UserError

from .holm import by_holm
from .render import below, join_texts, run_table_command, summary, table_arguments, write_cells
from .rows import CONFIDENCE_LEVEL, Key, Table, harmonic_mean
from .runs import HALVES, FinishedRun, collect
from .table import BASE2NEW, tables

log = logging.getLogger(__name__)

FULL = "full"  # the row that the others are compared with
BOOTSTRAP_DRAWS = 2000
TEST = (
    "Interval and p: bootstrap over seeds and test images; p by Holm over the table's differences."
)
# key of a record → column
COSTS = {"seconds_per_step": "seconds_per_step", "test_images_per_second": "images_per_second"}

# columns that compare a row's H with the full method's
COMPARED = ("difference", "lower", "upper", "p")

# bool (S, N_base) and (S, N_new): whether each seed's answer to each image is right
Right = Sequence[numpy.ndarray]


def ends(differences: numpy.ndarray) -> tuple[float, float]:
    """Lower and upper end of the interval that holds the middle ``CONFIDENCE_LEVEL`` of resampled
    differences (R,): the percentile interval."""
    low, high = numpy.quantile(
        differences, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]
    )
    return float(low), float(high)


def chance(differences: numpy.ndarray) -> float:
    """Two-sided p of resampled differences (R,): twice the share on the rarer side of 0, those at 0 on
    both, counting the measured sample as one more (Davison and Hinkley, 1997, "Bootstrap Methods and
    their Application", §4.4)."""
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1, 2 * (1 + rarer) / (1 + len(differences))))


def bootstrap(row: Right, full: Right) -> numpy.ndarray:
    """Resampled differences of mean H between two rows of runs, (R,) in points of percent; R is
    ``BOOTSTRAP_DRAWS``.

    A resample draws, with replacement, as many seeds, base images and new images as there are, the
    same for both rows: they share few-shot samples and test images, so an easy seed or image
    cancels. H is computed seed by seed from the accuracies on the drawn images, the
    difference is between the means over the drawn seeds (Efron and Tibshirani, 1993, "An Introduction to
    the Bootstrap", chapter 13; the seeds and images as two factors that are resampled each by
    itself: Owen, 2007, "The Pigeonhole Bootstrap"). With one seed the interval covers the images only,
    with few it is too narrow. It says nothing about other classes.

    Args:
        row, full: pairs of bool arrays (S, N_base) and (S, N_new): whether each seed's answer to
        each image is right.

    Returns:
        exactly 0 where the rows are the same.
    """
    generator = numpy.random.default_rng(0)
    sizes = len(full[0]), full[0].shape[1], full[1].shape[1]
    seeds, base, new = (
        generator.multinomial(size, numpy.full(size, 1 / size), BOOTSTRAP_DRAWS) for size in sizes
    )  # (R, S), (R, N), (R, N)
    differences: numpy.ndarray
    differences = resampled_h(row, seeds, base, new) - resampled_h(full, seeds, base, new)
    return differences


def resampled_h(
    right: Right, seeds: numpy.ndarray, base: numpy.ndarray, new: numpy.ndarray
) -> numpy.ndarray:
    """Mean H over seeds of each resample, (R,) in percent.

    Args:
        right: bool arrays (S, N_base) and (S, N_new); seeds (R, S), base (R, N_base), new (R,
        N_new): how often each was drawn.
    """
    halves = [
        100 * (drawn @ answers.T) / answers.shape[1] for drawn, answers in zip((base, new), right)
    ]  # (R, S)
    means: numpy.ndarray = (seeds * harmonic_mean(halves)).sum(axis=1) / seeds.shape[1]
    return means


def bootstrap_of(
    row: Sequence[FinishedRun], full: Sequence[FinishedRun], seeds: Sequence[int]
) -> numpy.ndarray:
    """``bootstrap`` of a row's runs with those seeds.

    Raises:
        UserError: not all were tested on the same images, or a run has no answers.
    """
    names = row[0].config, full[0].config
    halves = []  # (2, S, N) each: of the row, of the full method
    for part in HALVES:
        runs = {(run.config, run.seed): run for run in (*row, *full) if run.part == part}
        answers = [runs[name, seed].known_answers for name in names for seed in seeds]  # 2·S
        if len({tuple(answer["image"].tolist()) for answer in answers}) > 1:
            raise UserError(
                f"{' and '.join(names)}, or their seeds, were tested on different images, so no "
                "interval can be computed: make them again with the same data"
            )
        right = numpy.array([answer["right"] for answer in answers])  # (2·S, N)
        halves.append(right.reshape(2, len(seeds), -1))
    rights, of_full = zip(*halves)
    return bootstrap(rights, of_full)


def collect_ablations(folder: str) -> dict[str, DataFrame]:
    """The ablations below a folder: trainer, data set and number of shots → ``ablation``.

    Raises:
        UserError: nothing there, a trainer has no ablation, or runs that don't fit together.
    """
    ablations = {}
    for table in tables(collect(folder), seed_h=True):
        if table.title != BASE2NEW:
            continue
        for note in table.notes:
            log.warning("%s", note)
        rows = dict.fromkeys(row[:3] for row in table.means.index if row in table.runs)
        for data, shots, trainer in rows:
            lines = ablation(table, (data, shots, trainer))
            if len(lines):
                ablations[f"{trainer} on {data}, {counted(shots, 'shot')}"] = lines
    if not ablations:
        raise UserError(
            f"no row of an ablation is done below {folder}: run.py --protocol ablation makes them"
        )
    return ablations


def ablation(table: Table, key: Key) -> DataFrame:
    """The ablation of one trainer on one data set, out of the base-to-new table.

    Args:
        key: data set, shots, trainer.

    Returns:
        a line a row, in the file's order: ``row``, ``description``, ``seeds``; ``base``, ``new``
        and ``H``, ``_mean`` and ``_std`` over seeds in percent; ``difference`` of H to the H of
        ``full``, mean over the seeds that both have, ``lower`` and ``upper`` end of its interval,
        in points, ``p`` of it by Holm over the table's differences; trained ``parameters``, ``seconds_per_step``, ``images_per_second``. NaN where
        there is none.
    """
    of_trainer = table.by_seed.sort_index().loc[key]
    seeds = {name: {*lines.loc[name].index} for name, lines in of_trainer.groupby(level="config")}
    known = descriptions(key[2])
    for name in seeds:
        if row_of(name) not in known:
            log.warning("left out: %s is not a row of %s's ablation", name, key[2])
    order = [*known]
    described = sorted(
        (name for name in seeds if row_of(name) in known),
        key=lambda name: order.index(row_of(name)),
    )
    runs = {name: table.runs[key + (name,)] for name in described}
    lines = []
    for name, members in runs.items():
        values = {
            f"{column}_{statistic}": frame.loc[key + (name,), column]
            for column in ("base", "new", "H")
            for statistic, frame in (("mean", table.means), ("std", table.deviations))
        }
        # where rows are divided by experiments, the full one with the same seeds
        full = name.replace(row_of(name), FULL, 1)
        full = full if full in seeds else FULL
        common = sorted(seeds[name] & seeds.get(full, set()))
        compared = dict.fromkeys(COMPARED)
        if row_of(name) != FULL and common:
            resampled = bootstrap_of(members, runs[full], common)
            difference = (of_trainer["H"][name] - of_trainer["H"][full]).mean()
            compared = dict(zip(COMPARED, (difference, *ends(resampled), chance(resampled))))
        records = DataFrame([run.record for run in members if run.seed in seeds[name]])
        costs = records.rename(columns=COSTS).reindex(columns=COSTS.values())
        lines.append(
            {
                "row": name,
                "description": known[row_of(name)],
                "seeds": len(seeds[name]),
                **values,
                **compared,
                "parameters": records["parameters"][0]["learnable"],
                **costs.astype(float).median(),
            }
        )
    found = DataFrame(lines)
    if lines:
        is_compared = found["p"].notna()
        found.loc[is_compared, "p"] = by_holm(found.loc[is_compared, "p"])
    return found


def descriptions(trainer: str) -> dict[str, str]:
    """Return the rows of a trainer's ablations, in their files' order: name → description."""
    known: dict[str, str] = {}
    for rows in (ablation_rows(trainer), *further_ablations(trainer).values()):
        for row in rows:
            known.setdefault(row.name, row.description)
    return known


def row_of(name: str) -> str:
    """The ablation's row of a table's row, which may name its seeds, too."""
    return name.partition(", ")[0]


def render_ablation(lines: DataFrame, style: str) -> str:
    """The table as text, Markdown, CSV (a column for each number), LaTeX or HTML (escaped)."""

    def texts(name: str, specification: str, scale: float = 1) -> list[str]:
        """Return a column as text, empty where a number is missing."""
        values = lines[name].astype(float) * scale
        return ["" if value != value else format(value, specification) for value in values]

    if style == "csv":
        seconds = texts("seconds_per_step", ".6f")
        images = texts("images_per_second", ".2f")
        exact = lines.assign(seconds_per_step=seconds, images_per_second=images)
        return write_cells(exact, style, 2)
    cells = lines[["row", "description", "seeds"]].copy()
    for name in ("base", "new", "H"):
        cells[name] = list(map(summary, lines[f"{name}_mean"], lines[f"{name}_std"]))
    cells[f"H − {FULL}"] = texts("difference", "+.2f")
    pairs = zip(texts("lower", "+.2f"), texts("upper", "+.2f"))
    cells[f"{100 * CONFIDENCE_LEVEL:g} % interval"] = [
        " … ".join(filter(None, pair)) for pair in pairs
    ]
    cells["p, Holm"] = texts("p", ".2g")
    cells["parameters"] = texts("parameters", ",.0f")
    cells["ms/step"] = texts("seconds_per_step", ".1f", 1000)
    cells["images/s"] = texts("images_per_second", ".0f")
    return write_cells(cells, style, 2) + below([TEST], style)


def render_ablations(ablations: Mapping[str, DataFrame], style: str = "text") -> str:
    """All tables, each below its title where there are several."""
    return join_texts(
        [(title, render_ablation(lines, style)) for title, lines in ablations.items()]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/ablation")
    return run_table_command(
        parser,
        lambda args: render_ablations(collect_ablations(args.folder), args.format),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
