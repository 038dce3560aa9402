"""Answers as rows, one per image, and rows as a table, JSON or text."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from textwrap import indent
from typing import TYPE_CHECKING, TypedDict

import numpy

from trainers.common.console import csv_lines, printable
from trainers.evaluation.figures import decimal

if TYPE_CHECKING:
    from ..classifier import Answers

Top = TypedDict("Top", {"class": str, "probability": float})  # one of the most probable classes


class Vote(TypedDict):
    """What a voter says of an image.

    voter: its name; weight: its share in the answer.
    vacuity: None where it has none.
    top: its most probable classes.
    """

    voter: str
    weight: float
    vacuity: float | None
    top: list[Top]


class Row(TypedDict, total=False):
    """The answer to an image.

    label: None for a doubtful one.
    doubtful: None where nothing says what that would be.
    vacuity, conflict: not there where the method has none.
    top: the most probable classes.
    votes: not there where none are fused.
    """

    image: str | None
    label: str | None
    doubtful: bool | None
    uncertainty: float
    vacuity: float
    conflict: float
    top: list[Top]
    votes: list[Vote]


def most_probable(probabilities: numpy.ndarray, names: Sequence[str], number: int) -> list[Top]:
    """The ``number`` most probable of K classes, probabilities (K,)."""
    order = numpy.argsort(-probabilities, kind="stable")[:number]
    return [{"class": names[label], "probability": float(probabilities[label])} for label in order]


def votes_of(answers: "Answers", image: int, number: int) -> list[Vote]:
    """The votes on an image, each with its ``number`` most probable classes; none where none are
    fused."""
    if answers.votes is None or answers.vote_weights is None:
        return []
    vacuities: Sequence[float | None] = [None] * len(answers.voters)
    if answers.vote_vacuity is not None:
        vacuities = answers.vote_vacuity[image].tolist()
    parts = zip(answers.voters, answers.vote_weights.tolist(), vacuities, answers.votes[image])
    return [
        {
            "voter": voter,
            "weight": weight,
            "vacuity": vacuity,
            "top": most_probable(probabilities, answers.classnames, number),
        }
        for voter, weight, vacuity, probabilities in parts
    ]


def rows_of(
    answers: "Answers", doubtful: Sequence[bool | None], topk: int, with_votes: bool = True
) -> list[Row]:
    """One per image; ``topk``: number of most probable classes."""
    table = []
    for number, image in enumerate(answers.images):
        row: Row = {
            "image": image,
            "label": None if doubtful[number] else answers.labels[number],
            "doubtful": doubtful[number],
            "uncertainty": float(answers.uncertainty[number]),
        }
        if answers.vacuity is not None:
            row["vacuity"] = float(answers.vacuity[number])
        if answers.conflict is not None:
            row["conflict"] = float(answers.conflict[number])
        row["top"] = most_probable(answers.probabilities[number], answers.classnames, topk)
        if with_votes and (votes := votes_of(answers, number, topk)):
            row["votes"] = votes
        table.append(row)
    return table


def in_columns(row: Row) -> dict[str, object]:
    """A row of a table: a column for each field but the votes, and two for each place among the top
    classes."""
    columns = {name: value for name, value in row.items() if name not in ("top", "votes")}
    for place, entry in enumerate(row["top"], 1):
        columns |= {f"{name}_{place}": value for name, value in entry.items()}
    return columns


def as_csv(rows: Sequence[Row]) -> str:
    """The rows ``in_columns``; see ``csv_lines``."""
    return "".join(table_lines(map(in_columns, rows)))


def table_lines(table: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The lines of a CSV file of at least one row, ``in_columns``; see ``csv_lines``."""
    rows = iter(table)
    first = next(rows)
    return csv_lines(first, (row.values() for row in chain([first], rows)))


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a JSON list of at least one row, in ASCII, which every output takes."""
    return json_list(indent(json.dumps(row, indent=2, allow_nan=False), "  ") for row in rows)


def json_list(items: Iterable[str]) -> Iterator[str]:
    """The lines of a JSON list of at least one item, each of which is JSON already."""
    before = "[\n"
    for item in items:
        yield before + item
        before = ",\n"
    yield "\n]\n"


def text_line(row: Row) -> str:
    """A line for an image, with tabs in between: image, label or ``?``, the top classes, the
    uncertainty."""
    verdicts = {True: ", not sure", False: ", within the limit", None: ""}
    top = ", ".join(f"{of['class']} {100 * of['probability']:.1f} %" for of in row["top"])
    uncertainty = f"uncertainty {decimal(row['uncertainty'])}{verdicts[row['doubtful']]}"
    cells = row["image"] or "", row["label"] or "?", top, uncertainty
    return "\t".join(map(printable, cells)) + "\n"
