"""PromptSRC: independent deep prompts that stay in agreement with the frozen CLIP (Khattak et al., 2023, "Self-regulating
Prompts: Foundational Model Adaptation without Forgetting", §3.2). Three regularisers:

- mutual agreement: L1 distance of text and of image features and KL divergence of the answers to the frozen CLIP's,
- textual diversity: the frozen texts are the mean over 60 hand-crafted prompts,
- Gaussian-weighted aggregation: the final prompts are the mean of those after each epoch, weighted by a Gaussian of the epoch.
"""

from functools import cached_property, reduce
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .engine.checks import check_at_least
from .evaluation.prediction import Scores
from .families import IndependentTrainer
from .settings import add_encoder_settings
from .templates import DIVERSE_TEMPLATES


def add_promptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.PROMPTSRC``, the official keys; weights and Gaussian are whole numbers there."""
    cfg.TRAINER.PROMPTSRC = node = CfgNode()
    node.N_CTX_VISION = (
        4  # prompt tokens a layer of the image encoder; 0, with PROMPT_DEPTH_VISION 0: none
    )
    node.N_CTX_TEXT = 4  # the same of the text encoder, at least 1
    node.CTX_INIT = "a photo of a"  # its first N_CTX_TEXT tokens start the context, the rest stays in the text; Gaussian without
    add_encoder_settings(node)
    node.PROMPT_DEPTH_VISION = 9  # layers that get prompts of their own, the first included
    node.PROMPT_DEPTH_TEXT = 9
    node.TEXT_LOSS_WEIGHT = 25  # of the distance of text features
    node.IMAGE_LOSS_WEIGHT = 10  # of the distance of image features
    node.GPA_MEAN = 15  # epoch (from 1) around which prompts count most
    node.GPA_STD = 1  # epochs


def gaussian_weights(epochs: int, mean: float, std: float) -> Tensor:
    """Weights (epochs,) of the prompts after epoch 1, 2, …: a Gaussian's values, scaled to sum to one (float64)."""
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    return (-0.5 * ((epoch - mean) / std) ** 2).softmax(
        dim=0
    )  # a softmax: far from the mean all values underflow


@TRAINER_REGISTRY.register()
class PromptSRC(IndependentTrainer):
    """Prompting with self-regulating constraints."""

    small = {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2, "GPA_MEAN": 2}
    fp32_teacher = True  # of the texts; the frozen image features are fp16's, as officially

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(0, self.path, node, "TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT")
        check_at_least(1, self.path, node, "GPA_STD")

    @cached_property
    def hand_crafted(self) -> Tensor:
        with torch.no_grad(), self.precision.autocast():
            # one template after the other: all at once would be thousands of texts
            features = reduce(
                torch.add,
                (self.encode_classes(template, normalize=False) for template in DIVERSE_TEMPLATES),
            )
            return F.normalize(self.with_descriptions(features, normalize=False), dim=-1)  # (K, E)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy + λ₁ mean abs(w − w⁰) + λ₂ mean abs(z − z⁰) + KL(p⁰ ‖ p) / K, averaged over images.

        w and z are normalised text and image features, p the answers, ⁰ the frozen CLIP's; λ₁ and λ₂ are TEXT_LOSS_WEIGHT and
        IMAGE_LOSS_WEIGHT (Khattak et al., 2023, §3.2; the division by K is the official code's).
        """
        node, logits = self.settings, scores.logits[0]  # (B, K)
        frozen_images = self.unprompted(scores)  # (1, B, E)
        frozen_logits = self.logits(frozen_images, self.hand_crafted[None])[0]  # (B, K)
        task = F.cross_entropy(logits, labels)
        text = F.l1_loss(scores.text_features, self.hand_crafted[None])
        image = F.l1_loss(scores.image_features, frozen_images)
        answers = (
            F.kl_div(
                logits.log_softmax(dim=-1),
                frozen_logits.log_softmax(dim=-1),
                log_target=True,
                reduction="sum",
            )
            / logits.numel()
        )
        total = task + node.TEXT_LOSS_WEIGHT * text + node.IMAGE_LOSS_WEIGHT * image + answers
        return total, {
            "loss_ce": task.item(),
            "loss_text": text.item(),
            "loss_image": image.item(),
            "loss_kl": answers.item(),
        }

    # ---- the Gaussian-weighted mean ----

    def before_train(self) -> None:
        self.aggregate = {
            name: torch.zeros_like(value)
            for name, value in self.prompt_learner.state_dict().items()
        }
        super().before_train()  # resumes, and then has the aggregate of the epochs done

    def after_epoch(self) -> None:
        """Adds this epoch's prompts to the mean; the last epoch's are replaced by it before they are saved and tested."""
        weight = gaussian_weights(self.max_epoch, self.settings.GPA_MEAN, self.settings.GPA_STD)[
            self.epoch
        ].item()
        for name, value in self.prompt_learner.state_dict().items():
            self.aggregate[name] += weight * value
        if self.epoch + 1 == self.max_epoch:
            self.prompt_learner.load_state_dict(self.aggregate)
        super().after_epoch()

    def training_state(self) -> dict[str, Any]:
        return {"aggregate": self.aggregate}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        for name, value in state["aggregate"].items():
            self.aggregate[name].copy_(value)
