"""Describes a classifier's answer for the page, in words and numbers."""

from typing import TYPE_CHECKING, Any

from ..answers.rows import top_of, votes_of
from ..rules import (
    NOT_KNOWN,
    OTHER_CLASSES,
    LabelRule,
    explain,
    others_as_certain,
    says_in_full,
    verdict,
)
from ..threshold import Threshold

if TYPE_CHECKING:
    from trainers.common.record_file import Record

    from ..answer import Answers

SHOWN_CLASSES = 5  # classes of the answer
SHOWN_LABELS = 20  # of a picture that may have several
UNLIKE = "No label: the picture is unlike the run's."
NONE_OF_THE_LABELS = "none of the labels"
SHOWN_VOTES = 3  # classes of each vote


def percent(share: float) -> str:
    """A share in [0, 1] in words that never say that something is certain or impossible."""
    if share >= 0.9995:
        return "over 99.9 %"
    return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def describe(
    answers: "Answers", rule: LabelRule | None, record: "Record", truth: str | None = None
) -> dict[str, Any]:
    """Describe the first image: a dict for the page's template.

    Args:
        answers: a classifier's ``Answers``; rule: which of them are labels; record: the run's.
        truth: the class of an example, where it is among those asked for, or its labels.
    """
    if answers.thresholds is not None:
        return describe_labels(answers, says_in_full(rule, record), truth)
    uncertainty = float(answers.uncertainty[0])
    said = NOT_KNOWN
    basis = OTHER_CLASSES
    if isinstance(rule, Threshold):
        said = verdict(rule, uncertainty)
        if answers.doubtful[0] and not rule.rejects(uncertainty):
            said = UNLIKE
        basis = f"{others_as_certain(rule.validation, uncertainty)} {explain(rule)}"
    votes = votes_of(answers, 0, SHOWN_VOTES)
    return {
        "label": answers.labels[0],
        "is_right": truth == answers.labels[0],
        "doubtful": answers.doubtful[0],
        "verdict": said,
        "basis": basis,
        "note": answers.note,
        "truth": truth,
        "classes": top_of(answers, 0, SHOWN_CLASSES),
        "votes": votes,
        "agreeing": sum(vote["top"][0]["class"] == answers.labels[0] for vote in votes),
        "vacuity": answers.vacuity,
        "conflict": answers.conflict,
        "familiarity": familiarity(answers),
    }


def familiarity(answers: "Answers") -> str:
    """Say how far the first image is from the run's; "" where nothing says it."""
    if answers.unfamiliar is None:
        return ""
    share = percent(float(answers.unfamiliar[0]))
    return (
        f"Of the run's own pictures {share} are as far from the others as this one is, or farther."
    )


def describe_labels(answers: "Answers", basis: str, truth: str | None) -> dict[str, Any]:
    """Describe the first image of a multi-label run; basis: which labels are given, in a sentence."""
    return {
        "label": ", ".join(answers.labels[0]) or NONE_OF_THE_LABELS,
        "is_right": truth == (", ".join(sorted(answers.labels[0])) or NONE_OF_THE_LABELS),
        "verdict": UNLIKE if answers.doubtful[0] else "",
        "doubtful": answers.doubtful[0],
        "familiarity": familiarity(answers),
        "basis": basis and f"{basis}.",
        "note": answers.note,
        "truth": truth,
        "labels": top_of(answers, 0, SHOWN_LABELS),
    }
