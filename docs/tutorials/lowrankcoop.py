"""LowRankCoOp: CoOp whose context departs from a phrase by a matrix of low rank, under cross-entropy with smoothed labels.

The context is c = c⁰ + A B with c⁰ (n, D) the phrase's tokens, A (n, r) and B (r, D): r (n + D) parameters in place of n D.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.errors import UserError
from .evaluation.prediction import Scores
from .method import Figures, Method
from .prompting.prompts import FixedTokens, Prompts, context_of_phrase, gaussian
from .prompting.text import TextEncoder
from .settings import add_encoder_settings
from .trainer import MethodTrainer


def add_lowrankcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.LOWRANKCOOP``."""
    cfg.TRAINER.LOWRANKCOOP = node = CfgNode()
    node.PHRASE = "a photo of a"  # what the context starts from
    node.RANK = 2  # r; the number of the phrase's tokens would be CoOp
    node.SMOOTHING = 0.1  # share of the target that all classes get alike
    add_encoder_settings(node)  # PREC, TEXT_CHUNK


class LowRankContext(nn.Module):
    """Called, it gives the ``Prompts`` of one template for all classes (text width D)."""

    start: Tensor

    def __init__(
        self, phrase: str, rank: int, classnames: Sequence[str], text_encoder: TextEncoder
    ) -> None:
        super().__init__()
        context = context_of_phrase(text_encoder, 1, phrase)  # (n, D)
        self.tokens = FixedTokens(
            text_encoder, classnames, len(context), [context[:0]]
        )  # no fixed words after the context
        self.register_buffer(
            "start", context, persistent=False
        )  # follows from the phrase: not saved
        self.left = nn.Parameter(
            torch.zeros(len(context), rank)
        )  # A = 0: training starts from the phrase itself
        self.right = nn.Parameter(gaussian(rank, context.shape[1]))  # B

    def forward(self) -> Prompts:
        context = self.start + self.left @ self.right  # (n, D)
        return self.tokens(context[None])


class LowRankCoOpMethod(Method):
    """Only what the method adds: the check of its settings, its prompts, its loss."""

    shape_setting = "RANK"  # for the tests: a whole number that the prompts' shape follows from

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        super().check(
            settings, path
        )  # what RANK may be is in common/ranges.yaml, as of all methods
        if not 0 <= settings.SMOOTHING < 1:
            raise UserError(f"{path}.SMOOTHING is {settings.SMOOTHING}, it must be in [0, 1)")

    def build(self) -> LowRankContext:
        node = self.settings
        return LowRankContext(node.PHRASE, node.RANK, self.classnames, self.backbone.text)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """Cross-entropy with smoothed labels; beside it, for the log, how far the context has gone."""
        smoothing, learner = self.settings.SMOOTHING, self.learner
        distance = (learner.left @ learner.right).norm().detach()
        total = F.cross_entropy(scores.logits[0], labels, label_smoothing=smoothing)
        return total, {"distance": distance}


@TRAINER_REGISTRY.register()
class LowRankCoOp(MethodTrainer):
    method = LowRankCoOpMethod
