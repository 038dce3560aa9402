"""CoPrompt: MaPLe whose features stay consistent with the frozen CLIP's of perturbed inputs (Roy
and Etemad, 2024, "Consistency-guided Prompt Learning for Vision-Language Models", §3.2). An adapter
follows each encoder. Cross-entropy on one random view of an image, + W · (1 − cos) of its feature
to the frozen CLIP's of another view, and of each class's text to the frozen CLIP's of a sentence
about it, drawn at each step.
"""

import random
from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import Setting, at_least, node_of
from .evaluation.prediction import Scores
from .maple import MaPLeMethod
from .method import Encoded, Figures, Method
from .prompting.prompts import Prompts
from .registration import registered

ADAPTER_REDUCTION = 4  # of the width in the adapters
IMAGE_SHARE = 0.1  # of the adapter in the features
TEXT_SHARE = 0.2


SETTINGS = {
    **MaPLeMethod.declared,
    "W": Setting(8.0, "weight of the consistency with the frozen CLIP", at_least(0)),
}


def add_coprompt_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COPROMPT``: MaPLe's keys and W, officially a key of TRAINER.
    Sentences are ``DATASET.DESCRIPTIONS``."""
    cfg.TRAINER.COPROMPT = node_of(SETTINGS)


class OutputAdapter(nn.Module):
    """Mixes features (…, E) with a bottleneck's output for them. It scales with the features:
    their lengths don't matter."""

    def __init__(self, embed_dim: int, share: float) -> None:
        super().__init__()
        hidden = embed_dim // ADAPTER_REDUCTION
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

    declared = SETTINGS
    learner: AdaptedPrompts
    exceptions = {"DescribableTextures": "a photo of a {}, a type of texture."}
    text_only = None

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        return 2, None  # two draws: for the prompts, for the frozen CLIP

    def build(self) -> nn.Module:
        prompts = self.like(MaPLeMethod)
        width = self.backbone.embed_dim
        prompts.extend(
            adapter_image=OutputAdapter(width, IMAGE_SHARE),
            adapter_text=OutputAdapter(width, TEXT_SHARE),
        )
        return prompts.learned

    @cached_property
    def perturbed_texts(self) -> Tensor:
        """References (R, K, E) for the texts: features of R sentences about each class; without any,
        of the hand-crafted prompt."""
        sentences = self.sentences()
        if not sentences:
            return self.hand_crafted[None]
        rounds = []
        with torch.no_grad(), self.towers.autocast():
            for r in range(max(map(len, sentences))):
                texts = [[of_class[r % len(of_class)]] for of_class in sentences]
                rounds.append(self.towers.teacher.encode_sentences(texts))
        return torch.stack(rounds)

    def encode(self) -> tuple[Tensor, Prompts]:
        prompts = self.learner()
        texts = self.learner.adapter_text(self.towers.encode_texts(prompts))
        return F.normalize(texts, dim=-1), prompts

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, prompts = encoded or self.encode()
        features = self.learner.adapter_image(self.towers.encode_images(images[:1], prompts))
        features = F.normalize(features, dim=-1)
        return Scores(self.towers.logits(features, texts), features, texts, images)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """Cross-entropy + W · (text's + image's mean of 1 − cos to the frozen CLIP's features of a
        perturbed input)."""
        perturbed = self.perturbed_texts
        sentence = random.randrange(len(perturbed))
        task = F.cross_entropy(scores.logits[0], labels)
        text = 1 - torch.linalg.vecdot(scores.text_features, perturbed[sentence]).mean()
        plain = self.unprompted(scores, views=slice(-1, None))  # (1, B, E)
        image = 1 - torch.linalg.vecdot(scores.image_features, plain).mean()
        parts = {"loss_ce": task, "loss_text": text, "loss_image": image}
        return task + self.settings.W * (text + image), parts


CoPrompt = registered(CoPromptMethod)
