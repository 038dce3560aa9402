"""Do the templates of a run differ? How each of them votes, and how far apart they are.

    python -m experiments.lab.templates output/base2new --format markdown

Of every run whose templates vote (CDC), from its record and its answers alone: how far apart the
templates were before and after training; the accuracy of each template's own vote (S1, S2 …), of
the model's answer (fused) and of an oracle, for which an image counts where at least one template
is right: no fusion that takes one of the votes can exceed it; agreement and Cohen's kappa of the
votes. ± is the sample standard deviation over seeds. Where each template looks is drawn in the
report: ``python -m report output/base2new --root data``.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import numpy

from results.render import render_all, run_table_command, table_arguments
from results.rows import SERIES_HEADS, Line, Table
from results.runs import RunSeries, collect, group, with_answers
from trainers.common.errors import UserError

log = logging.getLogger(__name__)
MOVED = "Templates before and after training"
COSINES = {
    "between": "between templates",
    "to_clip": "to CLIP's own",
    "deviations": "between deviations from CLIP's own",
}  # what a training notes of texts and images, before and after


def agreement(votes: numpy.ndarray, answer: numpy.ndarray, label: numpy.ndarray) -> numpy.ndarray:
    """How often two templates vote for the same class.

    Args:
        votes: (M, N) classes; answer, label: (N,), what was answered, and what is right.

    Returns:
        (M + 2, M + 2) in percent: templates, answer, truth.
    """
    classes = numpy.vstack([votes, answer, label])
    agreed: numpy.ndarray = 100 * (classes[:, None] == classes[None]).mean(axis=2)
    return agreed


def kappa(votes: numpy.ndarray) -> numpy.ndarray:
    """How far two templates agree beyond what their frequencies of classes make likely (Cohen,
    1960, "A Coefficient of Agreement for Nominal Scales").

    Args:
        votes: (M, N) classes.

    Returns:
        (M, M): 1 where they always agree, 0 where as often as by chance, and down to -1.
    """
    from sklearn.metrics import cohen_kappa_score

    kappas = numpy.ones((len(votes), len(votes)))
    for first, second in numpy.ndindex(kappas.shape):
        if (votes[first] != votes[second]).any():  # else 0 / 0 where there is one class throughout
            kappas[first, second] = cohen_kappa_score(votes[first], votes[second])
    return kappas


def oracle(votes: numpy.ndarray, label: numpy.ndarray) -> float:
    """Share of the images, in percent, for which at least one of the (M, N) votes is the (N,)
    label.
    """
    share: float = 100 * (votes == label).any(axis=0).mean()
    return share


def template_tables(series: list[RunSeries]) -> list[Table]:
    """The tables described above; those of votes once for each number of templates.

    Args:
        series: those whose runs all have votes.
    """
    # title, templates, heads → lines
    lines: dict[tuple[str, int, tuple[str, ...]], list[Line]] = defaultdict(list)
    runs_of_series = [(entry, run) for entry in series for run in entry.runs]
    for entry, run in runs_of_series:
        key = (entry.tested_on, entry.name)
        seed = run.seed
        learned = run.record["learned"]
        for of, (name, title) in product(("texts", "images"), COSINES.items()):
            cosines = {when: learned.get(f"{of}_{name}_{when}") for when in ("before", "after")}
            if None not in cosines.values():
                percents = {when: 100 * cosine for when, cosine in cosines.items()}
                lines[MOVED, 0, (*SERIES_HEADS, "100 × cosine")].append(
                    ((*key, f"{of}, {title}"), seed, percents)
                )
        answers = run.known_answers
        vote = answers["vote"]
        label = answers["label"]
        count = len(vote)
        agreed = agreement(vote, answers["answer"], label)
        numbers = [*map(str, range(1, 1 + count))]
        columns = [*(f"S{number}" for number in numbers), "fused"]
        accuracy = {**dict(zip(columns, agreed[-1])), "oracle": oracle(vote, label)}
        lines[f"Accuracy of {count} templates", count, SERIES_HEADS].append((key, seed, accuracy))
        names = [*numbers, "answer", "truth"]
        for title, matrix in (
            ("Agreement of the votes in %", agreed),
            ("Cohen's kappa of the votes", kappa(vote)),
        ):
            lines[title, count, (*SERIES_HEADS, "template")] += [
                ((*key, name), seed, dict(zip(names, row))) for name, row in zip(names, matrix)
            ]
    # by title, the cosines first
    keys = sorted(lines, key=lambda key: (key[0] != MOVED, key[0]))
    return [Table.of(key[0], key[2], lines[key]) for key in keys]


def rendered(args: argparse.Namespace) -> str:
    """The tables that the command's arguments ask for.

    Raises:
        UserError: no run with several templates is in or below the folder, or a file can't be read.
    """
    every = group(collect(args.folder))
    series = [
        entry for entry in with_answers(every) if entry.has("vote") and len(entry.pool("vote")) > 1
    ]
    voting = {entry.where for entry in series}
    for entry in every:
        if entry.where not in voting:
            log.warning("left out: %s, has no votes of several templates", entry.where)
    if not series:
        raise UserError(
            f"no run in or below {args.folder} has votes of several templates: train CDC with "
            "TRAINER.CDC.N_TEMPLATES above 1"
        )
    return render_all(template_tables(series), args.format)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = table_arguments(__doc__, "a finished run, or a folder of such runs")
    return run_table_command(parser, rendered, arguments)


if __name__ == "__main__":
    sys.exit(main())
