"""What Tip-Adapter and the linear probe share: classifiers of CLIP's own image features."""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .evaluation.prediction import Scores
from .method import Encoded, Method
from .templates import SELECTED_TEMPLATES


class FeatureMethod(Method):
    """Fitted to the features of the training images before the first epoch.

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K). What it learned of the
    classes is in its ``class_parameters``; without them, for classes that were not trained, it gives
    the zero-shot logits.
    """

    shape_setting = None

    @cached_property
    def hand_crafted(self) -> Tensor:
        """Features (K, E) of the data set's prompt, for ImageNet the mean over the seven selected ones,
        as Tip-Adapter has it."""
        is_imagenet = self.dataset.startswith("ImageNet")
        templates = SELECTED_TEMPLATES if is_imagenet else [self.hand_crafted_template()]
        with torch.no_grad(), self.autocast():
            features = [self.encode_classes(template) for template in templates]
            return F.normalize(self.with_sentences(torch.stack(features).sum(dim=0)), dim=-1)

    def encode(self) -> Encoded:
        return self.hand_crafted[None], None  # (1, K, E)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        features = self.encode_images(images)  # (1, B, E)
        logits = self.logits(features, texts)  # (1, B, K)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.learner(features[0], logits[0])[None]
        return Scores(logits, features, texts, images)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.learner.parameters()), "lr": 0.0}]  # epochs learn nothing more
