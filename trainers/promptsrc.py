"""PromptSRC: independent deep prompts that stay in agreement with the frozen CLIP (Khattak et al.,
2023, "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", §3.2). Three
regularisers:

- mutual agreement: L1 distance of text and of image features and KL divergence of the answers to
  the frozen CLIP's,
- textual diversity: the frozen texts are the mean over 60 hand-crafted prompts,
- Gaussian-weighted aggregation: the final prompts are the mean of those after each epoch, weighted
  by a Gaussian of the epoch.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from .common.setting import Setting, at_least, node_of
from .evaluation.prediction import Scores
from .ivlp import IVLPMethod
from .learners.independent import IndependentPrompts
from .method import Figures, Method
from .prompting.precision import OfficialPrecision
from .registration import registered
from .texts.templates import DIVERSE_TEMPLATES

SETTINGS = {
    **IVLPMethod.declared,
    "N_CTX_VISION": replace(IVLPMethod.declared["N_CTX_VISION"], default=4),
    "N_CTX_TEXT": replace(IVLPMethod.declared["N_CTX_TEXT"], default=4),
    "TEXT_LOSS_WEIGHT": Setting(25, "of the distance of text features", at_least(0)),
    "IMAGE_LOSS_WEIGHT": Setting(10, "of the distance of image features", at_least(0)),
    "GPA_MEAN": Setting(15, "epoch (from 1) around which prompts count most"),
    "GPA_STD": Setting(1, "width of the Gaussian, in epochs", at_least(1)),
}


def add_promptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.PROMPTSRC``, the official keys: IVLP's, with more tokens, and its own;
    weights and Gaussian are whole numbers there."""
    cfg.TRAINER.PROMPTSRC = node_of(SETTINGS)


def gaussian_weights(epochs: int, mean: float, std: float) -> Tensor:
    """Weights (epochs,) of the prompts after epoch 1, 2, …: a Gaussian's values, scaled to sum to
    one (float64)."""
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    # a softmax: far from the mean all values underflow
    return (-0.5 * ((epoch - mean) / std) ** 2).softmax(dim=0)


class PromptSRCMethod(Method):
    """Prompting with self-regulating constraints."""

    declared = SETTINGS
    learner: IndependentPrompts
    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    unit_templates = False
    # of the texts; the frozen image features are fp16's, as officially
    official_precision = OfficialPrecision(fp32_teacher=True)

    def build(self) -> IndependentPrompts:
        return IndependentPrompts(self)

    def hand_crafted_templates(self) -> list[str]:
        return DIVERSE_TEMPLATES

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """Cross-entropy + λ₁ mean abs(w − w⁰) + λ₂ mean abs(z − z⁰) + KL(p⁰ ‖ p) / K, averaged over
        images.

        w and z are normalised text and image features, p the answers, ⁰ the frozen CLIP's; λ₁ and
        λ₂ are TEXT_LOSS_WEIGHT and IMAGE_LOSS_WEIGHT (Khattak et al., 2023, §3.2; the division by K
        is the official code's).
        """
        node = self.settings
        logits = scores.logits[0]  # (B, K)
        frozen_images = self.unprompted(scores)  # (1, B, E)
        frozen_logits = self.towers.logits(frozen_images, self.hand_crafted[None])[0]  # (B, K)
        task = F.cross_entropy(logits, labels)
        text = F.l1_loss(scores.text_features, self.hand_crafted[None])
        image = F.l1_loss(scores.image_features, frozen_images)
        pair = logits.log_softmax(dim=-1), frozen_logits.log_softmax(dim=-1)
        answers = F.kl_div(*pair, log_target=True, reduction="sum") / logits.numel()
        total = task + node.TEXT_LOSS_WEIGHT * text + node.IMAGE_LOSS_WEIGHT * image + answers
        parts = {"loss_ce": task, "loss_text": text, "loss_image": image, "loss_kl": answers}
        return total, parts

    # ---- the Gaussian-weighted mean of the prompts after each epoch ----

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Adds this epoch's prompts to the mean; after the last epoch it takes their place."""
        node = self.settings
        aggregate = self.memory.setdefault("aggregate", {})
        weight = gaussian_weights(epochs, node.GPA_MEAN, node.GPA_STD)[epoch].item()
        for name, value in self.learner.named_parameters():
            before = aggregate.get(name, torch.zeros(())).to(value)
            aggregate[name] = before + weight * value.detach()
        if epoch + 1 == epochs:
            self.learner.load_state_dict(aggregate, strict=False)  # buffers stay


PromptSRC = registered(PromptSRCMethod)
