"""Choice of pictures that a person should look at: pictures whose given label is probably wrong, and those to
label next. Pure functions on the answers to images that nothing was trained on.

Wrong labels are found by a likelihood. A classifier's answers come from labels some of which are wrong, and
a temperature that has seen them takes the wrong ones for uncertainty. So the temperature T and the share ε of
wrong labels are fitted together, to answers q ∝ p^(1/T) out of fold: a label is right with the probability
1 − ε, and else any of the other classes. The probability that a given label y is wrong is then

    ε (1 − q_y) / (K − 1)  /  ((1 − ε) q_y + ε (1 − q_y) / (K − 1)),

and its mean over a list is the share of wrong labels that the list should have. It does not depend on a
temperature that the answers have had before. Where a share of 0 explains the labels about as well, few are
listed. Of multi-label pictures each label is a question of two answers, right or wrong by itself, and the
pictures with any wrong label are listed; none where a share of 0 explains the labels. It finds as many wrong
labels as confident learning (Northcutt, Jiang and Chuang, 2021) does, and lists far less where all are right
(docs/uncertainty.md).

References:
    - Lawrence and Schölkopf (2001), "Estimating a Kernel Fisher Discriminant in the Presence of Label
      Noise", §2: the likelihood.
    - Bootkrajang and Kabán (2012), "Label-Noise Robust Logistic Regression and Its Applications".
    - Northcutt, Athalye and Mueller (2021), "Pervasive Label Errors in Test Sets Destabilize Machine
      Learning Benchmarks": 0.15 to 10 % of labels are wrong in ten data sets, 3.3 % on average.
    - Self and Liang (1987), "Asymptotic Properties of Maximum Likelihood Estimators and Likelihood Ratio
      Tests under Nonstandard Conditions": the test of a share of 0.
"""

import math
from dataclasses import dataclass

import numpy

from trainers.common.console import counted
from trainers.maths.threads import one_thread

USUAL_SHARE = 0.033  # share of wrong labels, around which its logarithm is normal a priori
SPREAD = math.log(3)  # its standard deviation: a factor of three
# what is listed was chosen with seeds 1 to 5 of experiments/wrong_labels.py
LIKELY_WRONG = 0.05  # probability of a wrong label, down to which labels are listed
LISTED_PICTURE = 0.1  # likewise, of any label of a multi-label picture
FALSE_LISTS = 0.02  # of folders without wrong labels, at most, where one is taken for shown
FALSE_MULTI_LABEL_LISTS = 0.05  # likewise of multi-label folders, where none is listed elsewhere
LISTED_UNSHOWN = 0.05  # of the single-label pictures, at most, listed where no wrong label is shown
LOG_TEMPERATURES = (-4.0, 4.0)
STARTS = (-1.0, 0.0)  # of the logarithm of the temperature
VANISHING = 1e-30  # a probability in fp32 that counts as none


@dataclass(frozen=True)
class WrongLabels:
    """The pictures among N that probably have a wrong label.

    Attributes:
        probability: (N,), that the label, or any of a multi-label picture, is wrong.
        listed: indices of those to look at, the most probably wrong first.
        is_shown: whether the labels show that any is wrong.
        is_multi_label: whether a picture may have several labels.
    """

    probability: numpy.ndarray
    listed: numpy.ndarray
    is_shown: bool
    is_multi_label: bool = False

    @property
    def precision(self) -> float:
        """The share of wrong labels to be expected among those that are listed; 0 where none are."""
        return float(self.probability[self.listed].mean()) if len(self.listed) else 0.0

    def says(self) -> str:
        """Say how many are listed, and how many of them are to be expected wrong."""
        if not len(self.listed):
            return "Nothing shows that any label is wrong"
        number = counted(len(self.listed), "picture" if self.is_multi_label else "label")
        if not self.is_shown:
            return f"Nothing shows that any label is wrong; here are the likeliest: {number}"
        share = f"about {100 * self.precision:.0f} in 100 of which"
        fault = "have a wrong label" if self.is_multi_label else "are wrong"
        return f"{number}, {share} {fault}"


@dataclass(frozen=True)
class Noisy:
    """The likelihood of N given labels, some of which are wrong.

    Attributes:
        answers: (N, C), logarithms of probabilities; copies: (C,), how many classes each column stands for.
        own: (N,), the column of the given label.
    """

    answers: numpy.ndarray
    copies: numpy.ndarray
    own: numpy.ndarray

    def parts(self, log_temperature: float, share: float) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The probability (N,) that a label is right and given, and that it is wrong and given."""
        scaled = self.answers / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        weight = numpy.exp(scaled)  # (N, C)
        rows = numpy.arange(len(weight))
        right = weight[rows, self.own] / (weight @ self.copies)
        return (1 - share) * right, share * (1 - right) / (self.copies.sum() - 1)

    def loss(self, log_temperature: float, log_share: float = -math.inf) -> float:
        """Minus the logarithm of the likelihood of all labels; that of the share's prior is not in it."""
        right, wrong = self.parts(log_temperature, math.exp(log_share))
        return -float(numpy.log((right + wrong).clip(VANISHING)).sum())

    @one_thread()
    def fit(self) -> tuple[numpy.ndarray, float]:
        """The probability (N,) that each label is wrong, and that of so much evidence where none is."""
        from scipy.optimize import minimize, minimize_scalar  # here: they take a second to import

        def penalised(parameters: numpy.ndarray) -> float:
            log_temperature, log_share = parameters.tolist()
            away: float = (log_share - math.log(USUAL_SHARE)) / SPREAD
            return self.loss(log_temperature, log_share) + away**2 / 2

        bounds = [LOG_TEMPERATURES, (math.log(1e-5), math.log(0.5))]
        found = [
            minimize(penalised, (start, math.log(USUAL_SHARE)), method="L-BFGS-B", bounds=bounds)
            for start in STARTS
        ]
        best = min(found, key=lambda one: float(one.fun))
        none = minimize_scalar(self.loss, bounds=LOG_TEMPERATURES, method="bounded")
        right, wrong = self.parts(best.x[0], math.exp(best.x[1]))
        chance = chance_of(float(none.fun) - self.loss(*best.x))
        return wrong / (right + wrong).clip(VANISHING), chance


def chance_of(gain: float) -> float:
    """The probability of such a gain in the logarithm of the likelihood, or a larger one, if no label is
    wrong: half of that of a χ² with one degree of freedom, since a share of 0 is an end of its range."""
    return math.erfc(math.sqrt(max(gain, 0.0))) / 2


def wrong_labels(probability: numpy.ndarray, label: numpy.ndarray) -> WrongLabels:
    """Find the probably wrong labels (N,), by probabilities (N, K) out of fold."""
    noisy = Noisy(logarithms(probability), numpy.ones(probability.shape[1]), label)
    return likeliest_labels(*noisy.fit())


def wrong_multi_labels(probability: numpy.ndarray, truth: numpy.ndarray) -> WrongLabels:
    """Find the multi-label pictures that probably have a wrong label, given or missing: labels are as if independent.

    Args:
        probability: (N, K), of each label, out of fold; truth: (N, K), bool.
    """
    of_label = probability.ravel()
    both = numpy.stack([1 - of_label, of_label], axis=1)  # (N · K, 2)
    own = truth.ravel().astype(int)
    of_cell, chance = Noisy(logarithms(both), numpy.ones(2), own).fit()
    wrong = 1 - (1 - of_cell).reshape(truth.shape).prod(axis=1)
    is_shown = chance <= FALSE_MULTI_LABEL_LISTS
    listed = down_to(LISTED_PICTURE, wrong) if is_shown else numpy.array([], int)
    return WrongLabels(wrong, listed, is_shown, is_multi_label=True)


def probably_wrong(
    label: numpy.ndarray, top: numpy.ndarray, top_probability: numpy.ndarray
) -> WrongLabels:
    """Find the probably wrong labels, where only the most probable classes are kept: the others share what
    is left.

    Args:
        label: (N,) given labels; top, top_probability: (N, T) the most probable classes, downwards.
    """
    kept = top.shape[1]
    others = max(int(label.max()), int(top.max())) + 1 - kept
    is_own = top == label[:, None]
    own = numpy.where(is_own.any(axis=1), is_own.argmax(axis=1), kept)
    columns = top_probability
    copies = numpy.ones(kept)
    if others:
        left = (1 - top_probability.sum(axis=1, dtype=float)).clip(0) / others
        least = top_probability[:, -1].astype(float)
        columns = numpy.column_stack([top_probability, numpy.minimum(left, least)])
        copies = numpy.append(copies, others)
    return likeliest_labels(*Noisy(logarithms(columns), copies, own).fit())


def likeliest_labels(probability: numpy.ndarray, chance: float) -> WrongLabels:
    """Return the listed pictures by probabilities (N,) to be wrong; few where no wrong label is shown.

    Args:
        chance: the probability of so much evidence where no label is wrong.
    """
    is_shown = chance <= FALSE_LISTS
    listed = down_to(LIKELY_WRONG, probability)
    if not is_shown:
        listed = listed[: math.floor(LISTED_UNSHOWN * len(probability))]
    return WrongLabels(probability, listed, is_shown)


def down_to(least: float, probability: numpy.ndarray) -> numpy.ndarray:
    """Return the indices of probabilities (N,) of at least ``least``, downwards."""
    order = numpy.argsort(-probability, kind="stable")
    return order[probability[order] >= least]


def logarithms(probability: numpy.ndarray) -> numpy.ndarray:
    found: numpy.ndarray = numpy.log(probability.astype(float).clip(VANISHING))
    return found


def least_certain(uncertainty: numpy.ndarray) -> numpy.ndarray:
    """All images, those to label next first: indices by falling uncertainty (N,); equally uncertain
    images keep their order.

    References:
        Lewis and Gale (1994), "A Sequential Algorithm for Training Text Classifiers": uncertainty
        sampling.
    """
    order: numpy.ndarray = numpy.argsort(-uncertainty, kind="stable")
    return order
