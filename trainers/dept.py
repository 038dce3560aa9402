"""DePT: a second head that takes base-specific knowledge out of the prompts (Zhang et al., 2024,
"DePT: Decoupled Prompt Tuning", §3.2), over any method whose loss has the cross-entropy of its one
template. Features of both encoders, each scaled and shifted channel by channel, go through one
linear classifier of the trained classes. Its logits are mixed with the prompts'; for other classes
the prompts answer alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart
from .common.setting import Setting, at_least, node_of
from .coop import CoOpMethod
from .evaluation.prediction import Prediction, Scores
from .kgcoop import KgCoOpMethod
from .maple import MaPLeMethod
from .method import Encoded, Figures, Method, ParameterGroups
from .prompting.precision import OfficialPrecision
from .prompting.prompts import Prompts
from .promptsrc import PromptSRCMethod
from .registration import registered

# beside the settings of the method that it is laid over
SETTINGS = {
    "HEAD_WEIGHT": Setting(
        0.7,
        "λ of the head's cross-entropy, and of its logits for the trained classes; the prompts' logits "
        "have 1 − λ",
        at_least(0, 1),
    ),
    "PROMPT_WEIGHT": Setting(0.3, "of the prompts' cross-entropy, 1 − λ in the paper", at_least(0)),
    "HEAD_LR": Setting(6.5, "times OPTIM.LR, the head's learning rate", at_least(0, 1e38)),
}


def add_deptcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTCOOP``."""
    cfg.TRAINER.DEPTCOOP = node_of(DePTCoOpMethod.declared)


def add_deptkgcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTKGCOOP``."""
    cfg.TRAINER.DEPTKGCOOP = node_of(DePTKgCoOpMethod.declared)


def add_deptmaple_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTMAPLE``."""
    cfg.TRAINER.DEPTMAPLE = node_of(DePTMaPLeMethod.declared)


def add_deptpromptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTPROMPTSRC``."""
    cfg.TRAINER.DEPTPROMPTSRC = node_of(DePTPromptSRCMethod.declared)


class ChannelAdjustment(nn.Module):
    """A scale and a shift for each of E channels, which start as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features + self.bias


class TransferHead(nn.Module):
    """The channel-adjusted head: features of images or texts, (…, E) and not normalised, → logits
    (…, K) of the trained classes."""

    def __init__(self, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.image = ChannelAdjustment(embed_dim)
        self.text = ChannelAdjustment(embed_dim)
        self.linear = nn.Linear(embed_dim, classes)


@dataclass
class HeadedScores(Scores):
    """``Scores`` whose logits (2, B, K) are the prompts' and the head's.

    Attributes:
        texts: (K, E), the text features before they were normalised.
    """

    texts: Tensor


class HeadedPrompts(nn.Module):
    """A method's prompts with the head as a further part; None for classes that were not trained."""

    __call__: Callable[..., Prompts]
    head: TransferHead | None


class DePTMethod(Method):
    """DePT over a method, its ``over``, whose ``scores`` must be ``Method``'s.

    It holds that method as ``base``, whose learner has the head as a further part.
    """

    learner: HeadedPrompts
    over: ClassVar[type[Method]]
    base: Method

    def build(self) -> nn.Module:
        self.base = self.like(self.over)
        self.memory = self.base.memory
        self.base.extend(head=TransferHead(self.backbone.embed_dim, len(self.classnames)))
        return self.base.learned

    @property
    def class_part(self) -> ClassPart:
        """The head, and the method's own part."""
        part = self.base.class_part
        rows = {**part.rows, "head.linear.weight": 0, "head.linear.bias": 0}
        return ClassPart((*part.names, "head"), rows)

    def drop_class_part(self) -> None:
        self.learner.head = None

    def parameter_groups(self, lr: float) -> ParameterGroups:
        named = [*self.learner.named_parameters()]
        prompts = [value for name, value in named if not name.startswith("head.")]
        head = [value for name, value in named if name.startswith("head.")]
        return [{"params": prompts}, {"params": head, "lr": lr * self.settings.HEAD_LR}]

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        head = self.learner.head
        if head is None:
            return self.base.scores(images, encoded)
        if encoded is None:
            learned = self.learner()
            encoded = self.towers.encode_texts(learned, normalize=False), learned
        # texts: (1, K, E); normalised if they were given, which only the loss would mind
        texts, prompts = encoded
        features = self.towers.encode_images(images, prompts, normalize=False)  # (1, B, E)
        image_features = F.normalize(features, dim=-1)
        text_features = F.normalize(texts, dim=-1)
        with torch.autocast(self.device.type, enabled=False):
            headed = head.linear(head.image(features))  # (1, B, K)
        logits = torch.cat([self.towers.logits(image_features, text_features), headed])  # (2, B, K)
        return HeadedScores(logits, image_features, text_features, images, texts[0])

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """The method's loss with PROMPT_WEIGHT times its cross-entropy, + λ cross-entropy of the head,
        over the images and their classes' texts."""
        total, figures = self.base.loss(scores, labels)
        task = F.cross_entropy(scores.logits[0], labels)
        head = self.learner.head
        assert head is not None  # in training
        texts = cast(HeadedScores, scores).texts
        of_texts = head.linear(head.text(texts[labels]))  # (B, K)
        headed = F.cross_entropy(torch.cat([of_texts, scores.logits[1]]), labels.repeat(2))
        node = self.settings
        total = total + (node.PROMPT_WEIGHT - 1) * task + node.HEAD_WEIGHT * headed
        return total, {**figures, "loss_ce": task, "loss_head": headed}

    def predict(self, logits: Tensor) -> Prediction:
        """``Prediction`` from the prompts' logits (1, B, K), or from theirs and the head's, (2, B,
        K)."""
        weight = self.settings.HEAD_WEIGHT
        if len(logits) > 1:
            logits = (1 - weight) * logits[:1] + weight * logits[1:]
        return self.base.predict(logits)


class DePTCoOpMethod(DePTMethod):
    """Decoupled prompt tuning over CoOp."""

    over = CoOpMethod
    declared = {**CoOpMethod.declared, **SETTINGS}


class DePTKgCoOpMethod(DePTMethod):
    """Decoupled prompt tuning over KgCoOp."""

    over = KgCoOpMethod
    declared = {**KgCoOpMethod.declared, **SETTINGS}


class DePTMaPLeMethod(DePTMethod):
    """Decoupled prompt tuning over MaPLe."""

    over = MaPLeMethod
    declared = {**MaPLeMethod.declared, **SETTINGS}
    text_only = None


class DePTPromptSRCMethod(DePTMethod):
    """Decoupled prompt tuning over PromptSRC, whose Gaussian-weighted mean has the head in it."""

    over = PromptSRCMethod
    declared = {**PromptSRCMethod.declared, **SETTINGS}
    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    official_precision = OfficialPrecision(fp32_teacher=True)


DePTCoOp = registered(DePTCoOpMethod)


DePTKgCoOp = registered(DePTKgCoOpMethod)


DePTMaPLe = registered(DePTMaPLeMethod)


DePTPromptSRC = registered(DePTPromptSRCMethod)
