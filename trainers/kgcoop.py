"""KgCoOp: CoOp whose texts are held near the hand-crafted ones (Yao et al., 2023, "Visual-Language
Prompt Tuning with Knowledge-guided Context Optimization"): cross-entropy + W · mean over classes of
1 − cos(w_k, w_k of the hand-crafted prompt).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from .class_part import ClassPart
from .common.setting import COUNT, Setting, at_least, node_of
from .evaluation.prediction import Scores
from .learners.context import POSITIONS, ContextLearner
from .method import Figures, Method
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_CTX": Setting(4, "context tokens; a phrase brings its own number", COUNT),
    "CSC": Setting(False, "a context for each class"),
    "CTX_INIT": Setting("a photo of a", "phrase the context starts from, Gaussian without"),
    "W": Setting(8.0, "weight of the knowledge-guided term", at_least(0)),
    **ENCODER,
    "CLASS_TOKEN_POSITION": Setting("end", "of the class name in the context", POSITIONS),
}


def add_kgcoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.KGCOOP``: CoOp's keys and W."""
    cfg.TRAINER.KGCOOP = node_of(SETTINGS)


def knowledge_guided_loss(
    logits: Tensor, labels: Tensor, texts: Tensor, hand_crafted: Tensor, weight: float
) -> tuple[Tensor, Figures]:
    """Cross-entropy + W · mean of 1 − cos of the texts to the hand-crafted prompts, which is half their
    squared distance; and both terms.

    Args:
        logits: (B, K); labels: (B,).
        texts: (M, K, E); hand_crafted: (K, E); weight: W.
    """
    task = F.cross_entropy(logits, labels)
    distance = 1 - torch.linalg.vecdot(texts, hand_crafted).mean()
    return task + weight * distance, {"loss_ce": task, "loss_kg": distance}


class KgCoOpMethod(Method):
    """Knowledge-guided context optimisation."""

    declared = SETTINGS
    learner: ContextLearner
    exceptions = {"DescribableTextures": "a photo of a {}, a type of texture."}

    def build(self) -> ContextLearner:
        return ContextLearner.from_settings(self)

    @property
    def class_part(self) -> ClassPart:
        return self.learner.class_part

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        return knowledge_guided_loss(
            scores.logits[0], labels, scores.text_features, self.hand_crafted, self.settings.W
        )


KgCoOp = registered(KgCoOpMethod)
