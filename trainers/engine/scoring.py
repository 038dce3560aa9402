"""Arrays and metrics of answers to images: with one label per image, and with any number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy
from torch import Tensor

from ..common.fingerprints import image_name
from ..common.readers import Stored
from ..data.images import Images
from ..evaluation.figures import effective_number
from ..evaluation.multi_label import (
    best_thresholds,
    given_in,
    measure_multi_label,
    thresholds_of_folds,
)
from ..evaluation.prediction import Metrics, Prediction, measure, per_image
from ..method import Method

Arrays = dict[str, numpy.ndarray]
MOST_KEPT = 10**7  # probabilities of a split, 40 MB


class SplitAnswers(NamedTuple):
    """Answers to the N images of a split.

    Attributes:
        labels: (N,); paths: N.
        fold: (N,), from 0, without which each image was answered; None where none of them was trained on.
        is_near: (N,) bool, whether an image of another group is near; None where that isn't asked for.
    """

    answers: Prediction
    labels: Tensor
    paths: list[str]
    fold: Tensor | None = None
    is_near: numpy.ndarray | None = None


class Scoring(Protocol):
    """Makes the arrays and metrics of answers."""

    def arrays(self, answered: SplitAnswers) -> Arrays:
        """Return the kept arrays of all images, by name."""

    def metrics(self, answered: SplitAnswers) -> Metrics:
        """Return the measures of the answers."""


@dataclass(frozen=True)
class OneLabel:
    """Each image has one label.

    Attributes:
        images: of the run; method: whose answers these are.
    """

    images: Images
    method: Method

    def arrays(self, answered: SplitAnswers) -> Arrays:
        """Return the arrays of ``per_image``; where groups are known ``group`` and ``is_new`` (N,), too,
        by ``groups_of``, and ``probability`` (N, K) of up to ``MOST_KEPT`` numbers."""
        arrays = per_image(answered.answers, answered.labels, answered.paths)
        probability = answered.answers.probability
        if self.images.groups:
            arrays |= groups_of(self.images, self.method, answered)
            if probability.numel() <= MOST_KEPT:
                arrays["probability"] = probability.numpy()
        return arrays

    def metrics(self, answered: SplitAnswers) -> Metrics:
        """Return the metrics of ``measure``; where groups are known ``effective_images``, too, and ``neighbours``
        (``by_neighbours``)."""
        answers = answered.answers
        metrics = measure(answers, answered.labels, self.method.classnames)
        if self.images.groups:
            right = (answers.probability.argmax(dim=1) == answered.labels).numpy()
            groups = self.images.groups_of(answered.paths)
            metrics["effective_images"] = effective_number(right, groups)
            metrics |= by_neighbours(
                answered, "accuracy", lambda some: 100 * float(right[some].mean())
            )
        return metrics


@dataclass(frozen=True)
class MultiLabel:
    """Scores of images with any number of labels (``Images.truth``).

    Attributes:
        images: of the run; method: whose answers these are.
    """

    images: Images
    method: Method

    def arrays(self, answered: SplitAnswers) -> Arrays:
        """Return for N images and K labels ``image`` (N,), ``probability`` (N, K), ``truth`` (N, K),
        ``group`` (N,), ``is_new`` (N,), whether nothing of the image's group was trained on, ``fold`` (N,),
        from 0, and ``unfamiliar`` (N,) where it is known.

        ``threshold`` (F, K) are the least probabilities at which labels are given; out of fold, each fold
        has the best thresholds of the other folds.
        """
        paths = answered.paths
        probability = answered.answers.probability.numpy()
        truth = self.images.truth_of(paths)
        if answered.fold is None:
            fold = numpy.zeros(len(paths), dtype=int)
            thresholds = label_thresholds(self.method)[None]
        else:
            fold = answered.fold.numpy()
            thresholds = thresholds_of_folds(probability, truth, fold)
        unfamiliar = answered.answers.unfamiliar
        return {
            **({} if unfamiliar is None else {"unfamiliar": unfamiliar.numpy()}),
            "image": numpy.array([image_name(path) for path in paths]),
            "probability": probability,
            "truth": truth,
            **groups_of(self.images, self.method, answered),
            "fold": fold,
            "threshold": thresholds,
        }

    def metrics(self, answered: SplitAnswers) -> Metrics:
        """Return the metrics of ``measure_multi_label``; ``per_label`` has each one's ``threshold`` for later pictures.
        They have ``neighbours``, too (``by_neighbours``)."""
        names = self.method.classnames
        arrays = self.arrays(answered)
        truth = arrays["truth"]
        probability = arrays["probability"]
        given = given_in(arrays)

        def mean_precision(some: numpy.ndarray) -> Stored:
            return measure_multi_label(probability[some], given[some], truth[some], names)["map"]

        measured = measure_multi_label(probability, given, truth, names)
        measured |= by_neighbours(answered, "map", mean_precision)
        thresholds = label_thresholds(self.method)
        if self.method.learner is None:
            return without_given(measured)
        if answered.fold is not None:
            thresholds = best_thresholds(probability, truth)
        for name, threshold in zip(names, thresholds.tolist()):
            measured["per_label"][name]["threshold"] = threshold if threshold < numpy.inf else None
        return measured


def by_neighbours(
    answered: SplitAnswers, name: str, measure: Callable[[numpy.ndarray], Stored]
) -> Metrics:
    """Return under ``neighbours`` the number and the measure of the images ``near`` an image of another group, and of
    the images ``far`` from all of these; nothing unless it is known which are which and there are both.

    Args:
        name: of the measure, which is taken of the images of a mask (N,), in percent.
    """
    if answered.is_near is None or answered.is_near.all() or not answered.is_near.any():
        return {}
    made = {}
    for kind, some in (("near", answered.is_near), ("far", ~answered.is_near)):
        made[kind] = {"images": int(some.sum()), name: measure(some)}
    return {"neighbours": made}


def groups_of(images: Images, method: Method, answered: SplitAnswers) -> Arrays:
    """Return the ``group`` (N,) of each image, a number, and whether nothing of it was trained on, ``is_new``
    (N,)."""
    # a method that learns nothing has seen no image
    is_unseen = answered.fold is not None or method.learner is None
    seen = images.seen_groups(is_unseen)
    groups = images.groups_of(answered.paths)
    return {
        "group": groups,
        "is_new": numpy.array([group not in seen for group in groups.tolist()]),
    }


def label_thresholds(method: Method) -> numpy.ndarray:
    """Return the least probability (K,) from which a multi-label method gives each label; infinite where it
    learned nothing."""
    if method.learner is None:
        return numpy.full(len(method.classnames), numpy.inf)
    return method.learner.get_buffer("thresholds").cpu().numpy()


def without_given(measured: Metrics) -> Metrics:
    """Return measures of ranks alone, where no label is given."""
    ranks = {name: value for name, value in measured.items() if not name.endswith("f1")}
    for own in ranks["per_label"].values():
        del own["f1"]
    return ranks


def scoring_of(images: Images, method: Method) -> Scoring:
    """Return the scoring for a run's images."""
    return MultiLabel(images, method) if images.truth else OneLabel(images, method)
