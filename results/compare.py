"""Says whether trainers differ over data sets by more than noise, and how many more data would decide it.

    python -m results.compare CDC PromptSRC --from output/base2new
    python -m results.compare MaPLe CoCoOp CoOp    # as published, results/published.yaml
    python -m results.compare GDA DePTPromptSRC --from docs/data/put_aside.csv    # a table's CSV

The first trainer minus each other one, paired over data sets and the seeds within them, for each
number of shots: the mean with its 95 % interval by Student's t (BCa: by a bootstrap), the difference
on each data set, and Wilcoxon's test. Verdicts are of H alone, where a protocol has it: p of both
tests is corrected by Holm over its differences, and other measures have intervals. Three trainers or more are ranked (Friedman, Nemenyi, Wilcoxon by Holm over all pairs). Where
tests disagree, the output says so, and it says where Wilcoxon's test can show nothing. Fewer than five data sets are refused.
On base classes, trainers with a part for the trained classes alone (†) are compared only with each other;
their difference from the rest stands in a line below, for a user who labels pictures of these classes.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from pandas import DataFrame, MultiIndex, Series, read_csv

from trainers.common.errors import UserError, exit_code, nearest
from trainers.common.files import check_output, write_text
from trainers.common.readers import read_yaml

from .comparison import (
    DATA,
    PRIMARY,
    Difference,
    ProtocolScores,
    Ranking,
    powerless_over,
    with_minus_signs,
)
from .experiment import refuse_twice
from .holm import by_holm, holm_over
from .published import BASE2NEW_MEASURES, PUBLISHED, PUBLISHED_SHOTS, TRANSFER_LISTS, read_published
from .render import DAGGER, MEANING, write_cells
from .rows import Column, Table
from .runs import collect, shots_in_words
from .svg import SVG_MARK
from .table import BASE2NEW, SOURCE, tables

log = logging.getLogger(__name__)

INDEX = ["trainer", DATA, "seed"]
Differences = dict[tuple[str, str], Difference]  # made by ``differences_of``


def scores_of(table: Table, metric: str, asked: Sequence[str]) -> list[ProtocolScores]:
    """The scores that a table of runs has, without its averages, one for each number of shots.

    asked: names of trainers, as in ``full_names``.
    """
    heads = table.heads
    frame = table.by_seed.reset_index()
    rows = frame[heads].itertuples(index=False, name=None)
    frame = frame.loc[[not table.is_average(row) for row in rows]]
    are_marked = []
    for row in frame[heads].itertuples(index=False, name=None):
        records = [run.record for run in table.runs_of(row)]
        are_marked.append(any(record.get("class_parameters") for record in records))
    frame["trainer"] = full_names(frame, asked)
    marked = frozenset(frame["trainer"][are_marked])
    columns = [name for name in table.names if name in frame]
    return by_shots(table.title, frame, columns, metric, marked)


def by_shots(
    title: str, frame: DataFrame, columns: list[Column], metric: str, marked: frozenset[str]
) -> list[ProtocolScores]:
    """Return the scores of a table: one for each number of shots, or one where it has no such column.

    Args:
        frame: lines with ``INDEX``, and ``shots`` where the table has it.
        columns: the measures; of a transfer from a source the tested data sets, each of which becomes a line.
        metric: the measure in a transfer's columns; marked: as in ``ProtocolScores``.
    """
    shots = [name for name in frame if name == "shots"]
    if SOURCE in columns:
        tested = [name for name in columns if name not in (SOURCE, "average")]
        frame = frame.drop(columns=DATA).melt(["trainer", "seed", *shots], tested, DATA, metric)
        columns = [metric]
    if not shots:
        return [ProtocolScores(title, frame.set_index(INDEX)[columns], marked)]
    return [
        ProtocolScores(titled_by_shots(title, number), lines.set_index(INDEX)[columns], marked)
        for number, lines in frame.groupby("shots")
    ]


def titled_by_shots(title: str, shots: int) -> str:
    return f"{title}, {shots_in_words(shots)}"


def full_names(frame: DataFrame, asked: Sequence[str] = ()) -> Series:
    """The trainers of a table's lines, with their recipe or row where a trainer has several, or
    where it is asked for by that name."""
    names = frame["trainer"] + " " + frame["config"]
    configs = frame.groupby("trainer")["config"].transform("nunique")
    return frame["trainer"].where((configs == 1) & ~names.isin(asked), names)


def kept_scores(
    path: Path, metric: str = "accuracy", asked: Sequence[str] = ()
) -> list[ProtocolScores]:
    """The scores of a table that ``results.table --format csv`` has written, one for each number of
    shots; its one *seed* is the mean.

    Raises:
        UserError: the file is not such a table, or a row is there twice.
    """
    try:
        frame = read_csv(path)
        frame = frame[~frame[DATA].str.fullmatch(r"average of \d+")].assign(seed=0)
        frame["trainer"] = full_names(frame, asked)
        of_mark = (
            frame["trainer"].str.split().str[0].isin(read_published()["trained_classes_alone"])
        )
        marked = frozenset(frame["trainer"][of_mark])
        frame = frame.rename(columns=lambda name: name.removesuffix("_mean"))
        means = [name for name in frame if f"{name}_std" in frame]
        key = [name for name in ("trainer", DATA, "shots") if name in frame]
        rows = frame[key].itertuples(name=None)
        refuse_twice((tuple(row), f"line {line + 2} of {path}") for line, *row in rows)
        return by_shots(path.stem, frame, means, metric, marked)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no table that results.table writes with --format csv ({error})"
        ) from error


def published_scores(path: Path) -> Iterator[ProtocolScores]:
    """The scores per data set of a file like ``published.yaml``; its one *seed* is the mean of the
    authors' own.

    Raises:
        UserError: the file is not of that kind.
    """
    try:
        known = read_yaml(path)
        marked = frozenset(known["trained_classes_alone"])
        pairs = {
            (trainer, data, 0): numbers
            for trainer, sets in known["base2new"].items()
            for data, numbers in sets.items()
        }
        title = titled_by_shots(BASE2NEW, PUBLISHED_SHOTS)
        yield ProtocolScores(title, by_index(pairs, BASE2NEW_MEASURES), marked)
        for title, protocol in TRANSFER_LISTS.items():
            rows = dict(known[protocol])
            tested = rows.pop("order")[1:-1]
            values = {
                (trainer, data, 0): [value]
                for trainer, row in rows.items()
                for data, value in zip(tested, row[1:])
            }
            title = titled_by_shots(title, PUBLISHED_SHOTS)
            yield ProtocolScores(title, by_index(values, ["accuracy"]), marked)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no table of published numbers ({error}): write it as {PUBLISHED}"
        ) from error


def by_index(values: dict[tuple[str, str, int], list[float]], columns: list[str]) -> DataFrame:
    index = MultiIndex.from_tuples(values, names=INDEX)
    return DataFrame(list(values.values()), index, columns, dtype=float)


def read_scores(
    sources: Sequence[str], metric: str, asked: Sequence[str] = ()
) -> list[ProtocolScores]:
    """The scores of folders of runs, of tables' CSVs and of files of published numbers, one for each
    protocol, or CSV, and number of shots.

    Published trainers are named as such where there are runs, too.

    asked: names of trainers, as in ``full_names``.

    Raises:
        UserError: two files have one trainer's numbers; another metric has no published numbers; or as
            ``tables``, ``kept_scores`` and ``published_scores``.
    """
    files = [source for source in sources if source.endswith((".yaml", ".yml"))]
    kept = [source for source in sources if source.endswith(".csv")]
    folders = [source for source in sources if source not in files + kept]
    if files and metric != "accuracy":
        raise UserError(f"only accuracies are published: leave out --metric {metric}")
    found: dict[str, ProtocolScores] = {}
    if folders:
        for table in tables(collect(*folders), metric, seed_h=True):
            for note in table.notes:
                log.warning("%s", note)
            found |= {scores.title: scores for scores in scores_of(table, metric, asked)}
    for file in kept:
        found |= {f"{file} {each.title}": each for each in kept_scores(Path(file), metric, asked)}
    published = [(file, list(published_scores(Path(file)))) for file in dict.fromkeys(files)]
    refuse_twice(
        ((scores.title, trainer), file)
        for file, of_file in published
        for scores in of_file
        for trainer in scores.trainers
    )
    for _, of_file in published:
        for scores in of_file:
            if folders:
                frame = scores.frame.rename("{} (published)".format, level="trainer")
                marked = frozenset(map("{} (published)".format, scores.marked))
                scores = ProtocolScores(scores.title, frame, marked)
            before = found.get(scores.title)
            found[scores.title] = before.join(scores) if before else scores
    return list(found.values())


def choose(scores: Sequence[ProtocolScores], trainers: Sequence[str]) -> list[ProtocolScores]:
    """Return the scores of the named trainers, or of all if none is named, under each protocol with at
    least two of them.

    Raises:
        UserError: a name is unknown, or nothing has two of them.
    """
    known = list(dict.fromkeys(name for each in scores for name in each.trainers))
    for name in trainers:
        if name not in known:
            raise UserError(
                f"there is no {name}{nearest(name, known)}; there are: {', '.join(known)}"
            )
    several = []
    for each in scores:
        names = [name for name in dict.fromkeys(trainers or each.trainers) if name in each.trainers]
        if len(names) > 1:
            several.append(each.of(names))
    if not several:
        raise UserError(f"nothing to compare: name two of {', '.join(known)}")
    return several


def differences_of(scores: ProtocolScores) -> Differences:
    """The first trainer minus each other one in every measure, by the other and the measure.

    Raises:
        UserError: they have too few data sets in common.
    """
    first, *others = scores.trainers
    return {
        (other, measure): scores.difference(first, other, measure)
        for other in others
        for measure in scores.measures
    }


def pair(scores: ProtocolScores, second: str, among: Differences) -> str:
    """The comparison of the first trainer with another one in every measure.

    Args:
        among: all that ``differences_of`` gives; those in ``scores.judged`` are the family over which
            p is corrected.
    """
    first = scores.trainers[0]
    judged = {key: each for key, each in among.items() if key[1] in scores.judged}
    family = list(judged.values())
    student = dict(zip(judged, by_holm(each.student for each in family)))
    wilcoxon = dict(zip(judged, by_holm(each.wilcoxon for each in family)))
    shown = [name for name in scores.measures if scores.may_compare((first, second), name)]
    lines = {}
    for name in shown:
        difference = among[second, name]
        has_verdict = name in scores.judged
        lines[name] = {
            "mean (95 % interval, t)": str(difference),
            "t's p, Holm": f"{student[second, name]:.2g}" if has_verdict else "",
            "BCa": difference.bootstrap_in_words,
            "above, below": f"{(difference.of > 0).sum()}, {(difference.of < 0).sum()}",
            "Wilcoxon's p, Holm": f"{wilcoxon[second, name]:.2g}" if has_verdict else "",
        }
    sets = DataFrame({name: among[second, name].of for name in shown})
    marks = [f"{name} {DAGGER}" if name in scores.marked else name for name in (first, second)]
    parts = [f"{marks[0]} minus {marks[1]}, {scores.title}"]
    parts.append(as_markdown(DataFrame(lines).T, ""))
    parts.append(as_markdown(sets.map(lambda value: with_minus_signs(f"{value:+.2f}")), DATA))
    for name in shown:
        if name in scores.judged:
            difference = among[second, name]
            parts.append(f"{name}: {difference.verdict(first, second, family)}")
            floor = difference.wilcoxon_floor
            parts.append(powerless_over(floor, len(difference.of), len(family)))
    if left_out := [name for name in scores.measures if name not in shown]:
        told = "; ".join(f"{name} {among[second, name]}" for name in left_out)
        if (second, PRIMARY) in student:
            told += f", p {student[second, PRIMARY]:.2g}{holm_over(len(family))}"
        parts.append(
            f"Left out: {', '.join(left_out)}. {MEANING} Who wants the trained classes labelled, by "
            f"whatever means: {told}."
        )
    return "\n\n".join(filter(None, parts))


def ranking(scores: ProtocolScores, measure: str) -> str:
    """Return the ranks of all trainers in a measure, and the tests' verdict on each pair.

    Raises:
        UserError: as ``Ranking.of``.
    """
    found = Ranking.of(scores.frame[measure])
    ranks = found.ranks
    lines = [
        {
            "pair": f"{first}, {second}",
            "ranks": f"{ranks[first]:.2f}, {ranks[second]:.2f}",
            "Wilcoxon's p, Holm": f"{found.wilcoxon.loc[first, second]:.2g}",
            "Nemenyi's p": f"{found.nemenyi.loc[first, second]:.2g}",
        }
        for first, second in combinations(ranks.index, 2)
    ]
    title = (
        f"{measure}, {scores.title}: mean ranks over {len(found.scores)} data sets (1: the highest); "
        f"Friedman's p {found.friedman:.2g}"
    )
    table = as_markdown(DataFrame(lines).set_index("pair"), "pair")
    return "\n\n".join([title, table, *found.disagreements])


def as_markdown(cells: DataFrame, index_name: str) -> str:
    named = cells.rename_axis(index_name).reset_index()
    return write_cells(named, "markdown", 1).rstrip("\n")


def comparable_groups(scores: ProtocolScores, measure: str) -> list[ProtocolScores]:
    """The scores in groups whose measure is of the same task, of three trainers and more."""
    if scores.may_compare(scores.trainers, measure):
        groups = [scores]
    else:
        unmarked = [name for name in scores.trainers if name not in scores.marked]
        groups = [
            scores.of(unmarked),
            scores.of(name for name in scores.trainers if name in scores.marked),
        ]
    return [group for group in groups if len(group.trainers) > 2]


def compare(args: argparse.Namespace) -> None:
    """Carry out the command: print the comparisons, and draw the figure.

    Raises:
        UserError: as ``read_scores`` and ``chosen``; no protocol has enough data sets; or the figure
            is somebody's.
    """
    if args.figure:
        check_output("--figure", args.figure, SVG_MARK)
    texts = []
    refused = ""
    for scores in choose(read_scores(args.sources, args.metric, args.trainers), args.trainers):
        try:
            among = differences_of(scores)
            texts += [pair(scores, other, among) for other in scores.trainers[1:]]
            for measure in scores.measures:
                texts += [ranking(group, measure) for group in comparable_groups(scores, measure)]
        except UserError as error:
            refused = f"{scores.title}: {error}"
            log.warning("left out: %s", refused)
            continue
        if args.figure and (drawn := comparable_groups(scores, scores.measures[-1])):
            measure = scores.measures[-1]
            picture = Ranking.of(drawn[0].frame[measure]).draw(f"{measure}, {scores.title}")
            write_text(args.figure, picture)
    if not texts:
        raise UserError(refused)
    sys.stdout.write("\n\n\n".join(texts) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "trainers", nargs="*", help="the first minus each other: CDC, 'IVLP vit_b16' … (all)"
    )
    parser.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        default=[str(PUBLISHED)],
        help="folders of finished runs, output/base2new, CSVs of results.table, and files of published "
        "numbers per data set (results/published.yaml)",
    )
    parser.add_argument("--metric", default="accuracy", help="key of the records' metrics")
    parser.add_argument(
        "--figure", help="SVG file for the critical-difference picture of three trainers and more"
    )
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(compare, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
