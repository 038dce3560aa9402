"""Whether an answer is unsure: the one rule, and the one wording, of predict.py, the report and the
page of demo_app.py.

The rule rests on the run's answers to its validation images. It is a promise: with a confidence of
95 %, at most a share ``max_error`` of the answers up to the limit is wrong, on pictures like those.
Of the validation images only those count that look like no training image, and one of several that
look alike: the bound is of images that are independent. A more uncertain answer is unsure. Without a
share, or for classes other than the run's own, in whatever order, nothing is promised.

References:
    - Angelopoulos et al. (2021), "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
      Control", §2: fixed-sequence testing, from one start or several.
    - Geifman and El-Yaniv (2017), "Selective Classification for Deep Neural Networks": the exact
      binomial bound on the error of the answers given.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from trainers.common.console import counted
from trainers.common.errors import UserError, raise_machines
from trainers.common.record_file import FILE_NAME as RECORD
from trainers.common.record_file import Record, answers_file, read_answers, read_record
from trainers.evaluation.figures import decimal, wilson

NOT_KNOWN = "How far to trust this answer is not known."
OTHER_CLASSES = "The rejection threshold was set on the run's own classes, not on these."
NO_VALIDATION = "No rejection threshold can be set: the run has no answers on validation images."
NOTHING_NEW = (
    "No rejection threshold can be set: a class has no validation image that looks unlike those that were trained "
    "on. Add images of other scenes."
)
CONFIDENCE = 0.95  # of a promise, where none is asked for
BEST = "best"  # asks for the smallest share that can be promised
OFFERED = (0.05, 0.1, 0.2)  # shares that it is the smallest of, and whose cost is told to others
ROUNDING = 1e-4  # an image that is asked about alone and the same one in a batch differ in the last digits; they shall not in the verdict


@dataclass(frozen=True)
class Point:
    """The result of answering up to an ``uncertainty`` of validation images: the ``limit`` for
    others, how many are ``answered``, and how many of these ``wrong``."""

    uncertainty: float
    limit: float
    answered: int
    wrong: int

    @property
    def error(self) -> float:
        return self.wrong / self.answered

    def __str__(self) -> str:
        low, high = wilson(self.wrong, self.answered)
        percents = f"{100 * self.error:.1f} %".replace(".0 %", " %")
        interval = f"{100 * low:.0f} to {100 * high:.0f} %"
        return f"{self.wrong} of {self.answered} ({percents}; 95 % interval {interval})"


def points_of(uncertainty: numpy.ndarray, wrong: numpy.ndarray) -> list[Point]:
    """A point for each uncertainty of a run's N validation images, upwards.

    Args:
        uncertainty: (N,) in [0, 1], larger is more doubtful; wrong: (N,) bool.

    Raises:
        ValueError: there is no image, an uncertainty is not finite, or there are more of one than
            of the other.
    """
    if not numpy.isfinite(numpy.abs(uncertainty).max()):
        raise ValueError("an uncertainty is not finite")
    # equal ones stand or fall together
    values, places, counts = numpy.unique(uncertainty, return_inverse=True, return_counts=True)
    values = values.astype(float)
    between = numpy.append((values[:-1] + values[1:]) / 2, math.inf)
    limits = numpy.minimum(values * (1 + ROUNDING), between)
    wrongs = numpy.bincount(places[wrong], minlength=len(counts)).cumsum()
    columns = (column.tolist() for column in (values, limits, counts.cumsum(), wrongs))
    return [Point(*point) for point in zip(*columns)]


def images_needed(max_error: float, risk: float) -> int:
    """The least number of images without a mistake that shows an error of at most ``max_error``,
    except with the probability ``risk``: the least n with (1 − max_error)ⁿ ≤ risk."""
    return math.ceil(math.log(risk) / math.log1p(-max_error))


def promised(points: list[Point], max_error: float, confidence: float = CONFIDENCE) -> Point | None:
    """The point with the most answers of which, with that confidence, at most a share ``max_error``
    is wrong on pictures like these; None where there is none.

    A point is accepted where so few mistakes among its n images would have a probability of at most
    δ / J if the error were larger, Bin(n, max_error) ≤ wrong. Points are looked at from J starts
    upwards, and from each start up to the first that is not accepted, so that all that are accepted
    hold together with a probability of 1 − δ, δ = 1 − ``confidence`` (Bonferroni over the starts,
    fixed-sequence testing from each). The starts are the m, 2 m, 4 m … most certain images, m being
    the least number that can be accepted at all, and J as many as there are images for: which images
    are wrong has no part in it.

    Args:
        points: of ``points_of``; max_error, confidence: in (0, 1).
    """
    # here, since it takes a second to import: wrong arguments are answered at once
    from scipy.stats import binom

    images = points[-1].answered
    risk = 1 - confidence
    starts = 1
    while images_needed(max_error, risk / (starts + 1)) * 2**starts <= images:
        starts += 1
    least = images_needed(max_error, risk / starts)
    answered = numpy.array([point.answered for point in points])
    wrong = numpy.array([point.wrong for point in points])
    is_accepted = binom.cdf(wrong, answered, max_error) <= risk / starts
    found = None
    for doublings in range(starts):
        for point, accepted in zip(points, is_accepted):
            if point.answered < least * 2**doublings:
                continue
            if not accepted:
                break
            if found is None or point.answered > found.answered:
                found = point
    return found


def record_in(folder: str) -> Record:
    """A run's record; {} where it has none."""
    path = f"{folder}/{RECORD}"
    return read_record(path) if os.path.isfile(path) else {}


def possible(points: list[Point], confidence: float = CONFIDENCE) -> dict[float, Point]:
    """The shares of ``OFFERED`` that can be promised, upwards, with their points, see ``promised``. All
    of them hold together with the confidence, since each takes a part of the risk (Bonferroni): one
    may be chosen after a look at them."""
    each = 1 - (1 - confidence) / len(OFFERED)
    found = {share: promised(points, share, each) for share in OFFERED}
    return {share: point for share, point in found.items() if point is not None}


def are_own(folder: str, classnames: Sequence[str]) -> bool:
    """Whether these are all of a run's classes, in any order: what it promises holds for them. Some of
    them are others: which answers are wrong, and how sure they are, changes with the list."""
    return sorted(record_in(folder).get("classnames", ())) == sorted(classnames)


def read_points(folder: str) -> tuple[list[Point], int]:
    """A run's points, of its validation images or, where folds that have not seen them answer these, of
    all its images, and how many of these don't count, see the head of this file; no points where no
    image of a class counts.

    Raises:
        UserError: the run has no such file, or it can't be read, or is not the run's own.
    """
    record = record_in(folder)
    split = "test" if "folds" in record else "val"
    path = f"{folder}/{answers_file(split)}"
    if not os.path.isfile(path):
        raise UserError(
            f"--max-error needs {path}, which a training writes where its data set has validation images of its own: leave out "
            "--max-error, or repeat the run's command if it is older than that, what is trained is only tested again"
        )
    try:
        kept = read_answers(folder, split, record)
        labels = kept["label"]
        # of the field's data sets nothing is known
        is_new = kept.get("is_new", numpy.ones(len(labels), bool))
        uncounted = int((~is_new).sum())
        if {*labels[is_new].tolist()} != {*labels.tolist()}:
            return [], uncounted
        wrong = kept["top"][:, 0] != labels
        return points_of(kept["max_probability"][is_new], wrong[is_new]), uncounted
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, path)
        raise UserError(
            f"{path} can't be read ({type(error).__name__}: {' '.join(str(error).split())}): repeat the run's "
            "command, what is trained is only tested again"
        ) from error


def share_or_best(text: str) -> float | str:
    """What ``--max-error`` is given: a share, or ``BEST``; raises ValueError for what is neither."""
    return text if text == BEST else float(text)


class Judge:
    """Tells unsure answers of a run from others.

    Args:
        folder: the run's.
        max_error: share in (0, 1) of the answers not doubtful that may be wrong; ``BEST``: the smallest
            of ``OFFERED`` that can be promised, or the largest where none can; None: no answer is
            judged.
        confidence: in (0, 1), of the promise.

    Raises:
        UserError: a share or a confidence is given that is none, or a share for a run without
            answers to validation images that count; see ``read_points``.
    """

    def __init__(
        self,
        folder: str,
        max_error: float | str | None = None,
        confidence: float = CONFIDENCE,
    ) -> None:
        self.is_best = max_error == BEST
        self.confidence = confidence
        self.points: list[Point] = []
        self.uncounted = 0
        self.noun = "validation image"
        for flag, share in (("--max-error", max_error), ("--confidence", confidence)):
            if isinstance(share, int | float) and not 0 < share < 1:
                raise UserError(f"{flag} is {share}, it is a share: above 0 and below 1")
        try:
            self.points, self.uncounted = read_points(folder)
            if "folds" in record_in(folder):
                self.noun = "cross-validated image"
        except UserError:
            if max_error is not None:
                raise
        if max_error is not None and not self.points:
            raise UserError(f"{folder}: {NOTHING_NEW}")
        self.max_error: float | None = None
        self.point = None
        if self.is_best:
            shares = possible(self.points, confidence)
            self.max_error = min(shares, default=OFFERED[-1])
            self.point = shares.get(self.max_error)
        elif max_error is not None:
            self.max_error = float(max_error)
            self.point = promised(self.points, self.max_error, confidence)

    def doubtful(self, uncertainty: float) -> bool | None:
        """Whether an answer to the run's own classes is unsure; None where no share of errors was
        given."""
        if self.max_error is None:
            return None
        return self.point is None or not uncertainty <= self.point.limit  # NaN is doubtful

    def promise(self, max_error: float) -> str:
        """What a limit for a share of errors promises, in words."""
        return f"at most {100 * max_error:g} % errors with {100 * self.confidence:g} % confidence"

    def verdict(self, doubtful: bool | None) -> str:
        """What an answer is called; None where no share of errors was given."""
        if doubtful is None or self.max_error is None:
            return NOT_KNOWN
        if self.point is None:
            return f"The model is not sure: no limit promises {self.promise(self.max_error)}."
        where = "The model is not sure: beyond" if doubtful else "Within"
        return f"{where} the limit that promises {self.promise(self.max_error)}."

    def rule(self) -> str:
        """What counts as unsure and why, in words."""
        if not self.points:
            return NOTHING_NEW if self.uncounted else NO_VALIDATION
        return " ".join(part for part in (self.limit(), self.others(), self.offers()) if part)

    def others(self) -> str:
        """What the images are that don't count, in words."""
        if not self.uncounted:
            return ""
        return (
            f"Not counted: {counted(self.uncounted, self.noun)} that look like training images or like one of "
            "these."
        )

    def limit(self) -> str:
        """The limit, or why there is none, in words."""
        every = self.points[-1]
        images = f"the run's {counted(every.answered, self.noun)}"
        if self.max_error is None:
            return f"No limit is set. Wrong among {images}: {every}."
        if self.point is not None:
            least = ", the smallest share that can be promised here" if self.is_best else ""
            return (
                f"The limit that promises {self.promise(self.max_error)}{least}, on pictures like {images}, is an "
                f"uncertainty of {decimal(self.point.limit)}. Within it: {self.point.answered} of "
                f"these, {self.point.wrong} of them wrong."
            )
        needed = images_needed(self.max_error, 1 - self.confidence)
        if needed > every.answered:
            return (
                f"No limit can promise {self.promise(self.max_error)}: that takes at least "
                f"{counted(needed, self.noun)} without a mistake, and the run has "
                f"{every.answered}."
            )
        return (
            f"No limit promises {self.promise(self.max_error)}: too many of the most certain of {images} are "
            f"wrong. Wrong among all: {every}."
        )

    def offers(self) -> str:
        """How many validation images other shares of errors would answer, in words; nothing where a limit
        is set."""
        if self.point is not None:
            return ""
        shares = [
            f"at most {100 * share:g} % errors, answering {point.answered}"
            for share, point in possible(self.points, self.confidence).items()
            if share != self.max_error
        ]
        if not shares:
            return ""
        confidence = f"{100 * self.confidence:g} % confidence"
        return f"What can be promised here with {confidence}: {'; '.join(shares)}."

    def of_such(self, uncertainty: float) -> str:
        """How often the run was right where it was at least as sure, in words."""
        if not self.points:
            return ""
        most = uncertainty * (1 + ROUNDING)
        surer = [point for point in self.points if point.uncertainty <= most]
        this = f"This answer's uncertainty is {decimal(uncertainty)}"
        if not surer:
            return f"{this}, lower than that of any {self.noun}."
        return f"{this}; wrong among the {self.noun}s with at most that: {surer[-1]}."
