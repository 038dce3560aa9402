"""What the page says of a classifier's answer, in words and numbers."""
from collections.abc import Sequence
from typing import Any

import numpy

from trainers.classifier import Answers

SHOWN = 5  # classes of the answer
SHOWN_VOTES = 3  # classes of each template
VACUITY = "how much of the belief is left open for lack of evidence, from 0 (nothing) to 1 (all)."
CONFLICT = "how much of what the templates jointly believe lies on different classes, from 0 (nothing) to 1 (all)."


def percent(share: float) -> str:
    """A share in [0, 1] in words that never say that something is certain or impossible."""
    if share >= 0.9995:
        return "over 99.9 %"
    return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def decimal(value: float) -> str:
    """A mass in [0, 1] with two significant digits; vacuities span many orders of magnitude."""
    return "less than 0.000001" if value < 1e-6 else numpy.format_float_positional(value, precision=2, fractional=False, trim="-")


def most_probable(probabilities: numpy.ndarray, names: Sequence[str], number: int) -> list[dict[str, Any]]:
    """The ``number`` most probable of K classes, probabilities (K,): dicts of ``name``, ``width`` (percent) and ``percent`` (in words)."""
    order = numpy.argsort(-probabilities, kind="stable")[:number]
    return [{"name": names[label], "width": round(100 * float(probabilities[label]), 2), "percent": percent(probabilities[label])}
            for label in order]


def verdict(answers: Answers, limit: float | None, max_error: float) -> tuple[bool, str, str]:
    """Whether the model doubts its answer to the first image.

    Args:
        answers: a classifier's ``Answers``.
        limit: the uncertainty above which it does, measured on validation images; None where there is none: then it does where, by its
            own account, the answer is more likely wrong than right.
        max_error: the share of wrong answers that the limit was chosen for.

    Returns:
        bool, the verdict in one sentence, and what it rests on in another.
    """
    probability, uncertainty = float(answers.probabilities[0].max()), float(answers.uncertainty[0])
    promise = f"at most {100 * max_error:g} % of the answers to the run's validation images were wrong."
    if limit is None:
        doubtful = probability < 0.5
        reason = "by its own account this answer is more likely wrong than right"
        basis = f"Its probability of {percent(probability)} is {'below' if doubtful else 'not below'} 50 %."
    elif answers.vacuity is None:
        doubtful = uncertainty > limit
        reason = "no class stands out clearly enough"
        side = "below" if doubtful else "not below"
        basis = f"Its probability of {percent(probability)} is {side} {percent(1 - limit)}; from there on {promise}"
    else:
        doubtful = uncertainty > limit
        reason = "it has found too little evidence"
        basis = f"Its vacuity of {decimal(uncertainty)} is {'above' if doubtful else 'not above'} {decimal(limit)}; up to there {promise}"
    return doubtful, f"The model is not sure: {reason}." if doubtful else "The model is sure enough.", basis


def describe(answers: Answers, limit: float | None, max_error: float) -> dict[str, Any]:
    """What the page says of the first image, a dict for its template; for the arguments see ``verdict``.

    ``measures`` (name, value, meaning) is empty where the method learns no evidence, ``votes`` where it has no templates to fuse.
    """
    names = answers.classnames
    doubtful, sentence, basis = verdict(answers, limit, max_error)
    found: dict[str, Any] = {
        "label": answers.labels[0], "probability": percent(answers.probabilities[0].max()), "doubtful": doubtful, "verdict": sentence,
        "basis": basis, "classes": most_probable(answers.probabilities[0], names, SHOWN), "measures": [], "votes": []}
    if answers.vacuity is not None and answers.conflict is not None:
        found["measures"] = [("Vacuity", decimal(answers.vacuity[0]), VACUITY), ("Conflict", decimal(answers.conflict[0]), CONFLICT)]
    if answers.votes is not None:
        found["votes"] = [most_probable(vote, names, SHOWN_VOTES) for vote in answers.votes[0]]
        found["agreeing"] = sum(vote[0]["name"] == answers.labels[0] for vote in found["votes"])
    return found
