"""What Tip-Adapter, GDA and the linear probe share: classifiers of CLIP's own image features."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation.prediction import Prediction, Scores
from .evaluation.uncertainty import fit_temperature
from .method import Batches, Encoded, Method, ParameterGroups, TrainingImages
from .templates import SELECTED_TEMPLATES

Setting = tuple[float, ...]  # the numbers that a method takes of held-out images
# logits (N, K) of held-out images under a setting, and their labels (N,)
HeldOut = tuple[Callable[[Setting], Tensor], Tensor]


def number_right(setting: Setting, held_out: Sequence[HeldOut]) -> int:
    """How many of all held-out images are answered right under a setting."""
    return sum(int((under(setting).argmax(dim=1) == labels).sum()) for under, labels in held_out)


def best_temperature(setting: Setting, held_out: Sequence[HeldOut]) -> float:
    """The temperature under which the labels of all held-out images are most likely."""
    logits = torch.cat([under(setting) for under, _ in held_out])  # (N, K)
    labels = torch.cat([labels for _, labels in held_out])  # (N,)
    return fit_temperature(logits.log_softmax(dim=1), labels)


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

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K). Without its
    ``class_part``, for classes that were not trained, it gives the zero-shot logits.
    """

    learner: nn.Module
    shape_setting = None
    prompts_texts = False

    def hand_crafted_templates(self) -> list[str]:
        """For ImageNet the seven selected ones, as Tip-Adapter has it."""
        if self.dataset.startswith("ImageNet"):
            return SELECTED_TEMPLATES
        return super().hand_crafted_templates()

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


class FilledMethod(FeatureMethod):
    """A method that is filled with the features of training images, and takes its settings by held-out
    ones: it can be fitted to features alone, as often as cross-validation asks for it."""

    def fill(self, features: Tensor, labels: Tensor) -> None:
        """Sets what is made of the training images alone, of features (R, N, E) of R views, of any
        length, and labels (N,)."""
        raise NotImplementedError

    def under(self, features: Tensor) -> Callable[[Setting], Tensor]:
        """What it says of held-out images as it is filled now: a function that maps a setting to
        logits (N, K); features: (N, E), of length one."""
        raise NotImplementedError

    def choose(self, held_out: Sequence[HeldOut]) -> None:
        """Takes the settings that are best for all held-out images together. Each part of these may
        have been answered by the method as it was filled with other images."""
        raise NotImplementedError

    def fit_for_other_classes(self) -> None:
        """Sets what only answers among other classes take, when all else is fitted: cross-validation,
        which never asks for others, does without."""

    def predict(self, logits: Tensor) -> Prediction:
        """At the learner's ``temperature``; other classes' answers are the texts' alone."""
        if self.left_out:
            return super().predict(logits)
        temperature = self.learner.get_buffer("temperature")
        return Prediction((logits[0] / temperature).softmax(dim=-1))

    def views_of(self, training: TrainingImages) -> tuple[Tensor, Tensor]:
        """What it is filled with: features (R, N, E), of any length, of the training images in R =
        AUGMENT_EPOCH augmented views, or as they are where it takes no views; labels (N,)."""
        rounds = self.settings.get("AUGMENT_EPOCH", 0)
        if not rounds:
            return self.features_of(training(), normalize=False)
        views = [
            self.features_of(training(augmented=True), normalize=False) for _ in range(rounds)
        ]  # (1, N, E), (N,) each
        return torch.cat([features for features, _ in views]), views[0][1]

    def held_out(self, validation: Batches) -> list[HeldOut]:
        """Validation images, for ``choose``."""
        (features,), labels = self.features_of(validation)  # (N, E), (N,)
        return [(self.under(features), labels)]

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits (N, K) of the hand-crafted prompts for features (N, E)."""
        return self.logits(features[None], self.hand_crafted[None])[0]
