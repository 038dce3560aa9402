"""Whether labelled pictures come as the training pictures came: one exact test of how many are unfamiliar,
and one of how many answers are too uncertain. Pure functions on counts.

Where pictures come as the training pictures came, a false line is said in at most 1 of 100 labellings:
each test has half of that. Both tests are of independent pictures: a burst of one scene counts as many.

References:
    - Bates, Candès, Lei, Romano and Sesia (2023), "Testing for Outliers with Conformal p-values", §2: the
      number of small conformal p-values varies more than a binomial one, since all have the same
      training pictures.
    - Fisher (1935), "The Design of Experiments": the exact test of two shares.
"""

import math
from dataclasses import dataclass

import numpy

from trainers.common.console import counted

from .familiar import UNFAMILIAR

LEAST = 30  # pictures, below which nothing is tested
FALSE_ALARM = 0.005  # of each of two tests


@dataclass(frozen=True)
class Shift:
    """How many pictures are odd in one way, of those that were labelled.

    Attributes:
        found, asked: how many are odd, and of how many.
        expected: how many are to be expected.
        p_value: the probability of so many or more, if pictures come as the training pictures came.
    """

    found: int
    asked: int
    expected: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        return self.asked >= LEAST and self.p_value <= FALSE_ALARM


def unfamiliar(p_values: numpy.ndarray, groups: int) -> Shift:
    """How many pictures are unlike the run's.

    The number of n new pictures that are as far as the k farthest of G training groups has the
    beta-binomial distribution with k and G + 1 − k: the k-th largest of G + 1 independent draws leaves a
    share beyond it that is Beta(k, G + 1 − k).

    Args:
        p_values: (L,), see ``Familiar.p_values``; groups: G, of the training pictures.
    """
    from scipy.stats import betabinom  # here, since it takes a second to import

    asked = len(p_values)
    found = int((p_values <= UNFAMILIAR).sum())
    farthest = math.floor(UNFAMILIAR * (groups + 1))
    if not farthest:  # so few groups find nothing unfamiliar
        return Shift(found, asked, 0.0, 1.0)
    chance = betabinom.sf(found - 1, asked, farthest, groups + 1 - farthest)
    return Shift(found, asked, UNFAMILIAR * asked, float(chance))


def too_uncertain(
    rejected: int, asked: int, known_rejected: numpy.ndarray, groups: numpy.ndarray
) -> Shift:
    """How many answers are beyond the limit of a promise.

    Args:
        rejected, asked: answers beyond the limit, and all.
        known_rejected: (N,) bool, the same of the answers out of fold that the limit was chosen on;
            groups: (N,), numbers, which count once.
    """
    from scipy.stats import hypergeom  # here, since it takes a second to import

    _, group = numpy.unique(groups, return_inverse=True)
    share = numpy.bincount(group, known_rejected) / numpy.bincount(group)  # (G,)
    known = len(share)
    beyond = round(float(share.sum()))
    chance = hypergeom.sf(rejected - 1, known + asked, beyond + rejected, asked)
    return Shift(rejected, asked, asked * float(share.mean()), float(chance))


def lines(unlike: Shift, uncertain: Shift | None) -> list[str]:
    """What is said after a labelling, in sentences; none where nothing is shown.

    uncertain: None where nothing is promised.
    """
    said = []
    if unlike.is_shown:
        said.append(
            f"{unlike.found} of {counted(unlike.asked, 'picture')} are unlike the run's ({round(unlike.expected)} in "
            f"{unlike.asked} are to be expected): the promise does not hold for them"
        )
    if uncertain is not None and uncertain.is_shown:
        said.append(
            f"{uncertain.found} of {counted(uncertain.asked, 'answer')} are too uncertain ({round(uncertain.expected)} in "
            f"{uncertain.asked} are to be expected): these pictures do not come as the run's came, and the promise may "
            "not hold"
        )
    return said
