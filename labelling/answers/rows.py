"""Answers as rows, one per image: for JSON, or in columns for a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy

if TYPE_CHECKING:
    from ..classifier import Answers

Top = TypedDict("Top", {"class": str, "probability": float})  # one of the most probable classes


class Vote(TypedDict):
    """A vote on an image.

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


def rows_of(answers: "Answers", doubtful: Sequence[bool | None], topk: int) -> list[Row]:
    """The answers to N images, without the votes.

    Args:
        doubtful: N values, whether an answer is too uncertain for a label; None where nothing says it.
        topk: number of most probable classes.
    """
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
        table.append(row)
    return table


def rows_with_votes(answers: "Answers", doubtful: Sequence[bool | None], topk: int) -> list[Row]:
    """See ``rows_of``; each vote has its ``topk`` most probable classes, too."""
    table = rows_of(answers, doubtful, topk)
    for number, row in enumerate(table):
        if votes := votes_of(answers, number, topk):
            row["votes"] = votes
    return table


def columns_of(
    answers: "Answers", doubtful: Sequence[bool | None], topk: int
) -> list[dict[str, object]]:
    """See ``rows_of``; each row in columns, a value for each field, and two for each place among the
    most probable classes."""
    return [in_columns(row) for row in rows_of(answers, doubtful, topk)]


def in_columns(row: Row) -> dict[str, object]:
    """See ``columns_of``."""
    columns = {name: value for name, value in row.items() if name != "top"}
    for place, entry in enumerate(row["top"], 1):
        columns |= {f"{name}_{place}": value for name, value in entry.items()}
    return columns
