"""Explains a rejection threshold in words, for predict.py and the page of demo_app.py."""

from trainers.common.console import counted
from trainers.evaluation.figures import decimal, wilson

from .threshold import (
    CONFIDENCE,
    ROUNDING,
    Point,
    Threshold,
    Validation,
    best_threshold,
    images_needed,
    possible,
    risk_of,
)

NOT_KNOWN = "How far to trust this answer is not known."
OTHER_CLASSES = "The rejection threshold was set on the run's own classes, not on these."
CAVEATS = (
    "In simulations on pictures without copies at most 5 % of the promises that were given were broken. "
    "More are broken where pictures belong together and none of them is found, such as bursts of fine "
    "textures and few frames of a pan: name their groups (docs/uncertainty.md)."
)
NO_VALIDATION = "No rejection threshold can be set: the run has no answers on validation images."


def explain(threshold: Threshold) -> str:
    """Says what is rejected, and why."""
    validation = threshold.validation
    if not validation.points:
        return validation.reason or NO_VALIDATION
    sentences = limit(threshold), not_counted(validation), alternatives(threshold)
    return " ".join(filter(None, sentences))


def offered(validation: Validation) -> str:
    """What ``--max-error`` can promise of a run's labels, at which shares; or why it can't."""
    shares = possible(validation.points) if validation.points else {}
    if not shares:
        best = best_threshold(validation) if validation.points else Threshold(validation)
        return explain(best)
    every = validation.points[-1].answered
    given = [
        f"{errors(share)}, giving {point.answered} of {every} a label"
        for share, point in shares.items()
    ]
    return (
        f"What --max-error can promise with {certainty(CONFIDENCE)}: {'; '.join(given)}. {CAVEATS}"
    )


def verdict(threshold: Threshold, uncertainty: float) -> str:
    """The verdict on one answer."""
    if threshold.share is None:
        return NOT_KNOWN
    if threshold.point is None:
        return f"The model is not sure: no limit promises {promise(threshold.share, threshold.confidence)}."
    where = "The model is not sure: beyond" if threshold.rejects(uncertainty) else "Within"
    return f"{where} the limit that promises {promise(threshold.share, threshold.confidence)}."


def others_as_certain(validation: Validation, uncertainty: float) -> str:
    """How often the run was wrong where it was at least as certain as about one answer; "" where it
    has no answers to validation images."""
    if not validation.points:
        return ""
    most = uncertainty * (1 + ROUNDING)
    surer = [point for point in validation.points if point.uncertainty <= most]
    this = f"This answer's uncertainty is {decimal(uncertainty)}"
    if not surer:
        return f"{this}, lower than that of any {noun(validation)}."
    return f"{this}; wrong among the {noun(validation)}s with at most that: {mistakes(surer[-1])}."


def limit(threshold: Threshold) -> str:
    """The limit, or why there is none; threshold: of a validation with points."""
    validation = threshold.validation
    every = validation.points[-1]
    images = f"the run's {counted(every.answered, noun(validation))}"
    if threshold.share is None:
        return f"No limit is set. Wrong among {images}: {mistakes(every)}."
    promised = promise(threshold.share, threshold.confidence)
    point = threshold.point
    if point is not None:
        least = ", the smallest share that can be promised here" if threshold.is_best else ""
        return (
            f"The limit that promises {promised}{least}, on pictures like {images}, is an "
            f"uncertainty of {decimal(point.limit)}. Within it: {point.answered} of these, "
            f"{point.wrong} of them wrong. {CAVEATS}"
        )
    needed = images_needed(threshold.share, risk_of(threshold.share, threshold.confidence))
    if needed > every.answered:
        return (
            f"No limit can promise {promised}: too few pictures. That takes at least "
            f"{counted(needed, noun(validation))} without a mistake, and the run has {every.answered}."
        )
    enough = [point for point in validation.points if point.answered >= needed]
    if few := [point for point in enough if point.wrong < threshold.share * point.answered]:
        return (
            f"No limit promises {promised}: too few pictures. Wrong among the {few[-1].answered} most certain of {images}: "
            f"{mistakes(few[-1])}; more pictures are needed to show that so few are wrong."
        )
    return (
        f"No limit promises {promised}: too many mistakes. Wrong among {images}: {mistakes(every)}."
    )


def not_counted(validation: Validation) -> str:
    """How many images are not counted, and why; "" where all are."""
    if not validation.uncounted:
        return ""
    images = counted(validation.uncounted, noun(validation))
    return f"Not counted: {images} that look like training images or like one of these."


def alternatives(threshold: Threshold) -> str:
    """The promises that can be made instead; "" for none."""
    shares = [
        f"{errors(share)}, answering {point.answered}"
        for share, point in threshold.alternatives().items()
    ]
    if not shares:
        return ""
    return f"What can be promised here with {certainty(threshold.confidence)}: {'; '.join(shares)}."


def promise(share: float, confidence: float) -> str:
    """The promise of a threshold for a share of errors."""
    return f"{errors(share)} with {certainty(confidence)}"


def errors(share: float) -> str:
    return f"at most {100 * share:g} % errors"


def certainty(confidence: float) -> str:
    return f"{100 * confidence:g} % confidence"


def noun(validation: Validation) -> str:
    """The word for an image of a validation."""
    return "cross-validated image" if validation.is_folds else "validation image"


def mistakes(point: Point) -> str:
    """How many of the accepted answers are wrong, as numbers and as a share with its interval."""
    low, high = wilson(point.wrong, point.answered)
    percents = f"{100 * point.wrong / point.answered:.1f} %".replace(".0 %", " %")
    interval = f"{100 * low:.0f} to {100 * high:.0f} %"
    return f"{point.wrong} of {point.answered} ({percents}; 95 % interval {interval})"
