"""CoPrompt: MaPLe whose features stay consistent with the frozen CLIP's of perturbed inputs (Roy
and Etemad, 2024, "Consistency-guided Prompt Learning for Vision-Language Models", §3.2). An adapter
follows each encoder. Cross-entropy on one random view of an image, + W · (1 − cos) of its feature
to the frozen CLIP's of another view, and of each class's text to the frozen CLIP's of a sentence
about it, drawn at each step.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .evaluation.prediction import Scores
from .maths.losses import consistency_loss
from .method import Encoded, Figures, Method
from .prompting.prompts import Prompts
from .registration import registered
from .settings import method_node

REDUCTION = 4  # of the width in the adapters
IMAGE_SHARE = 0.1  # of the adapter in the features
TEXT_SHARE = 0.2


def add_coprompt_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COPROMPT``: MaPLe's keys and W, officially a key of TRAINER.
    Sentences are ``DATASET.DESCRIPTIONS``."""
    cfg.TRAINER.COPROMPT = node = method_node("MaPLe")
    node.W = 8.0  # weight of the consistency with the frozen CLIP


class OutputAdapter(nn.Module):
    """Mixes features (…, E) with what a bottleneck makes of them. It scales with the features:
    their lengths don't matter."""

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
        mixed: Tensor = self.share * self.fc(features) + (1 - self.share) * features
        return mixed


class AdaptedPrompts(nn.Module):
    """MaPLe's prompts with the adapters as further parts."""

    __call__: Callable[..., Prompts]
    adapter_image: OutputAdapter
    adapter_text: OutputAdapter


class CoPromptMethod(Method):
    """Consistency-guided prompt learning: MaPLe's prompts, and an adapter after each encoder."""

    learner: AdaptedPrompts
    exceptions = {"DescribableTextures": "a photo of a {}, a type of texture."}
    small = {"PROMPT_DEPTH": 2}
    text_only = None

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        return 2, None  # two draws: for the prompts, for the frozen CLIP

    def build(self) -> nn.Module:
        learner = cast(AdaptedPrompts, self.over("MaPLe").learner)
        learner.adapter_image = OutputAdapter(self.backbone.embed_dim, IMAGE_SHARE)
        learner.adapter_text = OutputAdapter(self.backbone.embed_dim, TEXT_SHARE)
        return learner

    @cached_property
    def perturbed_texts(self) -> Tensor:
        """References (R, K, E) for the texts: features of R sentences about each class; without any,
        of the hand-crafted prompt."""
        if self.describe is None:
            return self.hand_crafted[None]
        sentences = self.sentences()
        with torch.no_grad(), self.autocast():
            rounds = [
                [[of_class[r % len(of_class)]] for of_class in sentences]
                for r in range(max(map(len, sentences)))
            ]
            return torch.stack([self.teacher.encode_sentences(texts) for texts in rounds])

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        features = self.learner.adapter_text(super().encode_texts(prompts, normalize))
        return F.normalize(features, dim=-1) if normalize else features

    def encode_images(
        self, images: Tensor, prompts: Prompts | None = None, normalize: bool = True
    ) -> Tensor:
        """The frozen CLIP's features without prompts; with them the adapter's."""
        features = super().encode_images(images, prompts, normalize)
        if prompts is None:
            return features
        features = self.learner.adapter_image(features)
        return F.normalize(features, dim=-1) if normalize else features

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        return replace(super().scores(images[:1], encoded), images=images)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """Cross-entropy + W · (text's + image's mean of 1 − cos to the frozen CLIP's features of a
        perturbed input)."""
        perturbed = self.perturbed_texts
        sentence = random.randrange(len(perturbed))
        task = F.cross_entropy(scores.logits[0], labels)
        text = consistency_loss(scores.text_features, perturbed[sentence])
        if scores.unprompted is None:
            plain = self.unprompted_images(scores.images[-1:])
        else:
            plain = scores.unprompted[-1:]
        image = consistency_loss(scores.image_features, plain)
        parts = {"loss_ce": task, "loss_text": text, "loss_image": image}
        return task + self.settings.W * (text + image), parts


CoPrompt = registered(CoPromptMethod)
