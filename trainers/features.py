"""What Tip-Adapter and the linear probe share: classifiers of CLIP's own image features."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation.prediction import Scores
from .method import Encoded, Method, ParameterGroups, TrainingImages
from .templates import SELECTED_TEMPLATES


class SizedByState(nn.Module):
    """A learner that makes its tensors named in ``sized`` as large as those of a state that it
    loads."""

    sized: tuple[str, ...]

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        # not by a hook: the one before a module loads is public from torch 2.5 on
        for name in state_dict.keys() & {*self.sized}:
            tensor = getattr(self, name)
            tensor.data = tensor.new_empty(state_dict[name].shape)
        return super().load_state_dict(state_dict, strict, assign)


class FeatureMethod(Method):
    """Fitted to the features of the training images before the first epoch.

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K). What it learned
    of the classes is in its ``class_parameters``; without them, for classes that were not trained,
    it gives the zero-shot logits.
    """

    learner: nn.Module
    shape_setting = None

    def hand_crafted_templates(self) -> list[str]:
        """For ImageNet the seven selected ones, as Tip-Adapter has it."""
        if self.dataset.startswith("ImageNet"):
            return SELECTED_TEMPLATES
        return super().hand_crafted_templates()

    def augmented_features(
        self, training: TrainingImages, normalize: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Features (R, N, E) and labels (N,) of the training images in R = AUGMENT_EPOCH augmented
        views."""
        views = [
            self.features_of(training(augmented=True), normalize=normalize)
            for _ in range(self.settings.AUGMENT_EPOCH)
        ]  # (1, N, E), (N,) each
        return torch.cat([features for features, _ in views]), views[0][1]

    def encode(self) -> Encoded:
        return self.hand_crafted[None], None  # (1, K, E)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        features = self.encode_images(images)  # (1, B, E)
        logits = self.logits(features, texts)  # (1, B, K)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.learner(features[0], logits[0])[None]
        return Scores(logits, features, texts, images)

    def learned_figures(self) -> dict[str, float]:
        buffers = self.learner.named_buffers()
        return {name: value.item() for name, value in buffers if value.dim() == 0}

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": list(self.learner.parameters()), "lr": 0.0}]  # epochs learn nothing more
