"""Tip-Adapter: zero-shot CLIP plus a cache of the training images' features, in which those similar
to an image vote with their labels (Zhang et al., 2022, "Tip-Adapter: Training-free Adaption of CLIP
for Few-shot Classification", §3). Nothing is trained; in ``TipAdapterF`` the kept features are, by
cross-entropy. α and β are chosen on validation images. Ours: these fit a temperature, which leaves
every answer and makes its probability mean something.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ADDED, ClassPart, State
from .common.setting import Setting, above, at_least, node_of
from .learners.features import (
    CHOICES,
    FilledMethod,
    HeldOut,
    Numbers,
    SizedByState,
    most_likely,
    number_right,
)
from .method import Batches, Method, ParameterGroups, TrainingImages
from .registration import registered
from .settings import PRECISION

log = logging.getLogger(__name__)
BLOCK = 2**24  # pairs of images that are compared at once, 64 MiB
# values that are tried by likelihood
BETAS = [10 ** (power / 2) for power in range(-1, 4)]
ALPHAS = [10 ** (power / 2) for power in range(-2, 5)]


SETTINGS = {
    "INIT_BETA": Setting(1.0, "β, how sharply the cache tells images apart", at_least(0)),
    "INIT_ALPHA": Setting(1.17, "α, weight of the cache's logits", at_least(0)),
    "SEARCH_SCALE": Setting([7.0, 3.0], "β and α are searched for from 0.1 up to these", above(0)),
    "SEARCH_STEP": Setting([200, 20], "values of each", at_least(1, 10000)),
    "AUGMENT_EPOCH": Setting(
        10,
        "augmented views whose mean feature is kept of a training image; 0: the image as it is tested",
        at_least(0, 1000000),
    ),
    "CHOICE": Setting(
        "accuracy",
        "of settings: by right answers to validation images, as officially; or by likelihood, of "
        "training images in folds",
        CHOICES,
    ),
    **PRECISION,
}


def add_tipadapter_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.TIPADAPTER``, the official keys in capitals."""
    cfg.TRAINER.TIPADAPTER = node_of(SETTINGS)


def add_tipadapterf_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.TIPADAPTERF``, the same keys."""
    cfg.TRAINER.TIPADAPTERF = node_of(SETTINGS)


class FeatureCache(SizedByState):
    """The cache: N features of K classes, β, α and the temperature of the answers."""

    keys: Any  # a parameter; None for classes that were not trained, as are the labels
    labels: Any
    alpha: Tensor
    beta: Tensor
    temperature: Tensor
    sized = ("keys", "labels")

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        self.classes = len(method.classnames)
        # (N, E), filled before training
        self.keys = nn.Parameter(torch.zeros(0, method.backbone.embed_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))  # (N,)
        self.register_buffer("beta", torch.tensor(node.INIT_BETA))
        self.register_buffer("alpha", torch.tensor(node.INIT_ALPHA))
        self.register_buffer("temperature", torch.ones(()))

    def fill(self, keys: Tensor, labels: Tensor) -> None:
        self.keys.data = keys
        self.labels = labels

    @property
    def of_class(self) -> Tensor:
        """Which class each feature is of, (N, K)."""
        return F.one_hot(self.labels, self.classes).float()

    def forward(self, features: Tensor, zero_shot: Tensor) -> Tensor:
        """Zero-shot logits + α · votes; (B, E), (B, K) → (B, K)."""
        if self.keys is None:
            return zero_shot
        likeness = features @ self.keys.t()  # (B, N)
        return zero_shot + self.alpha * votes_by(likeness, self.of_class, self.beta)


def votes_by(likeness: Tensor, of_class: Tensor, beta: Tensor | float) -> Tensor:
    """Σ_i exp(−β (1 − cos_i)) over the features of each class, (B, K): cosines (B, N), and which class
    each of the N is of (N, K)."""
    return (beta * (likeness - 1)).exp() @ of_class


class TipAdapterMethod(FilledMethod):
    """Training-free: a recipe's single epoch only measures."""

    declared = SETTINGS
    learner: FeatureCache
    class_part = ClassPart(("keys", "labels"))
    whole_validation = True

    def build(self) -> FeatureCache:
        return FeatureCache(self)

    def drop_class_part(self) -> None:
        self.learner.keys = None
        self.learner.labels = None

    def state_for(self, state: State, classes: Sequence[int]) -> State | None:
        """The features of a class that is left out leave with it."""
        if ADDED in classes:
            return None
        labels = state["labels"]
        is_of_class = labels[:, None] == torch.tensor(classes, device=labels.device)  # (N, K)
        kept = is_of_class.any(dim=1)  # (N,)
        labels = is_of_class[kept].int().argmax(dim=1)
        return {**state, "keys": state["keys"][kept], "labels": labels}

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fills the cache."""
        self.fill(*self.views_of(training))

    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Takes β and α by validation images, see ``choose``; INIT_BETA and INIT_ALPHA without
        any."""
        if validation is None:
            return False
        self.choose(self.held_out(validation))
        return True

    def fill(self, features: Tensor, labels: Tensor) -> None:
        self.learner.fill(F.normalize(features.mean(dim=0), dim=-1), labels)

    @torch.no_grad()
    def under(self, features: Tensor) -> Callable[[Numbers], Tensor]:
        """See ``FilledMethod.under``; a setting is (β, α)."""
        zero_shot = self.zero_shot(features)
        keys = self.learner.keys
        of_class = self.learner.of_class
        blocks = features.split(max(1, BLOCK // max(1, len(keys))))
        kept = [features @ keys.t()] if len(blocks) == 1 else None  # (N_val, N)

        @lru_cache(maxsize=1)  # the α of one β come one after the other
        def votes(beta: float) -> Tensor:
            likeness = kept or (block @ keys.t() for block in blocks)
            return torch.cat([votes_by(part, of_class, beta) for part in likeness])

        return lambda setting: zero_shot + setting[1] * votes(setting[0])

    def best(self, held_out: Sequence[HeldOut]) -> Numbers:
        """The β and α with the highest accuracy, of equal ones the smaller, or the most likely ones."""
        node = self.settings
        if self.by_likelihood:
            usual = (max(node.INIT_BETA, BETAS[0]), max(node.INIT_ALPHA, ALPHAS[0]))  # may be 0
            return most_likely([*product(BETAS, ALPHAS)], usual, held_out)
        grids = zip(node.SEARCH_SCALE, node.SEARCH_STEP)
        betas, alphas = (
            torch.arange(steps) * (scale - 0.1) / steps + 0.1 for scale, steps in grids
        )
        settings = product(betas.tolist(), alphas.tolist())
        return max(settings, key=lambda setting: number_right(setting, held_out))

    def take(self, setting: Numbers) -> None:
        self.learner.beta.fill_(setting[0])
        self.learner.alpha.fill_(setting[1])

    def choose(self, held_out: Sequence[HeldOut]) -> Numbers:
        setting = super().choose(held_out)
        count = sum(len(part.labels) for part in held_out)
        log.info(
            f"β {setting[0]:.3f} and α {setting[1]:.3f}: {number_right(setting, held_out)} of {count} "
            "held-out images right"
        )
        return setting


class TipAdapterFMethod(TipAdapterMethod):
    """Tip-Adapter whose cached features are fine-tuned."""

    is_one_fit = False

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": [self.learner.keys], "eps": 1e-4}]  # AdamW's, as in the official code


TipAdapter = registered(TipAdapterMethod)


TipAdapterF = registered(TipAdapterFMethod)
