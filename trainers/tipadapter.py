"""Tip-Adapter: zero-shot CLIP plus a cache of the training images' features, where the features similar
to an image vote with their labels (Zhang et al., 2022, "Tip-Adapter: Training-free Adaption of CLIP
for Few-shot Classification", §3). Nothing is trained; in ``TipAdapterF`` the kept features are, by
cross-entropy. α and β are chosen on validation images. Ours: these fit a temperature, which leaves
every answer and makes its probability mean something.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ADDED, ClassPart, State
from .common.setting import Setting, at_least, larger_than, node_of
from .learners.features import (
    FeatureMethod,
    Grid,
    Numbers,
    SizedByState,
    best_temperature,
    number_right,
)
from .method import Batches, Method, ParameterGroups, TrainingImages
from .registration import registered
from .settings import PRECISION

log = logging.getLogger(__name__)
PAIRS_AT_ONCE = 2**24  # pairs of images that are compared at once, 64 MiB
# values of the ``grid``
BETAS = [10 ** (power / 2) for power in range(-1, 4)]
TIP_ALPHAS = [10 ** (power / 2) for power in range(-2, 5)]


SETTINGS = {
    "INIT_BETA": Setting(1.0, "β, how sharply the cache tells images apart", at_least(0)),
    "INIT_ALPHA": Setting(1.17, "α, weight of the cache's logits", at_least(0)),
    "SEARCH_SCALE": Setting(
        [7.0, 3.0], "β and α are searched for from 0.1 up to these", larger_than(0)
    ),
    "SEARCH_STEP": Setting([200, 20], "values of each", at_least(1, 10000)),
    "AUGMENT_EPOCH": Setting(
        10,
        "augmented views whose mean feature is kept of a training image; 0: the image as it is tested",
        at_least(0, 1000),
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

    def set_weights(self, setting: Numbers) -> None:
        """Sets β and α."""
        beta, alpha = setting
        self.beta.fill_(beta)
        self.alpha.fill_(alpha)

    @property
    def of_class(self) -> Tensor:
        """Return the class of each feature, (N, K)."""
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


def keys_of(features: Tensor) -> Tensor:
    """Return the cache's keys of features (R, N, E), of any length: (N, E), the views' mean, of length one."""
    return F.normalize(features.mean(dim=0), dim=-1)


class TipAdapterMethod(FeatureMethod):
    """A cache of training images' features, beside the texts; nothing is trained."""

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
        """Return the cache without the features of classes that are left out."""
        if ADDED in classes:
            return None
        labels = state["labels"]
        is_of_class = labels[:, None] == torch.tensor(classes, device=labels.device)  # (N, K)
        kept = is_of_class.any(dim=1)  # (N,)
        labels = is_of_class[kept].int().argmax(dim=1)
        return {**state, "keys": state["keys"][kept], "labels": labels}

    @property
    def augmented_views(self) -> int:
        views: int = self.settings.AUGMENT_EPOCH
        return views

    @property
    def grid(self) -> Grid:
        """The values of (β, α) that are tried."""
        node = self.settings
        usual = (max(node.INIT_BETA, BETAS[0]), max(node.INIT_ALPHA, TIP_ALPHAS[0]))  # may be 0
        return Grid([*product(BETAS, TIP_ALPHAS)], usual)

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fill the cache with the training images."""
        features, labels = self.views_of(training)
        self.learner.fill(keys_of(features), labels)

    @torch.no_grad()
    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Takes the β and α under which most validation images are answered right, of equal ones the
        smaller, and the temperature; INIT_BETA and INIT_ALPHA without any."""
        if validation is None:
            return False
        cache = self.learner
        asked, answers = self.validation_features(validation)
        settings = self.searched_settings()
        paths = self.logits_of(cache.keys, cache.of_class, asked, settings)
        rights = [number_right(logits, answers) for logits in paths]
        most = max(rights)
        best = settings[rights.index(most)]
        (logits,) = self.logits_of(cache.keys, cache.of_class, asked, [best])
        cache.set_weights(best)
        self.set_temperature(best_temperature(logits, answers))
        log.info(
            f"β {best[0]:.3f} and α {best[1]:.3f}: {most} of {len(answers)} held-out images right"
        )
        return True

    def searched_settings(self) -> list[Numbers]:
        """The (β, α) of the official search."""
        node = self.settings
        grids = zip(node.SEARCH_SCALE, node.SEARCH_STEP)
        betas, alphas = (
            torch.arange(steps) * (scale - 0.1) / steps + 0.1 for scale, steps in grids
        )
        return [*product(betas.tolist(), alphas.tolist())]

    def logits_of(
        self, keys: Tensor, of_class: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        """Logits (N', K) of features (N', E) under each setting, by a cache of features (N, E) of
        classes (N, K); the votes of one β are computed once."""
        zero_shot = self.zero_shot(asked)
        blocks = asked.split(max(1, PAIRS_AT_ONCE // max(1, len(keys))))
        # of few images the cosines are kept
        kept = [asked @ keys.t()] if len(blocks) == 1 else None
        for beta, same_beta in groupby(settings, key=lambda setting: setting[0]):
            cosines = kept or (block @ keys.t() for block in blocks)
            votes = torch.cat([votes_by(part, of_class, beta) for part in cosines])  # (N', K)
            for _, alpha in same_beta:
                yield zero_shot + alpha * votes

    @torch.no_grad()
    def held_out_logits(
        self, features: Tensor, labels: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        of_class = F.one_hot(labels, len(self.classnames)).float()
        yield from self.logits_of(keys_of(features), of_class, asked, settings)

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, setting: Numbers) -> None:
        self.learner.fill(keys_of(features), labels)
        self.learner.set_weights(setting)


class TipAdapterFMethod(TipAdapterMethod):
    """Tip-Adapter whose cached features are fine-tuned."""

    learns_in_epochs = True

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": [self.learner.keys], "eps": 1e-4}]  # AdamW's, as in the official code


TipAdapter = registered(TipAdapterMethod)


TipAdapterF = registered(TipAdapterFMethod)
