"""Says for each figure whether it reproduces the published one, differs from it, or is too noisy to say.

    python -m results.check output/base2new output/transfer

Base-to-new, cross-data-set and domain generalisation on ViT-B/16, 16 shots. A figure reproduces the
published one within 1 point, or within 2 standard deviations of its mean over seeds (s / √n) where
those are at most 1.5 points; where they are more, a figure within them says nothing, and the line
has the number of seeds that would. Runs with other options, descriptions or another recipe than the
published experiment are listed and not judged. Where figures of five data sets and more are known,
another line judges their mean difference over the data sets, by Student's t and Holm's correction over
all such lines of a table. docs/reproduce.md
says what to do where a figure differs.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from protocols.plan import plan
from trainers.common.console import counted
from trainers.common.errors import UserError, exit_code
from trainers.common.same_run import NO_MATTER, WORKERS, changes

from .holm import ALPHA, by_holm, holm_over
from .published import BASE2NEW_MEASURES, Comparison, comparisons
from .runs import HALVES, FinishedRun, collect
from .table import tables

if TYPE_CHECKING:
    from .comparison import Difference
    from .rows import Table

log = logging.getLogger(__name__)

POINTS = 1.0  # in percent: always near enough
NOISE = 1.5  # in percent: the most that two deviations may be
VERDICTS = ("reproduces", "differs", "too noisy to say", "not the published experiment")


def verdict(number: Comparison) -> tuple[str, str]:
    """One of the first three ``VERDICTS``, and why.

    Two standard deviations s / √n of a mean over n seeds are at most ``NOISE`` from (2 s / NOISE)²
    seeds on.
    """
    if abs(number.difference) <= POINTS:
        return "reproduces", f"within {POINTS:g} point"
    if number.deviation is None:
        return "too noisy to say", "one seed has no deviation: run 3"
    noise = 2 * number.deviation / math.sqrt(number.seeds)
    why = f"2 deviations of the mean are {noise:.2f} points"
    if abs(number.difference) > noise:
        return "differs", why
    if noise <= NOISE:
        return "reproduces", why
    return "too noisy to say", f"{why}: run {math.ceil((2 * number.deviation / NOISE) ** 2)} seeds"


def verdict_over_data_sets(
    difference: "Difference", student: float, family: int
) -> tuple[str, str]:
    """One of the first three ``VERDICTS`` on the mean difference to published numbers, and why.

    student: Student's p by Holm over as many differences as ``family``.
    """
    low, high = difference.interval
    why = f"95 % interval {low:+.2f} … {high:+.2f}, Student's t, p {student:.2g}{holm_over(family)}"
    if abs(difference.mean) <= POINTS:
        return "reproduces", f"{why}, the mean within {POINTS:g} point"
    if student < ALPHA:
        return "differs", why
    return "too noisy to say", why


@cache
def departures(run: FinishedRun, recipe: str) -> list[str]:
    """Return the differences between a run and its recipe's experiment: ``KEY its → published``.

    Args:
        recipe: its name; "": the trainer's own for the run's protocol.
    """
    # here, since they take seconds: wrong arguments are answered at once
    from protocols.arguments import planned_config

    what = run.record["run"]
    data = run.part.partition("_from_")[2] or what["dataset"]
    protocol = "base2new" if run.part in HALVES else what["protocol"]
    planned = plan(
        protocol, what["trainer"], data, [what["shots"]], [what["seed"]], "", recipe or None
    )
    tested = run.part, what["dataset"]
    same = next(other for other in planned if (other.part, other.dataset) == tested)
    if run.config != same.name:
        return [f"recipe {run.config} → {same.name}"]
    # its draws are others than the published ones anyway
    return changes(planned_config(same, root=""), run.record, [*NO_MATTER, WORKERS])


# by trainer, config and measure: the differences of the published experiment's data sets
Differences = dict[tuple[str, str, str], dict[str, float]]


def check(args: argparse.Namespace) -> int:
    """Print a line for each number; return 1 where one differs, else 0.

    Raises:
        UserError: no run is there, or none with a published number.
    """
    counts: Counter[str] = Counter()
    for folder in args.folders:
        for table in tables(collect(folder)):
            for note in table.notes:
                log.warning("%s", note)
            check_means(table.title, check_numbers(table, counts), counts)
    if not counts:
        raise UserError(
            f"nothing to compare in {' '.join(args.folders)}: published numbers are of ViT-B/16, "
            "16 shots, base-to-new and transfer from ImageNet (results/published.yaml)"
        )
    print(", ".join(f"{name}: {counts[name]}" for name in VERDICTS))
    return int(counts["differs"] > 0)


def check_numbers(table: "Table", counts: Counter[str]) -> Differences:
    """Print a table's published numbers beside ours, and count their verdicts.

    Returns:
        the differences of the published experiment's data sets.
    """
    over: Differences = defaultdict(dict)
    for number in comparisons(table):
        odd = dict.fromkeys(
            text for run in table.runs_of(number.row) for text in departures(run, number.recipe)
        )
        answer, why = (VERDICTS[-1], "; ".join(list(odd)[:3])) if odd else verdict(number)
        counts[answer] += 1
        data, _, trainer, config = number.row
        if not odd and not table.is_average(number.row) and number.name != "average":
            column = str(number.name)
            if column in BASE2NEW_MEASURES:
                over[trainer, config, column][data] = number.difference
            else:  # a column is a data set there
                over[trainer, config, "accuracy"][column] = number.difference
        deviation = "" if number.deviation is None else f" ± {number.deviation:.2f}"
        print(
            f"{answer:{len(VERDICTS[-1])}}  {table.title}, {trainer} {config}, {data}, "
            f"{number.name}: {number.mean:.2f}{deviation} over {counted(number.seeds, 'seed')}, "
            f"published {number.published:.2f} "
            f"({number.difference:+.2f} points; {why})"
        )
    return over


def check_means(title: str, over: Differences, counts: Counter[str]) -> None:
    """Print the mean differences over ``FEWEST_DATA_SETS`` data sets and more, and count their verdicts."""
    # here, since they take seconds: a wrong argument is answered at once
    from pandas import Series

    from .comparison import FEWEST_DATA_SETS, Difference

    means = {}
    for key, by_data in over.items():
        if len(by_data) >= FEWEST_DATA_SETS:
            of = Series(by_data)
            means[key] = Difference(of, of * math.nan)
    chances = by_holm(difference.student for difference in means.values())
    for ((trainer, config, measure), difference), student in zip(means.items(), chances):
        answer, why = verdict_over_data_sets(difference, student, len(means))
        counts[answer] += 1
        print(
            f"{answer:{len(VERDICTS[-1])}}  {title}, {trainer} {config}, "
            f"{len(difference.of)} data sets, {measure}: {difference.mean:+.2f} points ({why})"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where a number differs, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("folders", nargs="+", help="output/base2new, output/transfer …")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    return exit_code(check, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
