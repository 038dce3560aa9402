"""CoPrompt: MaPLe whose features stay consistent with the frozen CLIP's of perturbed inputs (Roy and Etemad, 2024, "Consistency-guided Prompt
Learning for Vision-Language Models", §3.2). An adapter follows each encoder. Cross-entropy on one random view of an image, + W · (1 − cos) of its
feature to the frozen CLIP's of another view, and of each class's text to the frozen CLIP's of a sentence about it, drawn at each step.
"""

import random
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from . import distributed
from .data.views import PictureViews
from .descriptions import path_of, read_descriptions
from .engine.checks import check_at_least
from .evaluation.prediction import Scores
from .evaluation.testing import Encoded
from .losses import consistency_loss
from .maple import MaPLe, add_maple_config
from .prompting.backbone import Backbone
from .prompting.prompts import Prompts
from .settings import method_node
from .templates import hand_crafted_template

REDUCTION = 4  # of the width in the adapters
IMAGE_SHARE, TEXT_SHARE = 0.1, 0.2  # of the adapters in the features
EXCEPTIONS = {
    "DescribableTextures": "a photo of a {}, a type of texture."
}  # where CoPrompt departs from CoOp's hand-crafted prompts


def add_coprompt_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COPROMPT``: MaPLe's keys and W (``TRAINER.W`` in the official code). Sentences are ``DATASET.DESCRIPTIONS``."""
    cfg.TRAINER.COPROMPT = node = method_node(add_maple_config)
    node.W = 8.0  # weight of the consistency with the frozen CLIP


class OutputAdapter(nn.Module):
    """Mixes features (…, E) with what a bottleneck makes of them. It scales with the features: their lengths don't matter."""

    def __init__(self, embed_dim: int, share: float) -> None:
        super().__init__()
        hidden = embed_dim // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(embed_dim, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, embed_dim, bias=False),
            nn.ReLU(),
        )
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        return self.share * self.fc(features) + (1 - self.share) * features


@TRAINER_REGISTRY.register()
class CoPrompt(MaPLe):
    """Consistency-guided prompt learning."""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_at_least(0, self.path, self.node(cfg), "W")

    @cached_property
    def training_views(self) -> PictureViews:
        return PictureViews(
            super().training_views.transforms * 2
        )  # two draws: for the prompts, for the frozen CLIP

    def build_prompt_learner(self, backbone: Backbone) -> Any:
        learner: Any = super().build_prompt_learner(backbone)
        learner.adapter_image = OutputAdapter(backbone.embed_dim, IMAGE_SHARE)
        learner.adapter_text = OutputAdapter(backbone.embed_dim, TEXT_SHARE)
        return learner

    def hand_crafted_template(self) -> str:
        return hand_crafted_template(self.cfg.DATASET.NAME, EXCEPTIONS)

    @cached_property
    def perturbed_texts(self) -> Tensor:
        """References (R, K, E) for the texts: features of R sentences about each class; without any, of the hand-crafted prompt."""
        hand_crafted = self.hand_crafted[None]
        if not path_of(self.cfg):
            return hand_crafted
        sentences = read_descriptions(path_of(self.cfg), self.classnames)
        with torch.no_grad(), self.precision.autocast():
            return torch.stack(
                [
                    self.encode_one([texts[r % len(texts)] for texts in sentences])
                    for r in range(max(map(len, sentences)))
                ]
            )

    def encode_one(self, sentences: list[str]) -> Tensor:
        """Features (K, E) of a sentence about each class."""
        return distributed.divided(
            lambda own: self.teacher.encode_sentences([[text] for text in sentences[own]]),
            len(sentences),
            dim=0,
        )

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        features = self.prompt_learner.adapter_text(super().encode_texts(prompts, normalize))
        return F.normalize(features, dim=-1) if normalize else features

    def encode_images(
        self,
        images: Tensor,
        prompts: Prompts | None = None,
        backbone: Backbone | None = None,
        normalize: bool = True,
    ) -> Tensor:
        """The frozen CLIP's features without prompts; with them the adapter's."""
        features = super().encode_images(images, prompts, backbone, normalize)
        if prompts is None:
            return features
        features = self.prompt_learner.adapter_image(features)
        return F.normalize(features, dim=-1) if normalize else features

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        return replace(super().scores(images[:1], encoded), images=images)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy + W · (text's + image's mean of 1 − cos to the frozen CLIP's features of a perturbed input)."""
        perturbed = self.perturbed_texts
        sentence = distributed.from_first(lambda: random.randrange(len(perturbed)))
        task = F.cross_entropy(scores.logits[0], labels)
        text = consistency_loss(scores.text_features, perturbed[sentence])
        image = consistency_loss(scores.image_features, self.unprompted_images(scores.images[-1:]))
        return task + self.settings.W * (text + image), {
            "loss_ce": task.item(),
            "loss_text": text.item(),
            "loss_image": image.item(),
        }
