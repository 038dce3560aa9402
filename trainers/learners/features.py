"""Classifiers of the frozen CLIP's image features, fitted in seconds: the common part of Tip-Adapter, GDA
and the linear probe.

Each has settings, such as the weight of its logits beside the texts'. ``held_out_logits`` gives its
answers to images that it was not fitted to under each of several settings, and ``fit`` fits it to
images under one of them. Which setting is taken is up to the caller: a method's ``start`` takes the
one that is best for validation images, cross-validation the one that is best for folds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import in_float64
from ..evaluation.prediction import Prediction, Scores
from ..evaluation.uncertainty import fit_temperature
from ..method import Batches, Encoded, Method, TrainingImages
from ..texts.templates import SELECTED_TEMPLATES

Numbers = tuple[float, ...]  # a setting: α, or β and α, or C
# those at which the likelihoods of settings are compared; between them the likelihood is taken for a
# parabola
TEMPERATURES = [1.5**power for power in range(-6, 13)]


@dataclass(frozen=True)
class Grid:
    """Settings that are compared by the likelihood of held-out labels.

    Attributes:
        settings: in the order of their trial.
        usual: the centre of each number's normal logarithm a priori (``MostLikely``).
        falls: after so many settings in a row below the best no more are tried; None: all are.
    """

    settings: Sequence[Numbers]
    usual: Numbers
    falls: int | None = None


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-likelihood (T,) of labels (N,) under logits (N, K) at each of ``TEMPERATURES``, in float64."""
    logits = in_float64(logits)
    labels = labels.to(logits.device)
    values = [
        -F.cross_entropy(logits / temperature, labels, reduction="sum").item()
        for temperature in TEMPERATURES
    ]
    return torch.tensor(values, dtype=torch.float64)


def peak(values: Sequence[float]) -> float:
    """The largest of evenly spaced values, or the top of the parabola through it and its neighbours."""
    top = max(range(len(values)), key=lambda index: values[index])
    if not 0 < top < len(values) - 1:
        return values[top]
    left, middle, right = values[top - 1 : top + 2]
    bend = 2 * middle - left - right
    return middle + (right - left) ** 2 / (8 * bend) if bend > 0 else middle


class MostLikely:
    """The setting of a grid that is most likely after held-out images, at its best temperature.

    Before, the logarithm of each of its numbers is normal around that of ``grid.usual``, with a standard
    deviation of a factor of ten. The likelihood grows with the number of images and the prior does
    not: few images, which can't tell, hardly move a setting, and with many the prior hardly counts.

    Attributes:
        setting: the best tried one.
        is_found: whether no more settings need be tried.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.setting = grid.usual
        self.is_found = False
        self.most = -math.inf
        self.fallen = 0

    def add(self, setting: Numbers, likelihood: Tensor) -> None:
        """Takes note of a setting's ``log_likelihood`` (T,); of none after ``is_found``."""
        if self.is_found:
            return
        pairs = zip(setting, self.grid.usual)
        distances = [math.log10(number / middle) for number, middle in pairs]
        score = peak(likelihood.tolist()) - sum(distance**2 for distance in distances) / 2
        if score > self.most:
            self.setting = setting
            self.most = score
            self.fallen = 0
        else:
            self.fallen += 1
        self.is_found = self.fallen == self.grid.falls


def number_right(logits: Tensor, labels: Tensor) -> int:
    """Count the labels (N,) that have the largest of logits (N, K)."""
    return int((logits.argmax(dim=1) == labels.to(logits.device)).sum())


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature under which labels (N,) are most likely by logits (N, K)."""
    return fit_temperature(logits.log_softmax(dim=1), labels)


def answers_at(logits: Tensor, temperature: float) -> Prediction:
    """Answers of logits (N, K) at a temperature."""
    logits = logits.float()
    return Prediction((logits / temperature).softmax(dim=-1), energy=-logits.logsumexp(dim=-1))


def templates_for(dataset: str, others: list[str]) -> list[str]:
    """The hand-crafted prompts of Tip-Adapter: for ImageNet the seven selected ones."""
    return SELECTED_TEMPLATES if dataset.startswith("ImageNet") else others


class SizedByState(nn.Module):
    """A learner that makes its tensors named in ``sized`` as large as in the state that it
    loads."""

    sized: tuple[str, ...]

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:  # noqa: ANN401  (torch's own type is private)
        # not by a hook: the one before a module loads is public from torch 2.5 on
        for name in state_dict.keys() & {*self.sized}:
            tensor = getattr(self, name)
            tensor.data = tensor.new_empty(state_dict[name].shape)
        return super().load_state_dict(state_dict, strict, assign)


class FeatureMethod(Method):
    """A classifier of image features, fitted in seconds, without epochs. It has a ``grid`` of
    settings, answers held-out images under each, and fits itself under one of them.

    The learner maps features (B, E) and zero-shot logits (B, K) to logits (B, K), which count at its
    ``temperature``. Without its ``class_part``, for classes that were not trained, it gives the
    zero-shot logits.
    """

    learner: nn.Module
    prompts_texts = False
    needs_texts = False
    learns_in_epochs = False
    tells_by_images = True

    def hand_crafted_templates(self) -> list[str]:
        return templates_for(self.dataset, super().hand_crafted_templates())

    def encode(self) -> Encoded:
        return self.hand_crafted[None], None  # (1, K, E)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        texts, _ = encoded or self.encode()
        features = self.towers.encode_images(images)  # (1, B, E)
        logits = self.towers.logits(features, texts)  # (1, B, K)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.learner(features[0], logits[0])[None]
        return Scores(logits, features, texts, images)

    def predict(self, logits: Tensor) -> Prediction:
        """Return the ``Prediction`` at the learner's temperature; classes that were not trained are
        answered by the texts alone."""
        if self.left_out:
            return super().predict(logits)
        temperature = self.learner.get_buffer("temperature")
        return Prediction((logits[0] / temperature).softmax(dim=-1))

    def learned_figures(self) -> dict[str, float]:
        buffers = self.learner.named_buffers()
        return {name: value.item() for name, value in buffers if value.dim() == 0}

    @property
    def augmented_views(self) -> int:
        """Number of augmented views of a training image; 0: it is shown as it is tested."""
        return 0

    def views_of(self, training: TrainingImages) -> tuple[Tensor, Tensor]:
        """Features (R, N, E), of any length, of the training images in R augmented views, or as they are
        tested where there are none; labels (N,)."""
        if not self.augmented_views:
            return self.towers.features_of(training(), normalize=False)
        # (1, N, E), (N,) each
        views = [
            self.towers.features_of(training(augmented=True), normalize=False)
            for _ in range(self.augmented_views)
        ]
        return torch.cat([features for features, _ in views]), views[0][1]

    def shown_features(self, training: TrainingImages, views: Tensor) -> Tensor:
        """Features (N, E), of any length, of the training images as they are tested; views: of
        ``views_of``, which are these where nothing is augmented."""
        if not self.augmented_views:
            return views[0]
        features, _ = self.towers.features_of(training(), normalize=False)  # (1, N, E)
        return features[0]

    def validation_features(self, validation: Batches) -> tuple[Tensor, Tensor]:
        """Features (N, E), of length one, and labels (N,) of validation images."""
        (features,), labels = self.towers.features_of(validation)
        return features, labels

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits (N, K) of the hand-crafted prompts for features (N, E)."""
        return self.towers.logits(features[None], self.hand_crafted[None])[0]

    @property
    def grid(self) -> Grid:
        """The settings from which the most likely one is taken."""
        raise NotImplementedError

    def held_out_logits(
        self, features: Tensor, labels: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        """Yield the logits (N', K) of other images, one setting after the other, each by the classifier that
        is fitted to the images under it.

        Args:
            features: (R, N, E) of R views of the images, of any length; labels: (N,).
            asked: (N', E), of the other images, of length one.
            settings: in the order of the ``grid``.
        """
        raise NotImplementedError

    def fit(self, features: Tensor, labels: Tensor, setting: Numbers) -> None:
        """Fit the learner to images under a setting of ``held_out_logits``."""
        raise NotImplementedError

    def set_temperature(self, temperature: float) -> None:
        """Sets the temperature of the answers."""
        self.learner.get_buffer("temperature").fill_(temperature)


def is_feature_classifier(method: Method) -> TypeGuard[FeatureMethod]:
    """Whether a method's training is one fit to image features."""
    return method.learner is not None and not method.learns_in_epochs
