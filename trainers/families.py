"""What the methods of one family share: trainers to derive from, not registered themselves."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .engine.checks import (
    check_at_least,
    check_choice,
    check_depth,
    check_image_prompts,
    validates_on_test_images,
)
from .evaluation.prediction import Scores
from .prompting.backbone import Backbone
from .prompting.context import POSITIONS, ContextLearner
from .prompting.independent import IndependentPrompts
from .prompting.prompts import Prompts
from .templates import SELECTED_TEMPLATES


class ContextTrainer(PromptTrainer):
    """CoOp's prompts; the node has N_CTX, CSC, CTX_INIT, CLASS_TOKEN_POSITION."""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_choice(f"{self.path}.CLASS_TOKEN_POSITION", node.CLASS_TOKEN_POSITION, POSITIONS)
        check_at_least(1, self.path, node, "N_CTX")

    def build_prompt_learner(self, backbone: Backbone) -> ContextLearner:
        return ContextLearner.from_settings(self.settings, self.classnames, backbone.text)


class IndependentTrainer(PromptTrainer):
    """Deep prompts that each encoder learns for itself; the node has IVLP's keys."""

    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    shape_setting = "N_CTX_TEXT"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(1, self.path, node, "N_CTX_TEXT", "PROMPT_DEPTH_TEXT")
        check_at_least(0, self.path, node, "N_CTX_VISION", "PROMPT_DEPTH_VISION")
        if (node.N_CTX_VISION == 0) != (node.PROMPT_DEPTH_VISION == 0):
            raise UserError(
                f"{self.path} has N_CTX_VISION {node.N_CTX_VISION} and PROMPT_DEPTH_VISION {node.PROMPT_DEPTH_VISION}: "
                "both are 0 to prompt the text encoder only, or neither"
            )

    def build_prompt_learner(self, backbone: Backbone) -> IndependentPrompts:
        node, name = self.settings, self.cfg.MODEL.BACKBONE.NAME
        check_depth(
            f"{self.path}.PROMPT_DEPTH_TEXT", node.PROMPT_DEPTH_TEXT, backbone.text.layers, name
        )
        if node.PROMPT_DEPTH_VISION > 0:
            check_image_prompts(
                f"{self.path}.PROMPT_DEPTH_VISION", backbone, name, "set it and N_CTX_VISION to 0"
            )
            check_depth(
                f"{self.path}.PROMPT_DEPTH_VISION",
                node.PROMPT_DEPTH_VISION,
                backbone.vision_transformer.layers,
                name,
            )
        return IndependentPrompts(node, self.classnames, backbone)


class FeatureTrainer(PromptTrainer):
    """Classifiers of CLIP's own image features, fitted to those of the training images before the first epoch.

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K). What it learned of the classes is in its
    ``class_parameters``; without them, for classes that were not trained, it gives the zero-shot logits.
    """

    shape_setting = None

    @cached_property
    def hand_crafted(self) -> Tensor:
        """Features (K, E) of the data set's prompt, for ImageNet the mean over the seven selected ones, as Tip-Adapter has it."""
        templates = (
            SELECTED_TEMPLATES
            if self.cfg.DATASET.NAME.startswith("ImageNet")
            else [self.hand_crafted_template()]
        )
        with torch.no_grad(), self.precision.autocast():
            features = [self.encode_classes(template) for template in templates]
            return F.normalize(self.with_descriptions(torch.stack(features).sum(dim=0)), dim=-1)

    def encode_prompts(self) -> tuple[Tensor, Prompts | None]:
        return self.hand_crafted[None], None  # (1, K, E)

    def scores(
        self, images: Tensor, encoded: tuple[Tensor, Prompts | None] | None = None
    ) -> Scores:
        text_features, _ = encoded or self.encode_prompts()
        features = self.encode_images(images)  # (1, B, E)
        logits = self.logits(features, text_features)  # (1, B, K)
        with torch.autocast(self.device.type, enabled=False):
            return Scores(
                self.prompt_learner(features[0], logits[0])[None], features, text_features, images
            )

    def parameter_groups(self) -> list[dict[str, object]]:
        return [
            {"params": list(self.prompt_learner.parameters()), "lr": 0.0}
        ]  # nothing is left for epochs to learn

    def before_train(self) -> None:
        super().before_train()
        if (
            self.start_epoch == 0 and self.train_loader_x.batches_done == 0
        ):  # not where it goes on in the middle of the first epoch
            with torch.random.fork_rng(
                devices=[]
            ):  # a loader draws a seed; training must not depend on this pass
                self.fit()

    def fit(self) -> None:
        """Makes the learner out of ``training_images``."""
        raise NotImplementedError

    def validation_features(self) -> tuple[Tensor, Tensor] | None:
        """Features (N, E) and labels (N,) of validation images that are none of the test's; None without such."""
        if self.val_loader is None or validates_on_test_images(self.dm.dataset):
            return None
        with torch.random.fork_rng(devices=[]):
            features, labels = self.features_of(
                self.images_or_features(self.val_loader, "val", None), "val"
            )
        return features[0], labels
