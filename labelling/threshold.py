"""The rejection threshold of a run, in numbers: answers that are more uncertain get no label.

A threshold is chosen in two steps. ``read_validation`` reads how uncertain a run's answers to its
validation images are, and which of them are wrong. ``threshold_at`` finds the largest uncertainty for
a share of errors, ``best_threshold`` the smallest share for which there is one. ``threshold_of`` does
both, as a command asks for it. ``rules.py`` says the result in words.

A threshold is a promise: at most that share of the accepted answers is wrong, on new pictures like the
validation images. 95 % of the given promises hold (``risk_of``). The bound is for independent groups: pictures
that look alike, or that belong together by the user's word, count as one, by their mean. Groups with
training pictures are not counted. Nothing is promised for classes other than the run's own.

References:
    - Angelopoulos et al. (2021), "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
      Control", §2: tests of limits in a fixed sequence.
    - Wiens and Dmitrienko (2005), "The Fallback Procedure for Evaluating a Single Family of Hypotheses":
      a sequence with several starts.
    - Geifman and El-Yaniv (2017), "Selective Classification for Deep Neural Networks": the exact
      binomial bound on the error of the accepted answers; of groups see ``means``.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy

from trainers.common.errors import UserError, raise_machines
from trainers.common.record_file import (
    RECORD_FILE,
    Record,
    answers_file,
    read_answers,
    read_record,
)

from .means import chance_of_mean

NOTHING_NEW = (
    "No rejection threshold can be set: all validation images of a class belong together with images that were trained "
    "on. Add images of other scenes."
)
FOUND_IN_PART = (
    "No rejection threshold can be set: many images look like some of their group and unlike the rest of it, so that "
    "copies were found only in part. Name what belongs together, by a column group or by --group-by, and train again."
)
CHOSEN_VALIDATION = (
    "No rejection threshold can be set: the labelled images are more, or less, certain than those that nobody has looked "
    "at. Label some that are drawn at random (predict.py --label-next N --at-random), and train again."
)
CONFIDENCE = 0.95  # of a promise, unless another is given
BEST_PROMISE = "best"  # asks for the smallest share of ``OFFERED`` that can be promised
OFFERED = (0.05, 0.1, 0.2)  # shares of errors
# an image alone and the same image in a batch differ in the last digits of the uncertainty
ROUNDING = 1e-4
MOST_TESTED = 500  # points of images in groups, each of which takes milliseconds
ROUNDED = 1e-6  # what a sum of parts of groups may lack


@dataclass(frozen=True)
class Point:
    """The result of accepting the validation answers up to an uncertainty.

    Attributes:
        uncertainty: in [0, 1], the largest accepted one.
        limit: the same for new images, with room for a difference in the last digits.
        answered: number of accepted answers.
        wrong: number of accepted answers that are wrong.
    """

    uncertainty: float
    limit: float
    answered: int
    wrong: int


@dataclass(frozen=True)
class Held:
    """A run's answers to N images that it was not trained on.

    Attributes:
        uncertainty: (N,) in [0, 1], larger is less certain; wrong: (N,) bool.
        group: (N,), numbers: images of one depend on each other; None: each is alone.
    """

    uncertainty: numpy.ndarray
    wrong: numpy.ndarray
    group: numpy.ndarray | None = None

    def check(self) -> None:
        """Check the numbers of answers.

        Raises:
            ValueError: there is no image, an uncertainty is not finite, or there are more of one than
                of the other.
        """
        if not numpy.isfinite(numpy.abs(self.uncertainty).max()):
            raise ValueError("an uncertainty is not finite")
        if not len(self.uncertainty) == len(self.wrong):
            raise ValueError("there are more answers than uncertainties, or fewer")

    @cached_property
    def points(self) -> list[Point]:
        """A point for each uncertainty, upwards."""
        # equal ones stand or fall together
        values, places, counts = numpy.unique(
            self.uncertainty, return_inverse=True, return_counts=True
        )
        values = values.astype(float)
        between = numpy.append((values[:-1] + values[1:]) / 2, math.inf)
        limits = numpy.minimum(values * (1 + ROUNDING), between)
        wrongs = numpy.bincount(places[self.wrong], minlength=len(counts)).cumsum()
        columns = (column.tolist() for column in (values, limits, counts.cumsum(), wrongs))
        return [Point(*point) for point in zip(*columns)]

    @cached_property
    def groups(self) -> int:
        """The number G of groups."""
        return len(self.uncertainty) if self.group is None else len(numpy.unique(self.group))

    @property
    def is_alone(self) -> bool:
        """Whether each image is a group of its own."""
        return self.groups == len(self.uncertainty)

    def means(self, values: numpy.ndarray) -> numpy.ndarray:
        """Return the mean (G,) of values (N,) over each group."""
        if self.group is None:
            return values
        _, place, size = numpy.unique(self.group, return_inverse=True, return_counts=True)
        mean: numpy.ndarray = numpy.bincount(place, values) / size
        return mean

    def tested(self) -> list[Point]:
        """Return the points that a limit is looked for among."""
        if self.is_alone:
            return self.points
        return self.points[:: math.ceil(len(self.points) / MOST_TESTED)]

    def chances(self, points: Sequence[Point], share: float) -> Callable[[int], float]:
        """Return a function of the place of a point: the probability of so few mistakes among the groups that
        it accepts if more than a share of the accepted answers were wrong."""
        if self.is_alone:
            # here, since it takes a second to import: wrong arguments are answered at once
            from scipy.stats import binom

            answered = numpy.array([point.answered for point in points])
            wrong = numpy.array([point.wrong for point in points])
            every = binom.cdf(wrong, answered, share)
            return lambda place: float(every[place])

        @cache
        def chance(place: int) -> float:
            is_accepted = self.uncertainty <= points[place].uncertainty
            return chance_of_mean(self.means((self.wrong - share) * is_accepted), 1 - share)

        return chance

    def accepted(self, points: Sequence[Point]) -> list[float]:
        """Return how many groups each point accepts, a part of one as its share."""
        if self.is_alone:
            return [point.answered for point in points]
        return [
            float(self.means(self.uncertainty <= point.uncertainty).sum()) + ROUNDED
            for point in points
        ]


def risk_of(share: float, confidence: float = CONFIDENCE) -> float:
    """Return the probability that a promise of at most a share of errors is given though the error is larger.

    It falls with the square of the share: few runs can promise a small share, so that false promises would
    be many among the *given* ones. ``experiments/promises.py`` measures it.

    Args:
        share, confidence: in (0, 1).
    """
    return (1 - confidence) * min(1, share / OFFERED[-1]) ** 2


def images_needed(share: float, risk: float) -> int:
    """Return how many images without a mistake show an error of at most ``share`` at the risk ``risk``: the
    least n with (1 − share)ⁿ ≤ risk."""
    return math.ceil(math.log(risk) / math.log1p(-share))


def promised(held: Held, share: float, confidence: float = CONFIDENCE) -> Point | None:
    """Return the point with the most answers of which at most a share is wrong on pictures like these, at the
    risk ``risk_of``; None if there is no such point.

    A point is accepted if so few mistakes among its n groups have at most the probability ``level`` under a
    larger error (``Held.chances``; with independent images P(Bin(n, share) ≤ wrong)). Points are tested from
    the most certain on: each of J starts sets the level to ``risk_of`` / J, and a point that is not accepted
    sets it to 0. Where each image is alone, a start adds what is left of the level before (the fallback
    procedure). In folders with copies, not all of them found, too many promises were broken by that. So
    all accepted points hold together. The starts are the m, 2 m, 4 m … most certain groups; m is the least
    number that can be accepted at all, and J as large as the number of groups allows. They do not depend on
    which images are wrong.

    Args:
        share, confidence: in (0, 1).
    """
    risk = risk_of(share, confidence)
    starts = 1
    while images_needed(share, risk / (starts + 1)) * 2**starts <= held.groups:
        starts += 1
    least = images_needed(share, risk / starts)
    points = held.tested()
    accepted = held.accepted(points)
    chance = held.chances(points, share)
    found = None
    level = 0.0
    begun = 0
    for place, point in enumerate(points):
        while begun < starts and accepted[place] >= least * 2**begun:
            left = level if held.is_alone else 0.0
            level = left + risk / starts
            begun += 1
        if not level:
            continue
        if chance(place) <= level:
            found = point
        else:
            level = 0.0
    return found


def possible(held: Held, confidence: float = CONFIDENCE) -> dict[float, Point]:
    """Return the shares of ``OFFERED`` that can be promised, in ascending order, with their points (``promised``).

    The largest is tested first, and a smaller one only if the larger ones can be promised (fixed-sequence
    testing). Each point is the one that ``--max-error`` takes for the share.
    """
    found: dict[float, Point] = {}
    for share in reversed(OFFERED):
        point = promised(held, share, confidence)
        if point is None:
            break
        found = {share: point, **found}
    return found


@dataclass(frozen=True)
class Validation:
    """A run's answers to images that it was not trained on; a threshold is chosen on them.

    Attributes:
        held: the answers that count; None where no threshold can be chosen.
        reason: why no threshold can be chosen, in sentences, else "".
        uncounted: number of images of groups that were trained on.
        is_folds: whether each image was answered by a classifier of the folds without it, so that
            these are all of the run's images.
    """

    held: Held | None = None
    reason: str = ""
    uncounted: int = 0
    is_folds: bool = False

    @property
    def points(self) -> Sequence[Point]:
        """The points of ``Held``; empty where no threshold can be chosen."""
        return self.held.points if self.held is not None else ()


def split_of(record: Record) -> str:
    """Return the split with held-out answers: all images in folds, validation images, or training images in
    folds."""
    if "folds" in record:
        return "test"
    kept = record.get("answers", {})
    return "train" if "train" in kept and "val" not in kept else "val"


def read_validation(folder: str) -> Validation:
    """Reads a run's answers to its validation images or, with folds, to all of its images.

    There are no points where a class has no image that counts, or where only a part of the near-duplicates
    was found.

    Raises:
        UserError: the run has no such file, or it can't be read, or is not the run's own.
    """
    place = f"{folder}/{RECORD_FILE}"
    record = read_record(place) if os.path.isfile(place) else {}
    split = split_of(record)
    is_folds = split != "val"
    path = f"{folder}/{answers_file(split)}"
    if record.get("config", {}).get("TEST", {}).get("NO_TEST"):
        raise UserError(
            f"{folder} was not tested, so that it promises nothing: leave out --max-error or, where it is the refit of a run, "
            f"label with that, {os.path.dirname(os.path.abspath(folder))}"
        )
    if not os.path.isfile(path):
        raise UserError(
            f"--max-error needs {path}, which a training writes where its data set has validation images of its own: leave out "
            "--max-error, or repeat the run's command if it is older than that, what is trained is only tested again"
        )
    try:
        kept = read_answers(folder, split, record)
        labels = kept["label"]
        # the field's data sets have no such array: all of their images count
        is_new = kept.get("is_new", numpy.ones(len(labels), bool))
        uncounted = int((~is_new).sum())
        if {*labels[is_new].tolist()} != {*labels.tolist()}:
            return Validation(None, NOTHING_NEW, uncounted, is_folds)
        if record.get("found_in_part"):
            return Validation(None, FOUND_IN_PART, uncounted, is_folds)
        if record.get("is_chosen"):
            return Validation(None, CHOSEN_VALIDATION, uncounted, is_folds)
        wrong = kept["top"][:, 0] != labels
        group = kept.get("group", numpy.arange(len(labels)))
        held = Held(kept["max_probability"][is_new], wrong[is_new], group[is_new])
        held.check()
        return Validation(held, "", uncounted, is_folds)
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, path)
        raise unreadable(path, error) from error


def unreadable(what: str, error: Exception) -> UserError:
    """Return the error that says why a run's kept answers can't be read, and what to do."""
    reason = " ".join(str(error).split())
    return UserError(
        f"{what} can't be read ({type(error).__name__}: {reason}): repeat the run's command, what is trained "
        "is only tested again"
    )


@dataclass(frozen=True)
class Threshold:
    """A limit of uncertainty: answers of a run up to it are accepted, the others rejected.

    Attributes:
        validation: the answers that it was chosen on.
        confidence: in (0, 1), of the promise.
        share: in (0, 1), of the accepted answers that may be wrong; None: no answer is judged.
        point: of the most uncertain answers that are accepted; None: all answers are rejected.
        is_best: whether the share was chosen, too (``best_threshold``).
    """

    validation: Validation
    confidence: float = CONFIDENCE
    share: float | None = None
    point: Point | None = None
    is_best: bool = False

    def rejects(self, uncertainty: float) -> bool | None:
        """Whether an answer among the run's own classes is too uncertain; None without a share."""
        if self.share is None:
            return None
        return self.point is None or not uncertainty <= self.point.limit  # NaN is rejected

    def alternatives(self) -> dict[float, Point]:
        """The other shares of ``OFFERED`` that can be promised; {} where this one can."""
        held = self.validation.held
        if self.point is not None or held is None:
            return {}
        shares = possible(held, self.confidence)
        return {share: point for share, point in shares.items() if share != self.share}


def threshold_at(share: float, validation: Validation, confidence: float) -> Threshold:
    """The threshold for a share of errors; no point where nothing can be promised."""
    held = validation.held
    point = None if held is None else promised(held, share, confidence)
    return Threshold(validation, confidence, share, point)


def best_threshold(validation: Validation, confidence: float = CONFIDENCE) -> Threshold:
    """The threshold for the smallest share of ``OFFERED`` that can be promised, or for the largest
    where none can."""
    shares = {} if validation.held is None else possible(validation.held, confidence)
    share = min(shares, default=OFFERED[-1])
    return Threshold(validation, confidence, share, shares.get(share), is_best=True)


def threshold_of(
    folder: str, max_error: float | str | None = None, confidence: float = CONFIDENCE
) -> Threshold:
    """A run's threshold as ``--max-error`` and ``--confidence`` ask for it.

    Args:
        folder: the run's.
        max_error: share of errors, or ``BEST_PROMISE``; None: no answer is judged.
        confidence: of the promise.

    Raises:
        UserError: a threshold is asked for and the run has no answers to validation images that count (``read_validation``).
    """
    if max_error is None:
        return Threshold(validation_if_any(folder), confidence)
    validation = read_validation(folder)
    if not validation.points:
        raise UserError(f"{folder}: {validation.reason}")
    if max_error == BEST_PROMISE:
        return best_threshold(validation, confidence)
    return threshold_at(float(max_error), validation, confidence)


def validation_if_any(folder: str) -> Validation:
    """Read a run's validation; without points where it has no readable answers."""
    try:
        return read_validation(folder)
    except UserError:
        return Validation()
