"""Which trainer serves a folder of pictures: candidates that need no training, compared by
cross-validation on the frozen CLIP's image features.

Every picture is encoded once. In each fold a candidate is fitted to the features of the other
folds' pictures, of which some choose its own settings, and answers those of the fold; so each
picture is answered once by a classifier that has not seen it.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .evaluation.doubts import wilson
from .method import Batches, Method, method_class
from .prompting.backbone import Backbone

CANDIDATES = ("ZeroshotCLIP", "GDA", "TipAdapter", "LinearProbe")  # the simplest first
FOLDS = 5
TIE = 2.0  # points of accuracy, see ``best``; chosen with tools/compare_candidates.py
VALIDATION = 5  # one in so many of the pictures that a fold is fitted to chooses settings


class Given(nn.Module):
    """An image tower whose images are their features already."""

    def forward(self, features: Tensor, *_: object) -> Tensor:
        return features


@dataclass(frozen=True)
class Candidate:
    """How a trainer does on pictures that it has not seen.

    Attributes:
        trainer: its name.
        answers: (N, K), probabilities for each picture by the fold that has not seen it.
        accuracy: in percent; low, high: its 95 % interval (Wilson's).
        seconds: of fitting and answering, without the encoding of the pictures.
    """

    trainer: str
    answers: Tensor
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
) -> list[Candidate]:
    """The candidates in their order.

    Args:
        features: (N, E), the CLIP's, of all pictures, on its device; labels: (N,).
        settings: a trainer's name → its config node.
        seed: of the division into folds.
    """
    truth = labels.cpu()
    fold = folds(truth, FOLDS, seed)
    compared = []
    for trainer in CANDIDATES:
        started = time.perf_counter()
        method = on_features(trainer, settings(trainer), classnames, backbone)
        answers = torch.zeros(len(labels), len(classnames))
        for held_out in range(FOLDS):
            shown = (fold != held_out).nonzero().flatten()
            asked = (fold == held_out).nonzero().flatten()
            fit_to(method, features[shown], labels[shown], seed)
            answers[asked] = answer(method, features[asked]).cpu()
        seconds = time.perf_counter() - started
        right = int((answers.argmax(dim=1) == truth).sum())
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


def on_features(
    trainer: str, settings: CfgNode, classnames: Sequence[str], backbone: Backbone
) -> Method:
    """A candidate for images whose features are known, in one view; see ``fit_to`` and ``answer``."""
    node = settings.clone()
    node.defrost()
    if "AUGMENT_EPOCH" in node:
        node.AUGMENT_EPOCH = 1
    given = Backbone(backbone.text, cast(Any, Given()), backbone.log_scale)
    return method_class(trainer)(node, classnames, given)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The first, and so the simplest, of those whose accuracy is at most ``TIE`` below the best."""
    most = max(candidate.accuracy for candidate in candidates)
    return next(candidate for candidate in candidates if candidate.accuracy >= most - TIE)


def fit_to(method: Method, features: Tensor, labels: Tensor, seed: int) -> None:
    """Fits a candidate to features (N, E) and labels (N,) as a run would, a part of them as
    validation images."""
    part = folds(labels.cpu(), VALIDATION, seed).to(labels.device)
    shown = features[part > 0], labels[part > 0]
    validation = features[part == 0], labels[part == 0]

    def images(most: int | None = None, augmented: bool = False) -> Batches:
        return [(shown[0][None], shown[1])]

    held = [(validation[0][None], validation[1])]
    method.start(images, held)
    method.complete(images, held)
    method.eval()


@torch.no_grad()
def answer(method: Method, features: Tensor) -> Tensor:
    """Probabilities (N, K) for features (N, E)."""
    return method.answer(features[None]).probability


def folds(labels: Tensor, number: int, seed: int) -> Tensor:
    """The fold (N,), from 0, of each picture: the pictures of a class go round the folds in a drawn
    order, each class starting where the one before has ended, so that folds are of equal size."""
    drawn = random.Random(seed).sample(range(len(labels)), len(labels))
    order = sorted(drawn, key=lambda index: int(labels[index]))
    fold = torch.empty(len(labels), dtype=torch.long)
    fold[torch.tensor(order)] = torch.arange(len(labels)) % number
    return fold
