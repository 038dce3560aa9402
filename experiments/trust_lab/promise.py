"""Promises on pictures that come in groups, for one label per picture and for several.

``--max-error X`` promises, with a confidence of 95 %, that at most a share X of the labels that are given is
wrong, on pictures of other groups. Pictures of a group depend on each other, and labels of a picture: the
unit of the test is a group, and all of its pictures count, as their mean. Without groups one label per
picture has the exact binomial bound of ``threshold.py``.

For each limit, the excess of a group is how many labels of its pictures are wrong, minus X times how many
are given (the mean over its pictures). A limit breaks the promise where the mean excess is above zero.
Then Π (1 − ν excess), over all groups, is 1 at most in the mean, for each bet ν that keeps it positive,
and so is the mean over several bets: it is above 1 / δ with a probability of at most δ (Markov). Limits
are fixed before, and are tested from the strictest on, up to the first that could break it, so that all
before hold together (fixed-sequence testing); from several starts, which share δ.

References:
    - Angelopoulos et al. (2021), "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
      Control", §2.
    - Waudby-Smith and Ramdas (2024), "Estimating Means of Bounded Random Variables by Betting", §3.
"""

from dataclasses import dataclass

import numpy

from labelling.bets import Rule, above, against, first_not
from labelling.threshold import Point, points_of, promised, risk_of

# logits of the probabilities down to which a label is given
LIMITS = 1 / (1 + numpy.exp(-numpy.linspace(-8, 12, 401)))
LEAST = 32  # pictures with a label, counted in groups, below which no test is begun
ROUNDED = 1e-6  # what a sum of parts of groups may lack
TOGETHER = 0.8  # of the risk, for one limit of all labels, which can mostly be promised if any can
NEVER = numpy.inf  # the limit of a label that is not given


# ---- the test ----


def lowest_limit(
    answer: numpy.ndarray, wrong: numpy.ndarray, groups: numpy.ndarray, share: float, risk: float
) -> int | None:
    """The place in ``LIMITS`` of the lowest one under which at most a share of the labels is wrong; None
    where none can be promised.

    The starts are where all pictures have a label, half of them, a quarter … down to ``LEAST`` of them,
    pictures of a group together counting as one: which labels are wrong has no part in them.

    Args:
        answer: (N, M), the probabilities of a picture's labels; wrong: (N, M), bool; groups: (N,), numbers.
        share, risk: in (0, 1), of wrong labels, and of a promise that is false.
    """
    given = above(answer, numpy.ones_like(answer), groups, LIMITS)  # (G, L)
    excess = above(answer, wrong - share, groups, LIMITS)
    evidence = against(excess, (1 - share) * answer.shape[1])[::-1]  # from the strictest limit on
    reached = given.clip(max=1).sum(axis=0)[::-1] + ROUNDED
    starts = []
    number = len(given)
    while number >= LEAST:
        if reached[-1] >= number:
            starts.append(int((reached >= number).argmax()))
        number //= 2
    passed = evidence >= len(starts) / risk
    ends = [first_not(passed, start) - 1 for start in starts if passed[start]]
    return len(LIMITS) - 1 - max(ends) if ends else None


# ---- one label per picture ----


def promised_for(
    uncertainty: numpy.ndarray,
    wrong: numpy.ndarray,
    groups: numpy.ndarray,
    share: float,
    confidence: float,
) -> Point | None:
    """The point with the most answers of which at most a share is wrong on pictures like these, except with
    the probability ``risk_of``; None where there is none.

    Where each picture is a group of its own it is ``threshold.promised``; else all pictures count, one mean
    each group, and what is promised are pictures of other groups.

    Args:
        uncertainty: (N,) in [0, 1], out of fold; wrong: (N,) bool; groups: (N,), numbers.
        share, confidence: in (0, 1).
    """
    points = points_of(uncertainty, wrong)
    if len(numpy.unique(groups)) == len(groups):
        return promised(points, share, confidence)
    answer = 1 - uncertainty.astype(float)[:, None]
    place = lowest_limit(answer, wrong[:, None], groups, share, risk_of(share, confidence))
    if place is None:
        return None
    limit = 1 - float(LIMITS[place])
    accepted = uncertainty <= limit
    return Point(
        uncertainty=float(uncertainty[accepted].max()),
        limit=limit,
        answered=int(accepted.sum()),
        wrong=int(wrong[accepted].sum()),
    )


# ---- several labels per picture ----


def limits_of_labels(
    probability: numpy.ndarray,
    truth: numpy.ndarray,
    groups: numpy.ndarray,
    share: float,
    confidence: float,
) -> Rule | None:
    """A limit for each label, under which at most a share of the labels given is wrong, labels that can't be
    promised left out; None where none can be.

    Two ways are tested: with ``TOGETHER`` of the risk one limit for all labels, which share their evidence;
    with the rest a limit for each label, whose risks are equal parts of it (Bonferroni), so that a label that
    is often wrong spoils no other. Where each label keeps the promise, all together do. The way that gives
    more labels to these pictures is taken; both hold, whichever it is.

    Args:
        probability: (N, K), out of fold; truth: (N, K), bool; groups: (N,), numbers; share, confidence:
            in (0, 1).
    """
    labels = truth.shape[1]
    most = int(truth.sum(axis=1).max())
    risk = 1 - confidence
    top = numpy.argsort(-probability, axis=1, kind="stable")[:, :most]
    answer = numpy.take_along_axis(probability, top, axis=1)
    wrong = ~numpy.take_along_axis(truth, top, axis=1)
    place = lowest_limit(answer, wrong, groups, share, TOGETHER * risk)
    ways = []
    if place is not None:
        ways.append(Rule(numpy.full(labels, LIMITS[place]), most))
    each = (1 - TOGETHER) * risk / labels
    places = [
        lowest_limit(probability[:, [k]], ~truth[:, [k]], groups, share, each)
        for k in range(labels)
    ]
    if any(place is not None for place in places):
        limits = [NEVER if place is None else LIMITS[place] for place in places]
        ways.append(Rule(numpy.array(limits), labels))
    return max(ways, key=lambda way: int(way.given(probability).sum()), default=None)


@dataclass(frozen=True)
class Cost:
    """What labels (N, K) that are given are worth, on pictures whose labels are known.

    Attributes:
        given: labels of a picture, on average.
        wrong: share of the given labels that are wrong; found: share of the pictures' labels that are given.
    """

    given: float
    wrong: float
    found: float


def cost_of(given: numpy.ndarray, truth: numpy.ndarray) -> Cost:
    """The ``Cost`` of labels (N, K), bool, beside the true ones (N, K)."""
    right = int((given & truth).sum())
    return Cost(
        given=float(given.sum(axis=1).mean()),
        wrong=1 - right / max(1, int(given.sum())),
        found=right / max(1, int(truth.sum())),
    )


def says_cost(promise: Cost, best: Cost) -> str:
    """What a promise costs beside the labels that are best for F1, in a sentence; "" where it gives at most
    half more labels."""
    if promise.given <= 1.5 * best.given:
        return ""
    return (
        f"{promise.given:.1f} labels a picture, about {100 * promise.wrong:.0f} in 100 of them wrong (without the promise "
        f"{best.given:.1f}, {100 * best.wrong:.0f} in 100 of them wrong)"
    )


def says_share(promise: Cost, best: Cost) -> str:
    """How many labels a promise gives and finds, before and after, in a sentence."""
    return (
        f"Labels a picture: {best.given:.1f} before, {promise.given:.1f} with the promise; of the labels that pictures "
        f"have {100 * best.found:.0f} % are given before, {100 * promise.found:.0f} % with it"
    )
