"""Which labels of a multi-label picture are given so that a promise is kept: those from one probability on.

``--max-error X`` promises, with a confidence of 95 %, that at most a share X of the labels that are given
is wrong, and ``--max-missed X`` that at most a share X of the labels that pictures have is not given, on
pictures like those that were trained on. Labels of a picture, and pictures of a group, depend on each
other: the unit of the test is a group. The labels are those whose probability is at least a limit, the
same for all.

For each limit, the excess of a group is how many labels of its pictures are wrong, minus X times how many
are given (the mean over its pictures). A limit breaks the promise where the mean excess is above zero.
Then Π (1 − ν excess), over all groups, is 1 at most in the mean, for each bet ν that keeps it positive,
and so is the mean over several bets: it is above 1 / δ with a probability of at most δ (Markov). Limits
are tested in an order that labels have no part in, up to the first that could break it, so that all
before hold together (fixed-sequence testing).

References:
    - Angelopoulos et al. (2021), "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
      Control", §2.
    - Waudby-Smith and Ramdas (2024), "Estimating Means of Bounded Random Variables by Betting", §3.
"""

from dataclasses import dataclass

import numpy

from .threshold import OFFERED

# logits of the limits that are tested
LIMITS = 1 / (1 + numpy.exp(-numpy.linspace(-8, 8, 321)))
BETS = (
    0.02,
    0.05,
    0.1,
    0.2,
    0.4,
    0.8,
)  # shares of the largest bet that leaves the product positive
LEAST = 32  # groups with a label, below which no test is begun


@dataclass(frozen=True)
class Rule:
    """Which labels a picture is given.

    Attributes:
        thresholds: (K,), or () of all, the least probability of each.
        most: that a picture is given, the most probable ones.
        says: which labels are given, and what that promises, in a sentence.
        is_any: whether it serves any list of labels.
    """

    thresholds: numpy.ndarray
    most: int
    says: str = ""
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
) -> Rule | None:
    """The lowest limit under which at most a share of the given labels is wrong; None where none can be
    promised. A picture is given at most as many labels as any of these pictures has.

    Limits are tested from the highest on, from several starts: where every second group has a label,
    every fourth …; which labels are right has no part in them.

    Args:
        probability: (N, K), out of fold; truth: (N, K), bool; groups: (N,), numbers; share, confidence:
            in (0, 1).
    """
    most = int(truth.sum(axis=1).max())
    top = numpy.argsort(-probability, axis=1, kind="stable")[:, :most]
    answer = numpy.take_along_axis(probability, top, axis=1)
    wrong = ~numpy.take_along_axis(truth, top, axis=1)
    given = above(answer, numpy.ones_like(answer), groups)  # (G, L)
    excess = above(answer, wrong - share, groups)
    evidence = against(excess, (1 - share) * most)[::-1]  # from the highest limit on
    reached = (given > 0).sum(axis=0)[::-1]
    starts = []
    number = len(given)
    while number >= LEAST:
        if reached[-1] >= number:
            starts.append(int((reached >= number).argmax()))
        number //= 2
    passed = evidence >= len(starts) / (1 - confidence)
    ends = [first_not(passed, start) - 1 for start in starts if passed[start]]
    if not ends:
        return None
    limit = LIMITS[::-1][max(ends)]
    return Rule(numpy.full(truth.shape[1], limit), most)


def limit_of_missed(
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    share: float,
    confidence: float,
) -> Rule | None:
    """The highest limit under which at most a share of the labels that pictures have is not given; None
    where none can be promised. It holds for pictures of at most as many labels as any of these has.

    Limits are tested from the lowest on, under which everything is given. See ``limit_of_error``.
    """
    most = int(truth.sum(axis=1).max())
    found = above(probability, truth.astype(float), groups)  # (G, L)
    number = above(numpy.ones((len(truth), 1)), truth.sum(axis=1, keepdims=True), groups)
    evidence = against((1 - share) * number - found, (1 - share) * most)
    end = first_not(evidence >= 1 / (1 - confidence), 0)
    if not end:
        return None
    return Rule(numpy.full(truth.shape[1], LIMITS[end - 1]), truth.shape[1])


def above(
    answer: numpy.ndarray,
    values: numpy.ndarray,
    groups: numpy.ndarray,
    limits: numpy.ndarray = LIMITS,
) -> numpy.ndarray:
    """The sum (G, L) of the values of each group's answers that are at least each of the limits, as the
    mean over the group's pictures.

    Args:
        answer: (N, M), probabilities; values: (N, M), theirs; groups: (N,), numbers.
        limits: (L,), ascending.
    """
    _, place, size = numpy.unique(groups, return_inverse=True, return_counts=True)
    passed = numpy.searchsorted(limits, answer, side="right")  # how many limits each is above
    cells = place[:, None] * (len(limits) + 1) + passed
    weights = values / size[place][:, None]
    sums = numpy.bincount(cells.ravel(), weights.ravel(), len(size) * (len(limits) + 1))
    of_passed = sums.reshape(len(size), -1)
    return of_passed[:, :0:-1].cumsum(axis=1)[:, ::-1]


def against(excess: numpy.ndarray, most: float) -> numpy.ndarray:
    """How much speaks against a mean of zero or more, of each column (L,) of values (G, L) up to
    ``most``: the mean over ``BETS`` of Π (1 − ν excess), whose mean is 1 at most under it."""
    products = [
        numpy.exp(numpy.log1p(-share / most * excess).sum(axis=0).clip(max=700)) for share in BETS
    ]
    mean: numpy.ndarray = numpy.mean(products, axis=0)
    return mean


def first_not(passed: numpy.ndarray, start: int) -> int:
    """The first place from ``start`` on that has not passed."""
    failed = numpy.flatnonzero(~passed[start:])
    return start + int(failed[0]) if len(failed) else len(passed)


PROMISES = {"--max-error": limit_of_error, "--max-missed": limit_of_missed}


def smallest_share(
    option: str,
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    confidence: float,
) -> float | None:
    """Return the smallest share of ``OFFERED`` that can be promised, the largest being tested first; None
    where none can.

    option: of ``PROMISES``; the others: see ``limit_of_error``.
    """
    found = None
    for share in sorted(OFFERED, reverse=True):
        if PROMISES[option](probability, truth, groups, share, confidence) is None:
            break
        found = share
    return found
