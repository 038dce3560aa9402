"""ProLIP: the last projection of CLIP's image encoder is fine-tuned, and held near to where it was
(Fahes et al., 2024, "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", §3.2). All that comes
before it is computed once per view, so that training takes seconds. The texts are hand-crafted prompts.
"""

import copy
import logging
from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from yacs.config import CfgNode

from .common.setting import Setting, at_least, node_of
from .evaluation.prediction import Scores
from .learners.features import templates_for
from .method import Batches, Encoded, Method, ParameterGroups, TrainingImages
from .prompting.backbone import Backbone
from .registration import registered
from .settings import PRECISION

log = logging.getLogger(__name__)


SETTINGS = {
    "LR": Setting(1e-5, "of Adam, down to 0 by a cosine", at_least(0, 1e38)),
    "STEPS": Setting(300, "each of all training images", at_least(1, 1000000)),
    "VIEWS": Setting(
        300, "augmented views of an image, which the steps take in turn", at_least(1, 1000000)
    ),
    "REG_WEIGHT": Setting(
        1.0,
        "λ times the training images per class, of the squared distance to the start",
        at_least(0),
    ),
    **PRECISION,
}


def add_prolip_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.PROLIP``; the official keys are ``lr_v``, ``train_epoch``,
    ``aug_views``."""
    cfg.TRAINER.PROLIP = node_of(SETTINGS)


class Projection(nn.Module):
    """The projection (D, E), which starts as CLIP's."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.vit_proj = nn.Parameter(start.detach().float().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Normed class tokens (…, D) → normalised features (…, E)."""
        return F.normalize(tokens @ self.vit_proj, dim=-1)


class ProLIPMethod(Method):
    """Trained before the first epoch: a recipe's single one only measures."""

    declared = SETTINGS
    learner: Projection
    prompts_texts = False
    text_only = None

    def build(self) -> Projection:
        return Projection(self.backbone.image.proj)

    @torch.no_grad()
    def merged(self) -> Backbone:
        clip = copy.deepcopy(self.backbone)
        clip.image.proj.copy_(self.learner.vit_proj)
        return clip

    def hand_crafted_templates(self) -> list[str]:
        return templates_for(self.dataset, super().hand_crafted_templates())

    def encode(self) -> Encoded:
        return self.hand_crafted[None], None  # (1, K, E)

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Return the features before CLIP's projection of images (1, B, 3, H, W): (1, B, D), in fp32."""
        tower = self.backbone.image
        start = self.backbone.image.proj
        identity = torch.eye(len(start), dtype=start.dtype, device=self.device)
        with self.towers.autocast():
            tokens: Tensor = functional_call(tower, {"proj": identity}, (images,)).float()
            return tokens

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        tokens = self.tokens(images)
        with torch.autocast(self.device.type, enabled=False):
            features = self.learner(tokens)  # (1, B, E)
        return Scores(self.towers.logits(features, texts), features, texts, images)

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": list(self.learner.parameters()), "lr": 0.0}]  # epochs learn nothing more

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Minimises CE + λ ‖P − P⁰‖² over all images at once, λ = REG_WEIGHT / images per class."""
        node = self.settings
        projection = self.learner
        texts = self.hand_crafted[None]
        start = projection.vit_proj.detach().clone()
        optimizer = torch.optim.Adam(projection.parameters(), lr=node.LR, eps=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, node.STEPS)
        views: deque[list[Tensor]] = deque()  # for later steps
        for step in range(node.STEPS):
            if step < node.VIEWS:
                batches = [(self.tokens(x)[0], y) for x, y in training(augmented=True)]
                view = [torch.cat(part) for part in zip(*batches)]  # (N, D), (N,)
            else:
                view = views.popleft()
            if step + node.VIEWS < node.STEPS:
                views.append(view)
            tokens, labels = view
            task = F.cross_entropy(self.towers.logits(projection(tokens)[None], texts)[0], labels)
            distance = (projection.vit_proj - start).square().sum()
            weight = node.REG_WEIGHT * len(self.classnames) / len(labels)
            optimizer.zero_grad()
            (task + weight * distance).backward()
            optimizer.step()
            schedule.step()
        log.info(f"Projection of {len(labels)} images: cross-entropy {task:.4f}")


ProLIP = registered(ProLIPMethod)
