"""DePT: a second head that takes base-specific knowledge out of the prompts (Zhang et al., 2024, "DePT: Decoupled Prompt Tuning",
§3.2), over any method whose loss has the cross-entropy of its one template. Features of both encoders, each scaled and shifted channel by channel,
go through one linear classifier of the trained classes. Its logits are mixed with the prompts'; for other classes the prompts answer alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .coop import CoOp, add_coop_config
from .engine.checks import check_at_least
from .evaluation.prediction import Prediction, Scores
from .evaluation.testing import Encoded
from .kgcoop import KgCoOp, add_kgcoop_config
from .maple import MaPLe, add_maple_config
from .prompting.backbone import Backbone
from .prompting.prompts import Prompts
from .promptsrc import PromptSRC, add_promptsrc_config
from .settings import method_node


def add_dept_settings(cfg: CfgNode, name: str, add_config: Callable[[CfgNode], None]) -> None:
    """Declares ``cfg.TRAINER.<name>``: the keys that a method's own ``add_config`` declares, and DePT's."""
    cfg.TRAINER[name] = node = method_node(add_config)
    node.HEAD_WEIGHT = 0.7  # λ of the head's cross-entropy, and of its logits for the trained classes; the prompts' logits have 1 − λ
    node.PROMPT_WEIGHT = 0.3  # of the prompts' cross-entropy, 1 − λ in the paper
    node.HEAD_LR = 6.5  # times OPTIM.LR, the head's learning rate


def add_deptcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTCOOP``."""
    add_dept_settings(cfg, "DEPTCOOP", add_coop_config)


def add_deptkgcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTKGCOOP``."""
    add_dept_settings(cfg, "DEPTKGCOOP", add_kgcoop_config)


def add_deptmaple_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTMAPLE``."""
    add_dept_settings(cfg, "DEPTMAPLE", add_maple_config)


def add_deptpromptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.DEPTPROMPTSRC``."""
    add_dept_settings(cfg, "DEPTPROMPTSRC", add_promptsrc_config)


class ChannelAdjustment(nn.Module):
    """A scale and a shift for each of E channels, which start as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features + self.bias


class TransferHead(nn.Module):
    """The channel-adjusted head: features of images or texts, (…, E) and not normalised, → logits (…, K) of the trained classes."""

    def __init__(self, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.image, self.text = ChannelAdjustment(embed_dim), ChannelAdjustment(embed_dim)
        self.linear = nn.Linear(embed_dim, classes)

    def of_images(self, features: Tensor) -> Tensor:
        return self.linear(self.image(features))

    def of_texts(self, features: Tensor) -> Tensor:
        return self.linear(self.text(features))


@dataclass
class HeadedScores(Scores):
    """``Scores`` whose logits (2, B, K) are the prompts' and the head's.

    Attributes:
        texts: (K, E), the text features before they were normalised.
    """

    texts: Tensor


class DePT(PromptTrainer):
    """DePT over a method, named first in a class's bases: ``class DePTCoOp(DePT, CoOp)``. The method's ``scores`` must be the base's."""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(0, self.path, node, "PROMPT_WEIGHT", "HEAD_LR")
        if not 0 <= node.HEAD_WEIGHT <= 1:
            raise UserError(f"{self.path}.HEAD_WEIGHT is {node.HEAD_WEIGHT}, it must be in [0, 1]")

    def build_prompt_learner(self, backbone: Backbone) -> Any:
        learner: Any = super().build_prompt_learner(backbone)
        learner.head = TransferHead(backbone.embed_dim, len(self.classnames))
        learner.class_parameters = (*getattr(learner, "class_parameters", ()), "head")
        return learner

    def parameter_groups(self) -> list[dict[str, Any]]:
        learner = self.prompt_learner
        prompts = [
            parameter
            for name, parameter in learner.named_parameters()
            if not name.startswith("head.")
        ]
        return [
            {"params": prompts},
            {
                "params": list(learner.head.parameters()),
                "lr": self.cfg.OPTIM.LR * self.settings.HEAD_LR,
            },
        ]

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        head = self.prompt_learner.head
        if head is None:
            return super().scores(images, encoded)
        if encoded is None:
            own = self.prompt_learner()
            encoded = self.encode_texts(own, normalize=False), own
        texts, prompts = (
            encoded  # (1, K, E); normalised if they were given, which only the loss would mind
        )
        features = self.encode_images(images, prompts, normalize=False)  # (1, B, E)
        image_features, text_features = F.normalize(features, dim=-1), F.normalize(texts, dim=-1)
        with torch.autocast(self.device.type, enabled=False):
            headed = head.of_images(features)  # (1, B, K)
        logits = torch.cat([self.logits(image_features, text_features), headed])  # (2, B, K)
        return HeadedScores(logits, image_features, text_features, images, texts[0])

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The method's loss with PROMPT_WEIGHT times its cross-entropy, + λ cross-entropy of the head, over the images and their classes' texts."""
        assert isinstance(scores, HeadedScores)
        total, figures = super().loss(scores, labels)
        task = F.cross_entropy(scores.logits[0], labels)
        of_texts = self.prompt_learner.head.of_texts(scores.texts[labels])  # (B, K)
        headed = F.cross_entropy(torch.cat([of_texts, scores.logits[1]]), labels.repeat(2))
        total = (
            total + (self.settings.PROMPT_WEIGHT - 1) * task + self.settings.HEAD_WEIGHT * headed
        )
        return total, {**figures, "loss_ce": task.item(), "loss_head": headed.item()}

    def predict(self, logits: Tensor) -> Prediction:
        """``Prediction`` from the prompts' logits (1, B, K), or from theirs and the head's, (2, B, K)."""
        weight = self.settings.HEAD_WEIGHT
        return super().predict(
            logits if len(logits) == 1 else (1 - weight) * logits[:1] + weight * logits[1:]
        )

    def takes_features(self, prompts: Prompts | None) -> bool:
        """Not where there is a head: it needs the features' lengths."""
        return self.prompt_learner.head is None and super().takes_features(prompts)


@TRAINER_REGISTRY.register()
class DePTCoOp(DePT, CoOp):
    """Decoupled prompt tuning over CoOp."""


@TRAINER_REGISTRY.register()
class DePTKgCoOp(DePT, KgCoOp):
    """Decoupled prompt tuning over KgCoOp."""


@TRAINER_REGISTRY.register()
class DePTMaPLe(DePT, MaPLe):
    """Decoupled prompt tuning over MaPLe."""


@TRAINER_REGISTRY.register()
class DePTPromptSRC(DePT, PromptSRC):
    """Decoupled prompt tuning over PromptSRC, whose Gaussian-weighted mean has the head in it."""
