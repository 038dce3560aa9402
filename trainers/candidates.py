"""Which trainer serves a folder of pictures: candidates that need no training, compared by
cross-validation on the frozen CLIP's image features.

Every picture is encoded once. In each fold a candidate is fitted to the features of the other
folds' pictures and answers those of the fold, so each picture is answered once by a classifier that
has not seen it. Of few pictures a run is tested in the same way, see ``cross_fit``.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .evaluation.doubts import wilson
from .evaluation.prediction import Prediction
from .features import FilledMethod, HeldOut
from .method import Method, method_class
from .prompting.backbone import Backbone

CANDIDATES = ("ZeroshotCLIP", "GDA", "TipAdapter", "LinearProbe")  # the simplest first
FOLDS = 5
FEW = (
    100  # below so many pictures each of the folds within a fold chooses settings, else one of them
)
TIE = 2.0  # points of accuracy, see ``best``; chosen with tools/compare_candidates.py


class Given(nn.Module):
    """An image tower whose images are their features already."""

    takes_prompts = False
    computes_in_half = True

    def forward(self, features: Tensor, *_: object) -> Tensor:
        return features


@dataclass(frozen=True)
class Known:
    """Pictures whose features are known, of any length.

    Attributes:
        views: (R, N, E), what a method is filled with, see ``FilledMethod.views_of``.
        shown: (N, E), the pictures as they are tested; labels: (N,).
        groups: (N,), a number for each group of pictures that look alike; None: each is alone.
    """

    views: Tensor
    shown: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def part(self, chosen: Tensor) -> "Known":
        """Some of the pictures; chosen: (n,) indices, or (N,) bool."""
        groups = None if self.groups is None else self.groups[chosen.cpu()]
        return Known(self.views[:, chosen], self.shown[chosen], self.labels[chosen], groups)


@dataclass(frozen=True)
class Candidate:
    """How a trainer does on pictures that it has not seen.

    Attributes:
        trainer: its name.
        answers: to each picture by the fold that has not seen it.
        accuracy: in percent; low, high: its 95 % interval (Wilson's).
        seconds: of fitting and answering, without the encoding of the pictures.
    """

    trainer: str
    answers: Prediction
    accuracy: float
    low: float
    high: float
    seconds: float


def compare(
    backbone: Backbone,
    classnames: Sequence[str],
    features: Tensor,
    labels: Tensor,
    settings: Callable[[str], CfgNode],
    seed: int = 1,
    groups: Tensor | None = None,
) -> list[Candidate]:
    """The candidates in their order.

    Args:
        features: (N, E), the CLIP's, of all pictures, on its device; labels: (N,).
        settings: a trainer's name → its config node.
        seed: of the division into folds; groups: see ``Known``.
    """
    truth = labels.cpu()
    known = Known(features[None], features, labels, groups)
    compared = []
    for trainer in CANDIDATES:
        started = time.perf_counter()
        method = on_features(trainer, settings(trainer), classnames, backbone)
        answers = cross_fit(method, known, seed)
        seconds = time.perf_counter() - started
        right = int((answers.probability.argmax(dim=1) == truth).sum())
        low, high = wilson(right, len(labels))
        compared.append(
            Candidate(
                trainer,
                answers,
                100 * right / len(labels),
                100 * low,
                100 * high,
                seconds,
            )
        )
    return compared


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The first, and so the simplest, of those whose accuracy is at most ``TIE`` below the best."""
    most = max(candidate.accuracy for candidate in candidates)
    return next(candidate for candidate in candidates if candidate.accuracy >= most - TIE)


def on_features(
    trainer: str, settings: CfgNode, classnames: Sequence[str], backbone: Backbone
) -> Method:
    """A candidate for pictures whose features are known; see ``fit_to`` and ``answer``."""
    return method_class(trainer)(settings, classnames, with_features(backbone))


def on_known_features(method: FilledMethod) -> FilledMethod:
    """The same method for pictures whose features are known; it is to be fitted."""
    return type(method)(
        method.settings,
        method.classnames,
        with_features(method.backbone),
        method.dataset,
        method.describe,
        method.path,
        method,
    )


def with_features(backbone: Backbone) -> Backbone:
    """The same CLIP for images that are their features already."""
    bias = backbone.logit_bias
    return Backbone(backbone.text, cast(Any, Given()), backbone.log_scale, logit_bias=bias)


def cross_fit(method: Method, known: Known, seed: int) -> Prediction:
    """The answers to known pictures, each by the method as it was fitted without its fold.

    Args:
        method: see ``on_features``; seed: of the division into folds.
    """
    fold = folds(known.labels.cpu(), FOLDS, seed, known.groups)
    parts = []
    places = []
    for held_out in fold.unique():
        fit_to(method, known.part(fold != held_out), seed)
        asked = (fold == held_out).nonzero().flatten()
        parts.append(answer(method, known.shown[asked]))
        places.append(asked)
    return Prediction.concatenate(parts).part(torch.cat(places).argsort())


def fit_to(method: Method, known: Known, seed: int) -> None:
    """Fits a candidate to all known pictures, under the settings that are best for pictures which it
    was not filled with."""
    method.eval()
    if not method.learns:
        return
    assert isinstance(method, FilledMethod)
    inner = folds(known.labels.cpu(), FOLDS, seed, known.groups)
    held_out: list[HeldOut] = []
    for fold in inner.unique() if len(inner) < FEW else inner.unique()[:1]:
        rest = known.part(inner != fold)
        method.fill(rest.views, rest.labels)
        asked = known.part(inner == fold)
        held_out += method.held_out([(asked.shown[None], asked.labels)])
    method.choose(held_out)
    method.fill(known.views, known.labels)


def fit_as_run(method: Method, training: Known, validation: Known) -> None:
    """Fits a candidate as a run does whose validation images are none of those that it is filled
    with."""
    method.eval()
    if method.learns:
        assert isinstance(method, FilledMethod)
        method.fill(training.views, training.labels)
        method.choose(method.held_out([(validation.shown[None], validation.labels)]))
        method.fill(training.views, training.labels)


@torch.no_grad()
def answer(method: Method, features: Tensor) -> Prediction:
    """The answers to features (N, E), on the CPU."""
    return method.answer(features[None]).cpu()


def folds(labels: Tensor, number: int, seed: int, groups: Tensor | None = None) -> Tensor:
    """The fold (N,), from 0, of each picture: the pictures of a class go round the folds in a drawn
    order, each class starting where the one before has ended, so that folds are of equal size.

    Args:
        labels: (N,); groups: (N,), a number for each group, which goes into a fold as a whole, the
            largest first, where the class and then the fold have fewest; a class of one group is
            divided as if each picture were alone.
    """
    drawn = random.Random(seed).sample(range(len(labels)), len(labels))
    order = sorted(drawn, key=lambda index: int(labels[index]))
    fold = torch.empty(len(labels), dtype=torch.long)
    if groups is None or len(groups.unique()) == len(groups):
        fold[torch.tensor(order)] = torch.arange(len(labels)) % number
        return fold
    in_fold = [0] * number
    for label in labels.unique().tolist():
        own = [index for index in order if labels[index] == label]
        members: dict[int, list[int]] = defaultdict(list)
        for index in own:
            members[int(groups[index])].append(index)
        several = [*members.values()] if len(members) > 1 else [[index] for index in own]
        of_class = [0] * number
        for group in sorted(several, key=len, reverse=True):
            counts = [*zip(of_class, in_fold)]
            place = counts.index(min(counts))
            fold[group] = place
            of_class[place] += len(group)
            in_fold[place] += len(group)
    return fold
