"""Answers as rows, one per image: for JSON, or in columns for a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy

from ..readers.rows import BETWEEN

if TYPE_CHECKING:
    from ..answer import Answers

# one of the most probable classes; of a multi-label run with the least probability of a label that is
# given, 1 where it never is
Top = TypedDict("Top", {"class": str, "probability": float, "threshold": float}, total=False)


class RankedClass(TypedDict):
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

    label: None for a doubtful one; of a multi-label run ``dog;ball``.
    doubtful: None where nothing says what that would be.
    unfamiliar: not there where nothing says how far a picture is from the run's (``Answers``).
    labels: of a multi-label run those of ``label``.
    vacuity, conflict: not there where the method has none.
    asked_with: of an image that is to be labelled next: 1 if it was chosen, else the probability of being drawn
        at random.
    top: the most probable classes.
    votes: not there where none are fused.
    """

    image: str | None
    label: str | None
    doubtful: bool | None
    uncertainty: float
    unfamiliar: float
    labels: list[str]
    vacuity: float
    conflict: float
    asked_with: float
    top: list[Top]
    votes: list[RankedClass]


def most_probable(probabilities: numpy.ndarray, names: Sequence[str], number: int) -> list[Top]:
    """The ``number`` most probable of K classes, probabilities (K,)."""
    order = numpy.argsort(-probabilities, kind="stable")[:number]
    return [{"class": names[label], "probability": float(probabilities[label])} for label in order]


def top_of(answers: "Answers", image: int, number: int) -> list[Top]:
    """Return the ``number`` most probable classes of an image, of a multi-label run with their thresholds."""
    top = most_probable(answers.probabilities[image], answers.classnames, number)
    if answers.thresholds is not None:
        known = dict(zip(answers.classnames, answers.thresholds.clip(max=1.0).tolist()))
        for entry in top:
            entry["threshold"] = known[entry["class"]]
    return top


def votes_of(answers: "Answers", image: int, number: int) -> list[RankedClass]:
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


def rows_of(answers: "Answers", topk: int) -> list[Row]:
    """Return the answers to N images, without the votes.

    topk: number of most probable classes.
    """
    table = []
    for number, image in enumerate(answers.images):
        doubtful = answers.doubtful[number]
        row: Row = {
            "image": image,
            "label": None if doubtful else label_of(answers, number),
            "doubtful": doubtful,
            "uncertainty": float(answers.uncertainty[number]),
        }
        if answers.unfamiliar is not None:
            row["unfamiliar"] = float(answers.unfamiliar[number])
        if answers.thresholds is not None:
            row["labels"] = answers.labels[number]
        if answers.vacuity is not None:
            row["vacuity"] = float(answers.vacuity[number])
        if answers.conflict is not None:
            row["conflict"] = float(answers.conflict[number])
        row["top"] = top_of(answers, number, topk)
        table.append(row)
    return table


def label_of(answers: "Answers", number: int) -> str:
    """Return the label of an image as a cell has it."""
    label: str | list[str] = answers.labels[number]
    return label if isinstance(label, str) else BETWEEN.join(label)


def rows_with_votes(answers: "Answers", topk: int) -> list[Row]:
    """Return the answers as ``rows_of`` does; each vote has its ``topk`` most probable classes, too."""
    table = rows_of(answers, topk)
    for number, row in enumerate(table):
        if votes := votes_of(answers, number, topk):
            row["votes"] = votes
    return table


def columns_of(answers: "Answers", topk: int, probabilities: bool) -> list[dict[str, object]]:
    """Return the answers as ``rows_of`` does, each in columns: a value for each field, and two for each place
    among the most probable classes or, with ``probabilities``, ``probability_<class>`` for each class."""
    table = []
    for number, row in enumerate(rows_of(answers, topk)):
        columns = {name: value for name, value in row.items() if name not in ("top", "labels")}
        if probabilities:
            own = zip(answers.classnames, answers.probabilities[number].tolist())
            columns |= {f"probability_{name}": value for name, value in own}
        else:
            for place, entry in enumerate(row["top"], 1):
                columns[f"class_{place}"] = entry["class"]
                columns[f"probability_{place}"] = entry["probability"]
        table.append(columns)
    return table
