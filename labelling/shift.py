"""Whether labelled pictures come as the run's own came: a test of how many are unlike these, and one of how
certain the answers are.

Where they do, a line is said in at most 1 of 100 labellings: each test has half of that. Both are of
independent pictures, so that a burst of one scene counts as many.

References:
    - Bates, Candès, Lei, Romano and Sesia (2023), "Testing for Outliers with Conformal p-values", §2: the
      number of small conformal p-values varies more than a binomial one, since all have the same
      training pictures.
    - Mann and Whitney (1947), "On a Test of Whether one of Two Random Variables is Stochastically Larger
      than the Other".
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from trainers.common.console import counted
from trainers.common.errors import raise_machines
from trainers.common.record_file import read_answers

from .familiar import UNFAMILIAR
from .threshold import split_of

if TYPE_CHECKING:
    from .classifier import PromptedClassifier

FEWEST_PICTURES = 30  # pictures, below which nothing is tested
FALSE_ALARM = 0.005  # of each of two tests


@dataclass(frozen=True)
class Shift:
    """The number of N pictures that are odd in one way.

    Attributes:
        found, asked: how many are odd, and N.
        expected: how many are to be expected.
        p_value: the probability of so many or more, if pictures come as the run's own came.
    """

    found: int
    asked: int
    expected: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        """Whether there are pictures enough, and too many of them are odd."""
        return self.asked >= FEWEST_PICTURES and self.p_value <= FALSE_ALARM


def unfamiliar(p_values: numpy.ndarray, groups: int) -> Shift:
    """Return how many pictures are unlike the run's.

    The number of n new pictures that are as far as the k farthest of G training groups has the
    beta-binomial distribution with k and G + 1 − k: the k-th largest of G + 1 independent draws leaves a
    share beyond it that is Beta(k, G + 1 − k).

    Args:
        p_values: (N,), of ``Familiar.p_values``; groups: G, of the training pictures.
    """
    from scipy.stats import betabinom  # here, since it takes a second to import

    asked = len(p_values)
    found = int((p_values <= UNFAMILIAR).sum())
    farthest = math.floor(UNFAMILIAR * (groups + 1))
    if not farthest:  # so few groups find nothing unfamiliar
        return Shift(found, asked, 0.0, 1.0)
    chance = betabinom.sf(found - 1, asked, farthest, groups + 1 - farthest)
    return Shift(found, asked, UNFAMILIAR * asked, float(chance))


def less_certain(uncertainty: numpy.ndarray, own: numpy.ndarray) -> Shift:
    """Return how many answers are less certain than the median of the run's own, with the probability of
    their ranks among these (one-sided).

    Args:
        uncertainty: (N,), of the answers; own: (G,), of the run's own pictures, of which each is independent
            and was answered by what had not seen it.
    """
    asked = len(uncertainty)
    if not asked or not len(own):
        return Shift(0, asked, 0.0, 1.0)
    from scipy.stats import mannwhitneyu  # here, since it takes a second to import

    found = int((uncertainty > numpy.median(own)).sum())
    chance = mannwhitneyu(uncertainty, own, alternative="greater").pvalue
    return Shift(found, asked, asked / 2, float(chance))


def lines(unlike: Shift | None, uncertain: Shift | None) -> list[str]:
    """Return the sentences after a labelling; none where no shift is shown.

    Args:
        unlike, uncertain: of the two tests; None where the run has kept nothing to compare with.
    """
    said = []
    if unlike is not None and unlike.is_shown:
        said.append(
            f"{unlike.found} of {counted(unlike.asked, 'picture')} are unlike the run's ({round(unlike.expected)} in "
            f"{unlike.asked} are to be expected): no promise holds for them. Look at the pictures with the smallest "
            "`unfamiliar`, and train on some of their kind"
        )
    if uncertain is not None and uncertain.is_shown:
        said.append(
            f"{uncertain.found} of {counted(uncertain.asked, 'answer')} are less certain than the run's median "
            f"({round(uncertain.expected)} in {uncertain.asked} are to be expected): the pictures do not come as the run's "
            "came, and its promise may not hold. Check a sample of the labels (--least-certain-first)"
        )
    return said


def lines_after(
    classifier: "PromptedClassifier",
    folder: str,
    uncertainty: numpy.ndarray,
    p_values: numpy.ndarray | None,
) -> list[str]:
    """Return the ``lines`` after a classifier has labelled N pictures.

    Args:
        folder: of the classifier's run; uncertainty: (N,), of the answers; p_values: (N,), how unfamiliar the
            pictures are; None where nothing says it.
    """
    unlike = None
    if p_values is not None and classifier.familiar is not None:
        unlike = unfamiliar(p_values, classifier.familiar.groups)
    uncertain = None
    own = own_uncertainty(classifier, folder)
    if own is not None:
        uncertain = less_certain(uncertainty, own)
    return lines(unlike, uncertain)


def own_uncertainty(classifier: "PromptedClassifier", folder: str) -> numpy.ndarray | None:
    """Return how uncertain a run's answers to its own pictures are, (G,), one of each group, by what had not
    seen it; None where it has kept none that can be read, or other classes are asked for."""
    import torch  # here, since both take seconds

    from trainers.data.images import are_new
    from trainers.evaluation.prediction import Prediction

    record = classifier.record
    if sorted(classifier.classnames) != sorted(record["classnames"]):
        return None
    try:
        kept = read_answers(folder, split_of(record), record)
    except Exception as error:  # it has none, or damaged bytes, which can raise anything
        raise_machines(error, folder)
        return None
    group = kept.get("group")  # the field's data sets know of none
    is_one = numpy.ones(len(kept["image"]), bool)
    if group is not None:
        is_one = kept["is_new"] & are_new(group.tolist(), ())
    if not classifier.task.multi_label:
        uncertainty: numpy.ndarray = kept["max_probability"][is_one]
        return uncertainty
    shown = Prediction(torch.from_numpy(kept["probability"][is_one]))
    return classifier.answers(shown, [None] * int(is_one.sum())).uncertainty
