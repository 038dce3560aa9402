"""Tip-Adapter: zero-shot CLIP plus a cache of the training images' features, in which those similar
to an image vote with their labels (Zhang et al., 2022, "Tip-Adapter: Training-free Adaption of CLIP
for Few-shot Classification", §3). Nothing is trained; in ``TipAdapterF`` the kept features are, by
cross-entropy. α and β are chosen on validation images.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .features import FeatureMethod, SizedByState
from .method import Batches, Method, ParameterGroups, TrainingImages
from .registration import registered
from .settings import method_node

log = logging.getLogger(__name__)


def add_tipadapter_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.TIPADAPTER``, the official keys in capitals."""
    cfg.TRAINER.TIPADAPTER = node = CfgNode()
    node.INIT_BETA = 1.0  # β, how sharply the cache tells images apart
    node.INIT_ALPHA = 1.17  # α, weight of the cache's logits
    node.SEARCH_SCALE = [7.0, 3.0]  # β and α are searched for from 0.1 up to these
    node.SEARCH_STEP = [200, 20]  # values of each
    node.AUGMENT_EPOCH = 10  # augmented views whose mean feature is kept of a training image
    node.PREC = "fp16"


def add_tipadapterf_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.TIPADAPTERF``, the same keys."""
    cfg.TRAINER.TIPADAPTERF = method_node("TipAdapter")


class FeatureCache(SizedByState):
    """The cache: N features of K classes, β and α."""

    keys: Any  # a parameter; None for classes that were not trained
    labels: Tensor
    alpha: Tensor
    beta: Tensor
    class_parameters = sized = ("keys", "labels")  # see ``Method.build``

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        self.classes = len(method.classnames)
        # (N, E), filled before training
        self.keys = nn.Parameter(torch.zeros(0, method.backbone.embed_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))  # (N,)
        self.register_buffer("beta", torch.tensor(node.INIT_BETA))
        self.register_buffer("alpha", torch.tensor(node.INIT_ALPHA))

    def fill(self, keys: Tensor, labels: Tensor) -> None:
        self.keys.data = keys
        self.labels = labels

    def votes(self, likeness: Tensor, beta: Tensor | float) -> Tensor:
        """Σ_i exp(−β (1 − cos_i)) over the features of each class: cosines (B, N) → (B, K)."""
        of_class = F.one_hot(self.labels, self.classes).float()  # (N, K)
        return (beta * (likeness - 1)).exp() @ of_class

    def forward(self, features: Tensor, zero_shot: Tensor) -> Tensor:
        """Zero-shot logits + α · votes; (B, E), (B, K) → (B, K)."""
        if self.keys is None:
            return zero_shot
        return zero_shot + self.alpha * self.votes(features @ self.keys.t(), self.beta)


class TipAdapterMethod(FeatureMethod):
    """Training-free: a recipe's single epoch only measures."""

    learner: FeatureCache
    whole_validation = True
    small = {"AUGMENT_EPOCH": 2}

    def build(self) -> FeatureCache:
        return FeatureCache(self)

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fills the cache."""
        with torch.random.fork_rng(devices=[]):  # training must not depend on these passes
            features, labels = self.augmented_features(training, normalize=False)  # (R, N, E), (N,)
        self.learner.fill(F.normalize(features.mean(dim=0), dim=-1), labels)

    @torch.no_grad()
    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Takes the β and α with the highest accuracy on validation images, of equal ones the
        smaller; INIT_BETA and INIT_ALPHA without any."""
        if validation is None:
            return False
        with torch.random.fork_rng(devices=[]):
            (features,), labels = self.features_of(validation)  # (N, E), (N,)
        cache = self.learner
        best = -1
        node = self.settings
        grids = zip(node.SEARCH_SCALE, node.SEARCH_STEP)
        betas, alphas = (
            torch.arange(steps) * (scale - 0.1) / steps + 0.1 for scale, steps in grids
        )
        zero_shot = self.logits(features[None], self.hand_crafted[None])[0]  # (N_val, K)
        likeness = features @ cache.keys.t()  # (N_val, N)
        for beta in betas.tolist():
            votes = cache.votes(likeness, beta)
            for alpha in alphas.tolist():
                right = int(((zero_shot + alpha * votes).argmax(dim=1) == labels).sum())
                if right > best:
                    best = right
                    cache.beta.fill_(beta)
                    cache.alpha.fill_(alpha)
        count = f"{best} of {len(labels)} validation images"
        log.info(f"β {cache.beta:.3f} and α {cache.alpha:.3f}: {count} right")
        return True


class TipAdapterFMethod(TipAdapterMethod):
    """Tip-Adapter whose cached features are fine-tuned."""

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": [self.learner.keys], "eps": 1e-4}]  # AdamW's, as in the official code


TipAdapter = registered(TipAdapterMethod)


TipAdapterF = registered(TipAdapterFMethod)
