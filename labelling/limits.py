"""Limits from which on the labels of a multi-label picture are given, so that a promise is kept.

``--max-error X`` promises, with a confidence of 95 %, that at most a share X of the labels that are given
is wrong, and ``--max-missed X`` that at most a share X of the labels that pictures have is not given, on
pictures like those that were trained on. Limits are tested by ``chance_of_mean``, of groups, in an order that
labels have no part in, up to the first that could break the promise, so that all before hold together.

References:
    - Angelopoulos et al. (2021), "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
      Control", §2.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy

from .means import chance_of_mean
from .threshold import OFFERED, ROUNDED

# logits of the limits that are tested
LIMITS = 1 / (1 + numpy.exp(-numpy.linspace(-8, 8, 321)))
FEWEST_LABELS = 32  # labels, those of a group as their mean, below which no test is begun
JOINT_SHARE = (
    0.8  # of the risk, for one limit of all labels, which is mostly promised if any can be
)
NEVER = numpy.inf  # the limit of a label that is not given


@dataclass(frozen=True)
class LabelLimits:
    """A rule for the labels that a picture is given.

    Attributes:
        thresholds: (K,), the least probability at which a label is given; (): one for all labels.
        most: the largest number of labels that a picture is given; the most probable ones are.
        says: the given labels and their promise, in a sentence; further: its cost, in sentences.
        is_any: whether it can be used with any list of labels.
    """

    thresholds: numpy.ndarray
    most: int
    says: str = ""
    further: str = ""
    is_any: bool = False

    def given(self, probability: numpy.ndarray) -> numpy.ndarray:
        """(N, K) bool, of probabilities (N, K)."""
        order = numpy.argsort(-probability, axis=1, kind="stable")
        place = numpy.argsort(order, axis=1, kind="stable")  # 0: the most probable
        return (probability >= self.thresholds) & (place < self.most)


def limit_of_error(
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    share: float,
    confidence: float,
) -> LabelLimits | None:
    """Return the lowest limits under which at most a share of the given labels is wrong; None where none can be
    promised.

    Two ways are tested: with ``JOINT_SHARE`` of the risk one limit for all labels, which share their evidence, a
    picture being given at most as many labels as any of these has; with the rest a limit for each label,
    whose risks are equal parts of it (Bonferroni), labels that can't be promised being left out, so that a
    label that is often wrong spoils no other. The way that gives more labels to these pictures is taken:
    both hold, whichever it is.

    Args:
        probability: (N, K), out of fold; truth: (N, K), bool; groups: (N,), numbers; share, confidence:
            in (0, 1).
    """
    labels = truth.shape[1]
    risk = 1 - confidence
    ways = []
    most = int(truth.sum(axis=1).max())
    top = numpy.argsort(-probability, axis=1, kind="stable")[:, :most]
    answer = numpy.take_along_axis(probability, top, axis=1)
    wrong = ~numpy.take_along_axis(truth, top, axis=1)
    limit = lowest_limit(answer, wrong, groups, share, JOINT_SHARE * risk)
    if limit < NEVER:
        ways.append(LabelLimits(numpy.full(labels, limit), most))
    each = (1 - JOINT_SHARE) * risk / labels
    limits = [
        lowest_limit(probability[:, [label]], ~truth[:, [label]], groups, share, each)
        for label in range(labels)
    ]
    if min(limits) < NEVER:
        ways.append(LabelLimits(numpy.array(limits), labels))
    return max(ways, key=lambda way: int(way.given(probability).sum()), default=None)


def lowest_limit(
    answer: numpy.ndarray, wrong: numpy.ndarray, groups: numpy.ndarray, share: float, risk: float
) -> float:
    """Return the lowest of ``LIMITS`` under which at most a share of the labels is wrong, ``NEVER`` where none can be
    promised.

    Limits are tested downwards, by the fallback procedure as in ``threshold.promised``, of groups too: none of
    358 such promises was broken (docs/multi_label.md). Its starts are where all pictures have M labels, half
    as many are given, a quarter … down to ``FEWEST_LABELS``, pictures of a group together counting as one.

    Args:
        answer: (N, M), the probabilities of a picture's labels; wrong: (N, M), bool; groups: (N,), numbers.
        share, risk: in (0, 1), of wrong labels, and of a promise that is false.
    """
    given = sums_above_limits(answer, numpy.ones_like(answer), groups)  # (G, L)
    starts = [*starts_at(given.sum(axis=0) + ROUNDED, len(given) * answer.shape[1])]
    excess = sums_above_limits(answer, wrong - share, groups)
    most = (1 - share) * answer.shape[1]
    found = NEVER
    level = 0.0
    for place in range(max(starts, default=-1), -1, -1):
        level += starts.count(place) * risk / len(starts)
        # under many limits the same labels are given
        if place in starts or (excess[:, place] != excess[:, place + 1]).any():
            chance = chance_of_mean(excess[:, place], most)
        if chance <= level:
            found = float(LIMITS[place])
        else:
            level = 0.0
    return found


def starts_at(given: numpy.ndarray, most: int) -> Iterator[int]:
    """Yield the highest limits under which so many labels are given, half as many, a quarter …

    given: (L,), how many are under each limit.
    """
    number = most
    while number >= FEWEST_LABELS:
        if given[0] >= number:
            yield int(numpy.flatnonzero(given >= number)[-1])
        number //= 2


def limit_of_missed(
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    share: float,
    confidence: float,
) -> LabelLimits | None:
    """The highest limit under which at most a share of the labels that pictures have is not given; None
    where none can be promised. It holds for pictures of at most as many labels as any of these has.

    Limits are tested from the lowest on, under which everything is given. See ``limit_of_error``.
    """
    most = int(truth.sum(axis=1).max())
    found = sums_above_limits(probability, truth.astype(float), groups)  # (G, L)
    number = sums_above_limits(
        numpy.ones((len(truth), 1)), truth.sum(axis=1, keepdims=True), groups
    )
    excess = (1 - share) * number - found
    end = 0
    while end < len(LIMITS):
        if chance_of_mean(excess[:, end], (1 - share) * most) > 1 - confidence:
            break
        end += 1
    if not end:
        return None
    return LabelLimits(numpy.full(truth.shape[1], LIMITS[end - 1]), truth.shape[1])


def sums_above_limits(
    answer: numpy.ndarray, values: numpy.ndarray, groups: numpy.ndarray
) -> numpy.ndarray:
    """The sum (G, L) of the values of each group's answers that are at least each of ``LIMITS``, as the mean
    over the group's pictures.

    Args:
        answer: (N, M), probabilities; values: (N, M), theirs; groups: (N,), numbers.
    """
    _, place, size = numpy.unique(groups, return_inverse=True, return_counts=True)
    passed = numpy.searchsorted(LIMITS, answer, side="right")  # how many limits each is above
    cells = place[:, None] * (len(LIMITS) + 1) + passed
    weights = values / size[place][:, None]
    sums = numpy.bincount(cells.ravel(), weights.ravel(), len(size) * (len(LIMITS) + 1))
    of_passed = sums.reshape(len(size), -1)
    return of_passed[:, :0:-1].cumsum(axis=1)[:, ::-1]


@dataclass(frozen=True)
class Worth:
    """The worth of labels that N pictures are given.

    Attributes:
        given: labels of a picture, on average.
        wrong: share of the given labels that are wrong; found: share of the pictures' labels that are given.
    """

    given: float
    wrong: float
    found: float


def worth_of(given: numpy.ndarray, truth: numpy.ndarray) -> Worth:
    """Return the ``Worth`` of labels (N, K), bool, beside the true ones (N, K)."""
    right = int((given & truth).sum())
    return Worth(
        given=float(given.sum(axis=1).mean()),
        wrong=1 - right / max(1, int(given.sum())),
        found=right / max(1, int(truth.sum())),
    )


PROMISES = {"--max-error": limit_of_error, "--max-missed": limit_of_missed}


def possible_limits(
    option: str,
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    confidence: float,
    shares: Iterable[float] = OFFERED,
) -> dict[float, LabelLimits]:
    """Return the shares that can be promised, in descending order, with their limits. The largest is tested
    first, and a smaller one only if the larger ones can be promised.

    option: of ``PROMISES``; the others: as in ``limit_of_error``.
    """
    found: dict[float, LabelLimits] = {}
    for share in sorted(shares, reverse=True):
        limits = PROMISES[option](probability, truth, groups, share, confidence)
        if limits is None:
            break
        found[share] = limits
    return found
