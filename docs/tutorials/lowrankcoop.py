"""LowRankCoOp: CoOp whose context departs from a phrase by a matrix of low rank, under cross-entropy with smoothed labels.

The context is c = c⁰ + A B with c⁰ (n, D) the phrase's tokens, A (n, r) and B (r, D): r (n + D) parameters in place of n D.
"""
import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from .base import PromptTrainer
from .checks import check_at_least
from .errors import UserError
from .prompting.prompts import FixedTokens, context_of_phrase, gaussian
from .settings import add_encoder_settings


def add_lowrankcoop_config(cfg):
    """Declares ``cfg.TRAINER.LOWRANKCOOP``."""
    cfg.TRAINER.LOWRANKCOOP = node = CfgNode()
    node.PHRASE = "a photo of a"  # what the context starts from
    node.RANK = 2  # r; the number of the phrase's tokens would be CoOp
    node.SMOOTHING = 0.1  # share of the target that all classes get alike
    add_encoder_settings(node)  # PREC, TEXT_CHUNK


class LowRankContext(nn.Module):
    """Called, it gives the ``Prompts`` of one template for all classes (text width D)."""

    def __init__(self, phrase, rank, classnames, text_encoder):
        super().__init__()
        context = context_of_phrase(text_encoder, 1, phrase)  # (n, D)
        self.tokens = FixedTokens(text_encoder, classnames, len(context), [context[:0]])  # no fixed words behind the context
        self.register_buffer("start", context, persistent=False)  # follows from the phrase: not saved
        self.left = nn.Parameter(torch.zeros(len(context), rank))  # A = 0: training starts from the phrase itself
        self.right = nn.Parameter(gaussian(rank, context.shape[1]))  # B

    def forward(self):
        context = self.start + self.left @ self.right  # (n, D)
        return self.tokens(context[None])


@TRAINER_REGISTRY.register()
class LowRankCoOp(PromptTrainer):
    """Only what the method adds: the check of its settings, its prompts, its loss."""

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(1, self.path, node, "RANK")
        if not 0 <= node.SMOOTHING < 1:
            raise UserError(f"{self.path}.SMOOTHING is {node.SMOOTHING}, it must be in [0, 1)")

    def build_prompt_learner(self, backbone):
        return LowRankContext(self.settings.PHRASE, self.settings.RANK, self.classnames, backbone.text)

    def loss(self, scores, labels):
        """Cross-entropy with smoothed labels; beside it, how far the context has gone from the phrase, for the log."""
        learner = self.prompt_learner
        distance = (learner.left @ learner.right).norm().item()
        return F.cross_entropy(scores.logits[0], labels, label_smoothing=self.settings.SMOOTHING), {"distance": distance}
