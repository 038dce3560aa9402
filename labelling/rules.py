"""Rules for the answers of a run that are given as labels, by ``--max-error``, ``--max-missed`` and ``--min-certainty``,
and their promises in words. Without torch: impossible promises are refused at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError, raise_machines
from trainers.common.record_file import (
    Record,
    finished_record,
    is_multi_label,
    read_answers,
)
from trainers.evaluation.figures import decimal, wilson

from .limits import NEVER, LabelLimits, Worth, possible_limits, worth_of
from .threshold import (
    BEST_PROMISE,
    CONFIDENCE,
    OFFERED,
    ROUNDING,
    Point,
    Threshold,
    Validation,
    best_threshold,
    images_needed,
    possible,
    risk_of,
    split_of,
    threshold_of,
    unreadable,
)

WHAT = {
    "--max-error": "of the labels that are given are wrong",
    "--max-missed": "of the labels that pictures have are missed",
}
MANY = 1.5  # times as many labels as the best F1 gives, from which on the cost of a promise is said
BY_F1 = "Each label is given from the probability on that is best for its F1; nothing is promised"


@dataclass(frozen=True)
class Wanted:
    """The user's demands on the given labels.

    Attributes:
        max_error: share of the given labels that may be wrong, or ``BEST_PROMISE``; None: no promise.
        max_missed: of a multi-label run, share of the pictures' labels that may be missed; likewise.
        min_certainty: least probability of a label that is given; None: none.
        confidence: of a promise, in (0, 1).
        label_unfamiliar: whether pictures unlike the run's get a label under ``max_error``, too.
    """

    max_error: float | str | None = None
    max_missed: float | None = None
    min_certainty: float | None = None
    confidence: float = CONFIDENCE
    label_unfamiliar: bool = False

    @property
    def withholds(self) -> bool:
        """Whether pictures unlike the run's get no label."""
        return self.max_error is not None and not self.label_unfamiliar

    def check(self) -> None:
        """Refuse shares that are none, and two wishes at a time.

        Raises:
            UserError: there are such.
        """
        shares = {
            "--max-error": self.max_error,
            "--max-missed": self.max_missed,
            "--confidence": self.confidence,
        }
        for flag, share in shares.items():
            if isinstance(share, int | float) and not 0 < share < 1:
                raise UserError(f"{flag} is {share}, it is a share: above 0 and below 1")
        certainty = self.min_certainty
        if certainty is not None and not 0 <= certainty <= 1:
            raise UserError(f"--min-certainty is {certainty}, it must be between 0 and 1")
        given = [self.max_error, self.max_missed, self.min_certainty]
        if sum(value is not None for value in given) > 1:
            raise UserError(
                "--max-error, --max-missed and --min-certainty each say which labels are given: give one of them"
            )


@dataclass(frozen=True)
class LeastCertainty:
    """No label is given where the largest probability is below a number; nothing is promised."""

    certainty: float

    def rejects(self, uncertainty: float) -> bool:
        limit = float(numpy.float32(1 - self.certainty))  # as precise as uncertainties are
        return uncertainty > limit

    @property
    def says(self) -> str:
        return ""


LabelRule = Threshold | LeastCertainty | LabelLimits
Promises = Mapping[str, Mapping[float, LabelLimits]]  # option → share → the limits that keep it


def is_promise(rule: LabelRule | None) -> bool:
    """Return whether a rule holds for all of a run's classes together and for no others."""
    return not isinstance(rule, LeastCertainty) and not (
        isinstance(rule, LabelLimits) and rule.is_any
    )


def rule_of(folder: str, wanted: Wanted, classes: Sequence[str] | None = None) -> LabelRule | None:
    """Return which labels are given; None where the method itself decides, and nothing is promised.

    Args:
        folder: of a run; "": there is none, and the names alone answer.
        classes: that are asked for; None: the run's own.

    Raises:
        UserError: a share is none, or what is asked for can't be promised.
    """
    wanted.check()
    record = finished_record(folder) if folder else {}
    promises = wanted.max_error is not None or wanted.max_missed is not None
    # with fewer or other classes the answers differ, and so do their uncertainties
    is_own = bool(folder) and (classes is None or sorted(classes) == sorted(record["classnames"]))
    if promises and not is_own:
        raise UserError(
            "--max-error and --max-missed are measured on all of the run's own classes, they say nothing of other --classes, of "
            "some, of --prompts or without a --run: give --min-certainty"
        )
    if wanted.min_certainty is not None:
        return least_certainty(record, wanted.min_certainty)
    if is_multi_label(record):
        asked = {"--max-error": wanted.max_error, "--max-missed": wanted.max_missed}
        for option, share in asked.items():
            if share is not None:
                return promised_rule(folder, record, option, share, wanted.confidence)
        return None
    if wanted.max_missed is not None:
        raise UserError(
            "--max-missed is of multi-label runs, this one gives each picture one label: leave it out"
        )
    return threshold_of(folder, wanted.max_error, wanted.confidence) if is_own else None


def least_certainty(record: Record, certainty: float) -> LabelRule:
    """Return the rule of a least probability of the labels that are given."""
    if not is_multi_label(record):
        return LeastCertainty(certainty)
    says = f"Labels of a probability of at least {certainty:g} are given; nothing is promised"
    return LabelLimits(numpy.array(certainty), len(record["classnames"]), says, is_any=True)


def promised_rule(
    folder: str, record: Record, option: str, share: float | str, confidence: float
) -> LabelLimits:
    """Return the rule that keeps a promise.

    Raises:
        UserError: it can't be promised.
    """
    if "found_in_part" in record:
        raise UserError(
            f"{folder} promises nothing, since copies were found only in part: name what belongs together, by a column group "
            "or by --group-by, and train again, or leave the promise out"
        )
    if "is_chosen" in record:
        raise UserError(
            f"{folder} promises nothing, since its pictures are more, or less, certain than those that nobody has looked at: "
            "label some that are drawn at random (predict.py --label-next N --at-random) and train again, or leave the "
            "promise out"
        )
    held = held_sets(folder, record)
    answers = held.probability, held.truth, held.group
    groups = len(numpy.unique(held.group))
    shares = OFFERED if share == BEST_PROMISE else [float(share)]
    limits = possible_limits(option, *answers, confidence, shares)
    if not limits:
        raise UserError(
            f"{folder} can't promise that at most {100 * max(shares):g} % {WHAT[option]}: {groups} pictures or groups of them are too few, or too often "
            "wrong: give a larger share, add pictures, or leave the promise out"
        )
    kept_share = min(limits)
    rule = limits[kept_share]
    what = f"At most {100 * kept_share:g} % {WHAT[option]}"
    sentence = f"{what}, with {100 * confidence:g} % confidence, on pictures like the run's"
    further = []
    left_out = [
        name for name, limit in zip(record["classnames"], rule.thresholds) if limit == NEVER
    ]
    if left_out:
        further.append(f"Never given, since it can't be promised of them: {first_few(left_out)}")
    promised = worth_of(rule.given(held.probability), held.truth)
    further += compared(promised, worth_of(held.given, held.truth))
    return LabelLimits(rule.thresholds, rule.most, sentence, ". ".join(further))


def compared(promised: Worth, best: Worth) -> Iterator[str]:
    """Yield what a promise gives beside the labels that are best for F1, in sentences; the last one where it
    gives more than half as many again."""
    yield (
        f"Labels a picture: {best.given:.1f} without the promise, {promised.given:.1f} with it; of the labels that pictures "
        f"have {100 * best.found:.0f} % are given without, {100 * promised.found:.0f} % with it"
    )
    if promised.given > MANY * best.given:
        yield (
            f"That costs: {promised.given:.1f} labels a picture, about {100 * promised.wrong:.0f} in 100 of them wrong "
            f"(without the promise {100 * best.wrong:.0f} in 100)"
        )


@dataclass(frozen=True)
class HeldSets:
    """A multi-label run's answers to N pictures that it was not trained on.

    Attributes:
        probability, truth, given: (N, K), of K labels, which the pictures have, and which the run's own
            thresholds give; group: (N,), numbers.
    """

    probability: numpy.ndarray
    truth: numpy.ndarray
    given: numpy.ndarray
    group: numpy.ndarray


def held_sets(folder: str, record: Record) -> HeldSets:
    """Return a multi-label run's answers to pictures that it was not trained on.

    Raises:
        UserError: there are none that can be read.
    """
    # here, since it takes seconds: an impossible promise is refused at once
    from trainers.evaluation.multi_label import given_in

    try:
        kept = read_answers(folder, split_of(record), record)
        is_new = kept["is_new"]
        return HeldSets(
            kept["probability"][is_new],
            kept["truth"][is_new],
            given_in(kept)[is_new],
            kept["group"][is_new],
        )
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, folder)
        raise unreadable(f"the answers in {folder}", error) from error


def says(rule: LabelRule | None, record: Record) -> str:
    """Return a rule's promise in one sentence, and the other promises where it can't be kept; "" for none."""
    if isinstance(rule, Threshold):
        return in_short(rule)
    if rule is None:
        return BY_F1 if is_multi_label(record) and record["parameters"]["learnable"] else ""
    return rule.says


def says_in_full(rule: LabelRule | None, record: Record) -> str:
    """Return a rule's promise with its cost and limits, in sentences; "" for none."""
    if isinstance(rule, Threshold):
        return explain(rule)
    if isinstance(rule, LabelLimits) and rule.further:
        return f"{rule.says}. {rule.further}"
    return says(rule, record)


def promises_of(held: HeldSets) -> Promises:
    """Return the promises that --max-error and --max-missed can keep on answers, with their limits."""
    answers = held.probability, held.truth, held.group
    return {option: possible_limits(option, *answers, CONFIDENCE) for option in WHAT}


def offered_labels(record: Record, promises: Promises) -> str:
    """Return what --max-error and --max-missed can promise of a multi-label run's labels, in words.

    promises: of its answers; not looked at where these do not stand for others.
    """
    if "found_in_part" in record:
        return "Nothing can be promised, since copies were found only in part: name what belongs together, by a column group or by --group-by"
    if "is_chosen" in record:
        return (
            "Nothing can be promised, since the pictures are more, or less, certain than those that nobody has looked at: "
            "label some that are drawn at random"
        )
    sentences = []
    for option, what in WHAT.items():
        share = min(promises[option], default=None)
        if share is None:
            sentences.append(f"{option} can't be promised yet: add pictures")
        else:
            sentences.append(f"{option} {share:g}: at most {100 * share:g} % {what}")
    return f"What can be promised with 95 % confidence: {'; '.join(sentences)}"


# ---- in words: a threshold of single-label runs ----

NOT_KNOWN = "How far to trust this answer is not known."
OTHER_CLASSES = "The rejection threshold was set on the run's own classes, not on these."
CAVEATS = (
    "In simulations on pictures without copies at most 5 % of the promises that were given were broken. "
    "More are broken where pictures belong together and none of them is found, such as bursts of fine "
    "textures and few frames of a pan: name their groups (docs/uncertainty.md)."
)
NO_VALIDATION = "No rejection threshold can be set: the run has no answers on validation images."


def explain(threshold: Threshold) -> str:
    """Describe the rejected answers, and the reason."""
    validation = threshold.validation
    if not validation.points:
        return validation.reason or NO_VALIDATION
    sentences = (
        limit(threshold),
        in_groups(validation),
        not_counted(validation),
        alternatives(threshold),
    )
    return " ".join(filter(None, sentences))


def in_short(threshold: Threshold) -> str:
    """Describe the rejected answers in one sentence; where nothing is promised, say why and which promises can
    be kept."""
    validation = threshold.validation
    if threshold.point is None or threshold.share is None:
        return explain(threshold)
    every = counted(validation.points[-1].answered, noun(validation))
    return (
        f"The limit that promises {promise(threshold.share, threshold.confidence)}, on pictures like the run's {every}, "
        f"gives {threshold.point.answered} of these a label."
    )


def offered(validation: Validation) -> str:
    """Say which promises ``--max-error`` can make for a run's labels; or why it can't."""
    shares = possible(validation.held) if validation.held is not None else {}
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
    """Say how often the run was wrong where it was at least as certain as about one answer; "" where it
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
    groups = validation.held.groups if validation.held is not None else 0
    if needed > groups:
        unit = noun(validation) if groups == every.answered else "group"
        return (
            f"No limit can promise {promised}: too few pictures. That takes at least "
            f"{counted(needed, unit)} without a mistake, and the run has {groups}."
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


def in_groups(validation: Validation) -> str:
    """Say how many groups the images have; "" where each stands alone."""
    held = validation.held
    if held is None or held.groups == len(held.wrong):
        return ""
    return (
        f"These {len(held.wrong)} are of {counted(held.groups, 'group')} of images that belong together: each counts "
        "once, as the mean of its images, and the promise is of images of other groups."
    )


def not_counted(validation: Validation) -> str:
    """Say how many images are not counted, and why; "" where all are."""
    if not validation.uncounted:
        return ""
    images = counted(validation.uncounted, noun(validation))
    return f"Not counted: {images} of groups that were trained on, too."


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
    """Say how many of the accepted answers are wrong, as numbers and as a share with its interval."""
    low, high = wilson(point.wrong, point.answered)
    percents = f"{100 * point.wrong / point.answered:.1f} %".replace(".0 %", " %")
    interval = f"{100 * low:.0f} to {100 * high:.0f} %"
    return f"{point.wrong} of {point.answered} ({percents}; 95 % interval {interval})"
