"""Whether labelled pictures come as the run's own came: a test of how many are unlike these, and one of how
certain and how familiar they are, taken together.

Where they do, a line is said in at most 1 of 100 labellings: each test has half of that. Both are of
independent pictures, so that a burst of one scene counts as many.

References:
    - Bates, Candès, Lei, Romano and Sesia (2023), "Testing for Outliers with Conformal p-values", §2: the
      number of small conformal p-values varies more than a binomial one, since all have the same
      training pictures.
    - Mann and Whitney (1947), "On a Test of Whether one of Two Random Variables is Stochastically Larger
      than the Other".
    - O'Brien (1984), "Procedures for Comparing Samples with Multiple Endpoints": the sum of a picture's ranks
      in several measures.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from trainers.common.console import counted
from trainers.common.errors import raise_machines
from trainers.common.record_file import UNFAMILIAR, read_answers

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

    Of n new pictures, the number that are farther than the k-th farthest of G training groups is
    beta-binomial with k and G + 1 − k: the share of draws beyond the k-th largest of G independent ones
    is Beta(k, G + 1 − k).

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


def higher_ranked(measures: numpy.ndarray, own: numpy.ndarray) -> Shift:
    """Return how many answers are above the median of the run's own, with the probability of their ranks
    among these (one-sided). An answer's place is the sum of its ranks among all by each measure, which
    pictures that come as the run's own came share in any order.

    Args:
        measures: (N, S), of the answers; own: (G, S), of the run's own pictures, of which each is independent
            and was answered by what had not seen it.
    """
    asked = len(measures)
    if not asked or not len(own):
        return Shift(0, asked, 0.0, 1.0)
    from scipy.stats import mannwhitneyu, rankdata  # here, since it takes a second to import

    place = rankdata(numpy.concatenate([own, measures]), axis=0).sum(axis=1)  # (G + N,)
    own_place = place[: len(own)]
    new_place = place[len(own) :]
    found = int((new_place > numpy.median(own_place)).sum())
    chance = mannwhitneyu(new_place, own_place, alternative="greater").pvalue
    return Shift(found, asked, asked / 2, float(chance))


def lines(unlike: Shift | None, higher: Shift | None, measures: str) -> list[str]:
    """Return the sentences after a labelling; none where no shift is shown.

    Args:
        unlike, higher: of the two tests; None where the run has kept nothing to compare with.
        measures: that ``higher`` compares, in words.
    """
    said = []
    if unlike is not None and unlike.is_shown:
        said.append(
            f"{unlike.found} of {counted(unlike.asked, 'picture')} are unlike the run's ({round(unlike.expected)} in "
            f"{unlike.asked} are to be expected): no promise holds for them. Look at the pictures with the smallest "
            "`unfamiliar`, and train on some of their kind"
        )
    if higher is not None and higher.is_shown:
        said.append(
            f"{higher.found} of {counted(higher.asked, 'answer')} are {measures} than the run's median "
            f"({round(higher.expected)} in {higher.asked} are to be expected): the pictures do not come as the run's "
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
    own = own_measures(classifier, folder)
    if own is None:
        return lines(unlike, None, "")
    measures = uncertainty[:, None]
    words = "less certain"
    if p_values is not None and own.shape[1] > 1:
        measures = numpy.column_stack([uncertainty, -p_values])
        words = "less certain and less familiar, taken together,"
    return lines(unlike, higher_ranked(measures, own[:, : measures.shape[1]]), words)


def own_measures(classifier: "PromptedClassifier", folder: str) -> numpy.ndarray | None:
    """Return how uncertain a run's answers to its own pictures are and, where it has kept p-values of them,
    minus these, (G, 1 or 2), of one picture of each group, by what had not seen it; None where it has kept
    no answers that can be read, or other classes are asked for."""
    import torch  # here, since both take seconds

    from trainers.data.images import one_of_each
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
        is_one = kept["is_new"] & one_of_each(group.tolist())
    if classifier.task.multi_label:
        shown = Prediction(torch.from_numpy(kept["probability"][is_one]))
        uncertainty = classifier.answers(shown, [None] * int(is_one.sum())).uncertainty
    else:
        uncertainty = kept["max_probability"][is_one]
    columns = [uncertainty]
    if "unfamiliar" in kept:
        columns.append(-kept["unfamiliar"][is_one])
    return numpy.column_stack(columns)
