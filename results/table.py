"""Tables out of run records, one for each protocol whose runs lie below a folder.

    python -m results.table output/base2new --published --seed-h
    python -m results.table output/base2new --metric ece --format markdown --output table.md

A metric is a key of the records' metrics: accuracy, macro_f1, ece, nll, brier,
uncertainty.max_probability.aurc … Reads every ``results.json`` and nothing else: a run without one
is not done and not counted. H is computed from the mean base and the mean new accuracy, as papers print
it; with ``--seed-h`` the mean of the seeds' own H. ± is the sample standard deviation over seeds.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pandas import DataFrame, concat

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.record_file import RECORD_FILE, finite, nested

from .experiment import (
    notes_on_columns,
    notes_on_rows,
    refuse_twice,
    seeds_in_words,
    split,
    why_split,
)
from .openworld import SIGN, openworld_aucs
from .render import render_all, run_table_command, table_arguments
from .rows import HEADS, Column, Key, Table, harmonic_mean
from .runs import FACTOR_PARTS, FinishedRun, collect

log = logging.getLogger(__name__)

SHARES = ("accuracy", "macro_f1")  # papers print their harmonic mean of base and new
OPEN: dict[Column, str] = {
    "base": "open.base_accuracy",
    "new": "open.new_accuracy",
    "AUROC": f"open.auroc.{SIGN}",
    "OpenworldAUC": f"open.openworld_auc.{SIGN}",
}  # column → metric, of runs of ``test_open``
RANKED: dict[Column, str] = {"mAP": "map"}
GIVEN: dict[Column, str] = {
    **RANKED,
    "micro F1": "micro_f1",
    "macro F1": "macro_f1",
}  # of multi-label runs that give labels
BASE2NEW = "base-to-new"
TOGETHER = "base and new together"
FACTOR_TITLE = "a factor that goes with the class"
FEWSHOT = "few-shot, by shots"
ZEROSHOT = "zero-shot"
SOURCE = "source"
MULTI_LABEL_TITLE = "multi-label"
RANKING = "multi-label, ranked and not given"  # by names alone
UNSHOT = (FEWSHOT, ZEROSHOT, MULTI_LABEL_TITLE, RANKING)  # whose rows are not of a number of shots
TRANSFER = {"xd": "cross-data-set", "dg": "domain generalisation"}
COLUMN_OF_PART = {
    "train_base": (BASE2NEW, "base", "base"),
    "test_new": (BASE2NEW, "new", "new"),
    **{part: (FACTOR_TITLE, version, "base") for part, version in FACTOR_PARTS.items()},
    "train_all": (FEWSHOT, "", "all"),
    "test_all": (ZEROSHOT, "all classes", "all"),
    "test_open": (TOGETHER, "all classes", "all"),
    "train_source": (SOURCE, SOURCE, "all"),
}  # part of a protocol → table, column ("": the number of shots), classes that are tested


# title → column → metric, where a table has more than an accuracy
METRIC_COLUMNS = {TOGETHER: OPEN, MULTI_LABEL_TITLE: GIVEN, RANKING: RANKED}
COLUMNS: dict[str, list[Column]] = {
    BASE2NEW: ["base", "new"],
    FACTOR_TITLE: [*FACTOR_PARTS.values()],
    **{title: [*shown] for title, shown in METRIC_COLUMNS.items()},
}  # the others: every column that occurs


def place(run: FinishedRun) -> tuple[str, Key, Column] | None:
    """Title of the table, row and column that a run belongs to; None where it is in none."""
    what = run.record["run"]
    data = what["dataset"]
    shots = what["shots"]
    if run.is_multi_label:
        title = MULTI_LABEL_TITLE if "micro_f1" in run.metrics else RANKING
        return title, (data, run.record["trainer"], run.config), "all labels"
    protocol, _, source = run.part.partition("_from_")
    if protocol in TRANSFER and source:
        title = f"{TRANSFER[protocol]} from {source}"
        column = data
        classes = "all"
    elif run.part in COLUMN_OF_PART:
        title, column, classes = COLUMN_OF_PART[run.part]
    else:
        return None
    if what["classes"] != classes or not run.metrics:
        tested = ", ".join(run.record["metrics"]) or "nothing"
        log.warning("left out: %s tests the %s classes' %s", run.folder, what["classes"], tested)
        return None
    key = (source or data, shots, run.record["trainer"], run.config)
    if title in (FEWSHOT, ZEROSHOT):
        return title, (key[0], *key[2:]), column or shots
    return title, key, column


Lines = list[tuple[Key, FinishedRun, dict[Column, float | None]]]  # row, run, value by column


class NoTable(UserError):
    """No run belongs to a table."""


def tables(runs: list[FinishedRun], metric: str = "accuracy", seed_h: bool = False) -> list[Table]:
    """The tables of all protocols that the runs belong to, of one metric; runs that lack it are
    left out. Seeds that are not one experiment have a row each.

    Args:
        seed_h: whether H is the mean of the seeds' own, instead of the H of the means.

    Raises:
        NoTable: no run belongs to a protocol, or none has that metric.
        UserError: a run is there twice.
    """
    lines_of: dict[str, Lines] = defaultdict(list)
    lacking = 0
    places = []
    aucs = openworld_aucs(runs) if metric.startswith(("accuracy", "open.")) else {}
    for run in runs:
        placed = place(run)
        if placed is None:
            continue
        title, key, column = placed
        several = METRIC_COLUMNS.get(title) if metric == "accuracy" else None
        metrics = run.metrics
        if run.folder in aucs:
            metrics = {**metrics, "open": {**metrics["open"], "openworld_auc": aucs[run.folder]}}
        shown = several or {column: metric}
        values = {
            name: finite(nested(metrics, *dotted.split("."))) for name, dotted in shown.items()
        }
        if None in values.values():
            lacking += several is None  # their lacking parts are said
        else:
            places.append(((title, *key, column, f"seed {run.seed}"), run.folder))
            lines_of[title].append((key, run, values))
    refuse_twice(places)
    sources = lines_of.pop(SOURCE, [])
    if lacking:
        log.warning("left out: %d run(s) that have no %s", lacking, metric)
    if not lines_of:
        raise NoTable(
            f"none of the runs has the metric {metric!r}; it is a key of their {RECORD_FILE}, such "
            "as accuracy, macro_f1, ece, nll, uncertainty.max_probability.aurc"
            if lacking
            else "no run of a protocol's is done there: run scripts/cdc/demo.sh or run.py first"
        )
    add_sources(lines_of, sources)
    warn_of(lines_of)
    return [
        make_table(title, lines_of[title], metric, seed_h)
        for title in sorted(lines_of, key=lambda title: (title != BASE2NEW, title))
    ]


def add_sources(lines_of: dict[str, Lines], sources: Lines) -> None:
    """Add the runs on the source of a transfer to the rows of its tables."""
    for title, lines in lines_of.items():
        if " from " in title:
            rows = {key for key, *_ in lines}
            lines += [line for line in sources if line[0] in rows]


def experiments(lines: Lines) -> tuple[Lines, list[str]]:
    """Return the lines with the seeds after a row's name where its seeds are not one experiment, and
    the differences between these."""
    runs_of: dict[Key, list[FinishedRun]] = defaultdict(list)
    for key, run, _ in lines:
        runs_of[key].append(run)
    names: dict[tuple[Key, int], str] = {}
    notes = []
    for key, runs in runs_of.items():
        records = [run.record for run in runs]
        groups = split(records)
        if len(groups) > 1:
            notes.append(f"Not one experiment, {words_of(key)}: {why_split(records, groups)}.")
            names |= {
                (key, seed): f", {seeds_in_words(group)}" for group in groups for seed in group
            }
    apart = [
        ((*key[:-1], key[-1] + names.get((key, run.seed), "")), run, values)
        for key, run, values in lines
    ]
    return apart, notes


def words_of(key: Key) -> str:
    """A row's key in words."""
    return " ".join(map(str, key))


def differing_columns(lines: Lines, columns: Sequence[Column]) -> list[str]:
    """Return the differences of columns from a row's first, of the data sets behind an average, and
    of rows from the first, a line each."""
    cells: dict[str, dict[Any, Any]] = defaultdict(dict)
    averaged: dict[tuple[str, Key], dict[Any, Any]] = defaultdict(dict)
    rows: list[tuple[str, object, Any]] = []
    for key, run, values in sorted(lines, key=lambda line: [*columns].index(next(iter(line[2])))):
        column = " ".join(map(str, values))
        cells[words_of(key)].setdefault(column, run.record)
        averaged[column, key[1:]].setdefault(key[0], run.record)
        *place, trainer, config = key
        recipe = config.partition(", seed")[0]  # what its seeds differ in is said of itself
        rows.append((f"{trainer} {recipe}", (*place, column), run.record))
    averages = [(f"average, {words_of(key)}", records) for (_, key), records in averaged.items()]
    return notes_on_columns([*cells.items(), *averages]) + notes_on_rows(rows)


def make_table(title: str, lines: Lines, metric: str, seed_h: bool) -> Table:
    """One table of a protocol, with averages over data sets, in order, as ``tables``."""
    lines, notes = experiments(lines)
    name = title.split(" from ")[0]
    heads = [head for head in HEADS if head != "shots" or title not in UNSHOT]
    columns = None if name in METRIC_COLUMNS and metric != "accuracy" else COLUMNS.get(name)
    if columns is None:
        seen = {column for *_, values in lines for column in values}
        columns = sorted(seen, key=lambda column: (column != SOURCE, column))
    by_seed = [(key, run.seed, values) for key, run, values in lines]
    frame = Table.of(title, heads, by_seed, columns).frame
    for key, rows in frame[frame.isna().any(axis=1)].groupby(level=heads):
        row = words_of(key)
        seeds = sorted(rows.index.get_level_values("seed"))
        numbers = ", ".join(map(str, seeds))
        log.warning("left out: %s seed(s) %s, of which only a part is done", row, numbers)
    measured = frame.dropna()
    whole = in_order(with_averages(measured), len(measured))
    has_h = metric in SHARES and {"base", "new"} <= {*columns}
    if has_h:
        whole["H"] = harmonic_mean((whole["base"], whole["new"]))
    elif name == FACTOR_TITLE:
        whole["drop"] = whole["aligned"] - whole["reversed"]
    elif name in TRANSFER.values():
        whole["average"] = whole.iloc[:, 1:].mean(axis=1)
    title += "" if metric == "accuracy" else f", {metric}"
    runs: dict[Key, list[FinishedRun]] = defaultdict(list)
    for key, run, _ in lines:
        runs[key].append(run)
    return Table(
        title, whole, runs, has_h and not seed_h, notes + differing_columns(lines, columns)
    )


def in_order(frame: DataFrame, measured: int) -> DataFrame:
    """The lines by data set, and of one by their trainer's mean in the first column; the averages,
    which come after the ``measured`` ones, stay after them."""
    heads = list(frame.index.names[:-1])
    order = frame.index.to_frame(index=False)
    order["average"] = order.index >= measured
    order["first"] = frame.iloc[:, 0].groupby(level=heads).transform("mean").to_numpy()
    order = order.sort_values(["average", *heads[:-2], "first", "seed"])
    return frame.reindex(frame.index[order.index])


def with_averages(frame: DataFrame) -> DataFrame:
    """Add, for each trainer and config with several data sets, the row of their mean over the seeds that
    all of them have; it comes after all that was measured.

    Values derived from the columns are derived from these means, too, as papers print them: the
    average H is of the mean base and new accuracy.
    """
    first, *others, _ = frame.index.names
    parts = [frame]
    for _, rows in frame.groupby(level=others, sort=False):
        count = rows.index.get_level_values(first).nunique()
        groups = rows.groupby(level=[*others, "seed"])
        means = groups.mean()[groups.size() == count]
        if count > 1:
            parts.append(concat({f"average of {count}": means}, names=[first]))
    return concat(parts)


def warn_of(lines_of: dict[str, Lines]) -> None:
    """Warns of runs whose values don't belong together, or are not of all images."""
    values: dict[tuple[str, str], set[object]] = defaultdict(set)  # which must be one and the same
    partial: dict[str, str] = {}
    for title, lines in lines_of.items():
        for key, run, _ in lines:
            record = run.record
            what = run.record["run"]
            warn_of_skipped(run)
            left_out = nested(run.metrics, "open", "left_out")
            if isinstance(left_out, list) and left_out:
                partial[record["trainer"]] = ", ".join(map(str, left_out))
            shots = f"shots_{what['shots']}"
            seed = f"seed {run.seed}"
            row = words_of(key)
            if title in UNSHOT:
                row += f" {shots}"
            sample = f"{run.part}/{what['dataset']}/{shots}, {seed}"
            backbone = record["config"]["MODEL"]["BACKBONE"]["NAME"]
            tested = f"not one run: {row}, {seed}: its parts were tested with different prompts"
            samples = f"not comparable: {sample}: the runs used different samples"
            weights = f"not comparable: the backbone {backbone} had different weights"
            values[title, tested].add((record["prompts_hash"], record["backbone_hash"]))
            values["", samples].add(record["split_hash"])
            values["", weights].add(record["backbone_hash"])
    for trainer, names in partial.items():
        text = "among all classes %s answers without its %s, which serves the base classes alone"
        log.warning(text, trainer, names)
    for (_, text), different in values.items():
        if len(different) > 1:
            log.warning("%s", text)


def warn_of_skipped(run: FinishedRun) -> None:
    """Warns of images that a run could not read."""
    for part, names in run.record["skipped_images"].items():
        text = "not on all images: %s skipped %s that could not be read"
        log.warning(text, run.folder, counted(len(names), f"{part} image"))


def render_wanted(args: argparse.Namespace) -> str:
    """The tables that the command's arguments ask for.

    Raises:
        UserError: as ``tables``; also for published numbers of another metric.
    """
    if args.published and args.metric != "accuracy":
        raise UserError(
            f"--published: only accuracies are published, leave out --metric {args.metric}"
        )
    made = tables(collect(args.folder), args.metric, args.seed_h)
    return render_all(made, args.format, args.published)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/base2new, output/fewshot, output/transfer …")
    parser.add_argument(
        "--metric",
        default="accuracy",
        help="key of the records' metrics, with dots between levels (accuracy)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="beside each figure that papers have: theirs, and the difference in points and in "
        "standard deviations",
    )
    parser.add_argument(
        "--seed-h",
        action="store_true",
        help="H of each seed, mean and deviation, in place of the H of the means",
    )
    return run_table_command(parser, render_wanted, arguments)


if __name__ == "__main__":
    sys.exit(main())
