"""Describes a classifier's answer for the page, in words and numbers."""

from typing import TYPE_CHECKING, Any

from ..answers.rows import most_probable, votes_of
from ..explain import NOT_KNOWN, OTHER_CLASSES, explain, others_as_certain, verdict
from ..threshold import Threshold

if TYPE_CHECKING:
    from ..classifier import Answers
    from ..several.classifier import SetAnswers

SHOWN = 5  # classes of the answer
SHOWN_LABELS = 20  # of a picture that may have several
NONE = "none of the labels"
SHOWN_VOTES = 3  # classes of each vote


def percent(share: float) -> str:
    """A share in [0, 1] in words that never say that something is certain or impossible."""
    if share >= 0.9995:
        return "over 99.9 %"
    return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def describe(
    answers: "Answers", threshold: Threshold | None, truth: str | None = None
) -> dict[str, Any]:
    """Describes the first image: a dict for the page's template.

    Args:
        answers: a classifier's ``Answers``; threshold: the run's; None for other classes than its
            own.
        truth: the class of an example, where it is among those asked for.
    """
    names = answers.classnames
    uncertainty = float(answers.uncertainty[0])
    rejected, said, basis = None, NOT_KNOWN, OTHER_CLASSES
    if threshold is not None:
        rejected = threshold.rejects(uncertainty)
        said = verdict(threshold, uncertainty)
        basis = f"{others_as_certain(threshold.validation, uncertainty)} {explain(threshold)}"
    votes = votes_of(answers, 0, SHOWN_VOTES)
    return {
        "label": answers.labels[0],
        "is_right": truth == answers.labels[0],
        "doubtful": rejected,
        "verdict": said,
        "basis": basis,
        "note": answers.note,
        "truth": truth,
        "classes": most_probable(answers.probabilities[0], names, SHOWN),
        "votes": votes,
        "agreeing": sum(vote["top"][0]["class"] == answers.labels[0] for vote in votes),
        "vacuity": answers.vacuity,
        "conflict": answers.conflict,
    }


def describe_labels(answers: "SetAnswers", basis: str, truth: str | None = None) -> dict[str, Any]:
    """What the page says of the first image, which may have several labels; see ``describe``.

    basis: which labels are given, in a sentence.
    """
    probability = answers.probabilities[0]
    limits = answers.thresholds
    thresholds = (
        {} if limits is None else dict(zip(answers.classnames, limits.clip(max=1).tolist()))
    )
    labels = most_probable(probability, answers.classnames, SHOWN_LABELS)
    return {
        "label": ", ".join(answers.labels[0]) or NONE,
        "is_right": truth == (", ".join(sorted(answers.labels[0])) or NONE),
        "basis": basis,
        "note": answers.note,
        "truth": truth,
        "labels": [{**of, "threshold": thresholds.get(of["class"])} for of in labels],
    }
