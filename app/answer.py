"""What the page says of a classifier's answer, in words and numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from trainers.evaluation.doubts import NOT_KNOWN, OTHER_CLASSES, Judge, decimal

if TYPE_CHECKING:
    from trainers.classifier.prompted import Answers

SHOWN = 5  # classes of the answer
SHOWN_VOTES = 3  # classes of each template
VACUITY = "how much of the belief is left open for lack of evidence, from 0 (nothing) to 1 (all)."
CONFLICT = "how much of what the templates jointly believe lies on different classes, from 0 (nothing) to 1 (all)."


def percent(share: float) -> str:
    """A share in [0, 1] in words that never say that something is certain or impossible."""
    if share >= 0.9995:
        return "over 99.9 %"
    return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def most_probable(
    probabilities: numpy.ndarray, names: Sequence[str], number: int
) -> list[dict[str, Any]]:
    """The ``number`` most probable of K classes, probabilities (K,): dicts of ``name``, ``width`` (percent) and ``percent`` (in words)."""
    order = numpy.argsort(-probabilities, kind="stable")[:number]
    return [
        {
            "name": names[label],
            "width": round(100 * float(probabilities[label]), 2),
            "percent": percent(probabilities[label]),
        }
        for label in order
    ]


def describe(answers: "Answers", judge: Judge | None, truth: str | None = None) -> dict[str, Any]:
    """What the page says of the first image, a dict for its template.

    ``measures`` (name, value, meaning) is empty where the method learns no evidence, ``votes`` where it has no templates to fuse.

    Args:
        answers: a classifier's ``Answers``; judge: the run's; None for other classes than its own.
        truth: the class of an example, where it is among those asked for.
    """
    names, uncertainty = answers.classnames, float(answers.uncertainty[0])
    doubtful = None if judge is None else judge.doubtful(uncertainty)
    answer: dict[str, Any] = {
        "label": answers.labels[0],
        "probability": percent(answers.probabilities[0].max()),
        "doubtful": doubtful,
        "verdict": NOT_KNOWN if judge is None else judge.verdict(doubtful),
        "truth": truth,
        "basis": OTHER_CLASSES
        if judge is None
        else f"{judge.of_such(uncertainty)} {judge.rule()}".strip(),
        "classes": most_probable(answers.probabilities[0], names, SHOWN),
        "measures": [],
        "votes": [],
    }
    if answers.vacuity is not None and answers.conflict is not None:
        answer["measures"] = [
            ("Vacuity", decimal(answers.vacuity[0]), VACUITY),
            ("Conflict", decimal(answers.conflict[0]), CONFLICT),
        ]
    if answers.votes is not None:
        answer["votes"] = [most_probable(vote, names, SHOWN_VOTES) for vote in answers.votes[0]]
        answer["agreeing"] = sum(vote[0]["name"] == answers.labels[0] for vote in answer["votes"])
    return answer
