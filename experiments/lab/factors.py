"""Does a factor that has nothing to do with the class change the answers? A table on the protocol ``factors``.

    python -m experiments.lab.factors output/factors --format markdown

Everything in percent, mean ± sample standard deviation over seeds; what the factors are:
datasets/drawn/factors.py.

Accuracy on the same emojis where the factor has the class's own level (aligned), any level
(independent), another class's level (reversed); the *drop*, aligned − reversed; *flipped*, the
share of emojis whose answer is not the same aligned and reversed; and *worst group*, the lowest
accuracy of a group (Sagawa et al., 2020, "Distributionally Robust Neural Networks for Group
Shifts", where a group is a class with an attribute's level). There are too few test images for
classes × levels: a group here is a level of the factor, shown to classes that it belongs to or to
others, over the aligned and reversed images; as long as one has fewer than 10 images, the two
smallest are one. Zero-shot CLIP has seen no correlation: its drop is what the pairing of classes
and levels alone does. A second table has the drop of each template alone, where templates vote.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
from pandas import Series

from results.render import render_all, run_table_command, table_arguments
from results.rows import Table
from results.runs import FACTOR_PARTS, Arrays, FinishedRun, collect
from results.table import FACTOR_TITLE, tables
from trainers.common.errors import UserError

GROUP = 10  # images that a group has at least


def worst_group_accuracy(
    right: numpy.ndarray, level: numpy.ndarray, matches: numpy.ndarray
) -> float:
    """The lowest accuracy, in percent, of the groups that the head of this module describes.

    Args:
        right: (N,) bool; level: (N,) the factor's, as shown; matches: (N,) bool, whether it is that
            of the image's class.
    """
    groups = [group.to_numpy() for _, group in Series(right).groupby([level, matches])]
    while len(groups) > 1 and min(map(len, groups)) < GROUP:
        first, second, *groups = sorted(groups, key=len)
        groups.append(numpy.concatenate([first, second]))
    worst: float = 100 * min(group.mean() for group in groups)
    return worst


def of_answers(aligned: Arrays, reversed_: Arrays, factor: str) -> dict[str, float]:
    """``worst group`` and ``flipped`` of a run, in percent.

    Args:
        aligned, reversed_: arrays of the run's answers to the two versions, see
            ``trainers.evaluation.prediction.per_image``.
        factor: the correlated one.

    Raises:
        UserError: they are answers to different emojis.
    """
    from datasets.drawn.factors import LEVELS, levels_of

    codes = [Path(name).stem for name in aligned["image"]]
    if codes != [Path(name).stem for name in reversed_["image"]]:
        raise UserError(
            "the aligned and the reversed test have other emojis, or in another order: run them "
            "again"
        )
    labels = aligned["label"]  # the emojis' of both
    levels = []
    for version in ("aligned", "reversed"):
        for code, label in zip(codes, labels.tolist()):
            levels.append(levels_of(code, label, "test", version, factor)[factor])
    level = numpy.array(levels)  # (2N,)
    right = numpy.concatenate([aligned["right"], reversed_["right"]])
    fits = level == numpy.tile(labels, 2) % LEVELS
    return {
        "worst group": worst_group_accuracy(right, level, fits),
        "flipped": 100 * (aligned["answer"] != reversed_["answer"]).mean(),
    }


def vote_drops(aligned: FinishedRun, reversed_: FinishedRun) -> dict[str, float]:
    """``drop`` of each template alone, in percent; empty where there are none."""
    pairs = zip(*(run.metrics.get("template_accuracy", ()) for run in (aligned, reversed_)))
    return {f"template {number}": own - other for number, (own, other) in enumerate(pairs, 1)}


def factor_tables(folder: str) -> list[Table]:
    """The tables described above.

    Raises:
        UserError: no run of the protocol lies there, or one can't be read.
    """
    table = next((table for table in tables(collect(folder)) if table.title == FACTOR_TITLE), None)
    if table is None or table.frame.empty:
        raise UserError(
            f"no run of the protocol factors below {folder}: run.py --protocol factors makes them"
        )
    frame = table.frame.loc[[line[:-1] in table.runs for line in table.frame.index]]
    drop = frame.pop("drop")
    of_votes = []
    for *key, seed in frame.index:
        runs = {FACTOR_PARTS[run.part]: run for run in table.runs[tuple(key)] if run.seed == seed}
        factor = runs["aligned"].record["config"]["DATASET"]["FACTORS"]["CORRELATED"]
        aligned = runs["aligned"].known_answers
        reversed_ = runs["reversed"].known_answers
        for name, value in of_answers(aligned, reversed_, factor).items():
            frame.loc[(*key, seed), name] = value
        if drops := vote_drops(runs["aligned"], runs["reversed"]):
            of_votes.append((tuple(key), seed, drops))
    found = [Table(FACTOR_TITLE.capitalize(), frame.assign(drop=drop), table.runs)]
    if of_votes:
        found.append(Table.of("Drop of each template alone", table.heads, of_votes))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "output/factors, or another folder with that protocol's runs")
    return run_table_command(
        parser, lambda args: render_all(factor_tables(args.folder), args.format), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
