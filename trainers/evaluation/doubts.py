"""Whether an answer is doubtful: the one rule, and the one wording, of predict.py and the page of
demo_app.py.

The rule rests on the run's answers to its validation images: the limit is the largest uncertainty
up to which at most a share ``max_error`` of the answers is wrong. A more uncertain answer is
doubtful. Without a share, or for classes other than the run's own, nothing is claimed.
"""

import math
import os
from dataclasses import dataclass

import numpy

from ..common.console import counted
from ..common.errors import UserError, raise_machines
from ..common.readers import read_arrays

NOT_KNOWN = "How far to trust this answer is not known."
OTHER_CLASSES = "The rejection threshold was set on the run's own classes, not on these."
NO_VALIDATION = "No rejection threshold can be set: the run has no answers on validation images."
OFFERED = (0.05, 0.1, 0.2)  # shares whose cost is told to those who have not chosen one
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


def within(points: list[Point], max_error: float) -> Point | None:
    """The point with the most answers of which at most a share ``max_error`` in [0, 1) is wrong;
    None where there is none."""
    return next((point for point in reversed(points) if point.error <= max_error), None)


def best(points: list[Point]) -> Point:
    """The point with the lowest error, of those with the most answers."""
    return min(points, key=lambda point: (point.error, -point.answered))


def read_points(folder: str) -> list[Point]:
    """A run's points.

    Raises:
        UserError: the run has no such file, or it can't be read.
    """
    path = f"{folder}/predictions-val.npz"
    if not os.path.isfile(path):
        raise UserError(
            f"--max-error needs {path}, which a training writes where its data set has validation images of its own: leave out "
            "--max-error, or repeat the run's command if it is older than that, what is trained is only tested again"
        )
    try:
        kept = read_arrays(path)
        return points_of(kept["max_probability"], kept["top"][:, 0] != kept["label"])
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, path)
        raise UserError(
            f"{path} can't be read ({type(error).__name__}): repeat the run's command, what is trained is only tested "
            "again"
        ) from error


class Judge:
    """Tells doubtful answers of a run from others.

    Args:
        folder: the run's.
        max_error: share in [0, 1) of the answers not doubtful that may be wrong on validation
            images; None: no answer is judged.

    Raises:
        UserError: a share is asked for that is none, or without answers to validation images; see
            ``read_points``.
    """

    def __init__(self, folder: str, max_error: float | None = None) -> None:
        self.max_error = max_error
        self.points: list[Point] = []
        if max_error is not None and not 0 <= max_error < 1:
            raise UserError(f"--max-error is {max_error}, it is a share: at least 0 and below 1")
        try:
            self.points = read_points(folder)
        except UserError:
            if max_error is not None:
                raise
        self.point = None if max_error is None else within(self.points, max_error)

    def doubtful(self, uncertainty: float) -> bool | None:
        """Whether an answer to the run's own classes is doubtful; None where no share of errors was
        asked for."""
        if self.max_error is None:
            return None
        return self.point is None or not uncertainty <= self.point.limit  # NaN is doubtful

    def verdict(self, doubtful: bool | None) -> str:
        """What an answer is called; ``doubtful``: see there."""
        if doubtful is None or self.max_error is None:
            return NOT_KNOWN
        where = "The model is not sure: beyond" if doubtful else "Within"
        return f"{where} the limit of {100 * self.max_error:g} % errors on validation images."

    def rule(self) -> str:
        """What counts as doubtful and why, in words."""
        if not self.points:
            return NO_VALIDATION
        images = f"the run's {counted(self.points[-1].answered, 'validation image')}"
        least = best(self.points)
        lowest = (
            f"The lowest error is {least}: --max-error {math.ceil(1000 * least.error) / 1000:g} allows it."
            if least.error <= 0.999
            else ""
        )
        if self.max_error is None:
            possible = ", ".join(
                f"{offer:g} answers {point.answered}"
                for offer in OFFERED
                if (point := within(self.points, offer))
            )
            offers = f"--max-error abstains from the doubtful: {possible}."
            return f"No limit is set. Wrong among {images}: {self.points[-1]}. {offers if possible else lowest}".rstrip()
        allowed = f"{100 * self.max_error:g} %"
        if self.point is None:
            return f"No answer is within the limit: among {images} more than {allowed} of even the most certain answers are wrong. {lowest}".rstrip()
        return (
            f"The limit for at most {allowed} of errors is an uncertainty of {decimal(self.point.limit)}. "
            f"Within it: {self.point.answered} of {images}; wrong among those: {self.point}."
        )

    def of_such(self, uncertainty: float) -> str:
        """How often the run was right where it was at least as sure, in words."""
        if not self.points:
            return ""
        most = uncertainty * (1 + ROUNDING)
        surer = [point for point in self.points if point.uncertainty <= most]
        this = f"This answer's uncertainty is {decimal(uncertainty)}"
        if not surer:
            return f"{this}, lower than that of any validation image."
        return f"{this}; wrong among the validation images with at most that: {surer[-1]}."


def wilson(number: int, of: int) -> tuple[float, float]:
    """The ends in [0, 1] of the 95 % interval of a share (Wilson, 1927, "Probable Inference, the
    Law of Succession, and Statistical Inference")."""
    # here, since it takes a second to import: wrong arguments are answered at once
    from scipy.stats import binomtest

    bounds = binomtest(number, of).proportion_ci(method="wilson")
    return bounds.low, bounds.high


def decimal(value: float) -> str:
    """A number in [0, 1] with two significant digits; vacuities span many orders of magnitude."""
    return (
        "less than 0.000001"
        if value < 1e-6
        else numpy.format_float_positional(value, precision=2, fractional=False, trim="-")
    )
