"""GDA: zero-shot CLIP plus Gaussian discriminant analysis of its image features (Wang et al., 2024,
"A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", §3). Each class is a Gaussian, all
have one covariance; nothing is trained. The Gaussian of a class without images is made of its text
and of the training images nearest to it (§3.3). Ours: validation images fit a temperature, which
leaves every answer and makes its probability mean something, and training images one for classes
without images, as if their own had none; and where a list has trained classes and others, the texts
say whether an image is of the trained ones (``gaussians.among_added``).
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart, State
from .common.setting import Setting, at_least, node_of
from .evaluation.prediction import Prediction
from .learners.features import (
    FeatureMethod,
    Grid,
    Numbers,
    SizedByState,
    best_temperature,
    number_right,
)
from .maths.gaussians import (
    WAY_OF_ADDED,
    GaussianEvidence,
    discriminants,
    fit_gaussians,
    gaussians_of_texts,
    pooled_gaussians,
    positions_of_trained,
    state_for,
)
from .method import Batches, Method, TrainingImages
from .registration import registered
from .settings import PRECISION

log = logging.getLogger(__name__)
ALPHAS = [10.0**power for power in range(-4, 3)]  # values of α that are tried, in this order
UNITS = [10 ** (power / 2) for power in range(-8, 7)]  # settings of the ``grid``, in ``unit``s


SETTINGS = {
    "ALPHA": Setting(
        0.1,
        "α, weight of the Gaussians' logits, where there are no validation images",
        at_least(0),
    ),
    "SHRINK": Setting(True, "shrinks the covariance; officially in few-shot, not in base-to-new"),
    "AUGMENT_EPOCH": Setting(
        10,
        "augmented views of a training image, each a sample; 0: only as images are tested",
        at_least(0, 1000),
    ),
    **PRECISION,
}


def add_gda_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.GDA``."""
    cfg.TRAINER.GDA = node_of(SETTINGS)


class GaussianClassifier(SizedByState):
    """Weights (T, E) and biases (T,) of T trained classes, the features (N, E) they are made of, α,
    the temperatures of answers among trained classes and among others, and the Gaussians' evidence,
    whose ``classes`` are the K that are asked for."""

    weight: Any  # a parameter; None for classes that were not trained, as is the bias
    bias: Any
    others: tuple[Tensor, Tensor]  # the weights and biases of those
    features: Tensor
    alpha: Tensor
    temperature: Tensor
    text_temperature: Tensor
    gaussians: Any  # ``GaussianEvidence``; None as the weights are
    sized = ("features", "weight", "bias")

    def __init__(self, method: Method) -> None:
        super().__init__()
        width = method.backbone.embed_dim
        classes = len(method.classnames)
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("features", torch.zeros(0, width))
        self.register_buffer("alpha", torch.tensor(method.settings.ALPHA))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("text_temperature", torch.ones(()))
        self.gaussians = GaussianEvidence(width, classes)

    def forward(self, features: Tensor, zero_shot: Tensor) -> Tensor:
        """Zero-shot logits + α (W z + b); (B, E), (B, K) → (B, K)."""
        if self.weight is None:
            return zero_shot + self.alpha * F.linear(features, *self.others)
        asked = self.gaussians.asked
        trained = positions_of_trained(asked)
        rows = [asked[position] for position in trained]
        votes = F.linear(features, self.weight, self.bias)[:, rows]  # (B, T)
        logits: Tensor = zero_shot[:, trained] + self.alpha * votes
        if self.gaussians.has_added:
            logits = self.gaussians.with_added(features, logits, zero_shot, self.temperature)
        return logits


def unit(features: Tensor) -> float:
    """α of the setting 1, N / E, for features (R, N, E): under it the Gaussians' logits, whose precision
    is E over N − 1 shrunken covariances, are log-densities, of any number of images."""
    views, images, width = features.shape
    return views * images / width


class GDAMethod(FeatureMethod):
    """Gaussian discriminant analysis of image features, beside the texts; nothing is trained."""

    declared = SETTINGS
    learner: GaussianClassifier
    class_part = ClassPart(("weight", "bias", "gaussians"))
    whole_validation = True

    def build(self) -> GaussianClassifier:
        return GaussianClassifier(self)

    @property
    def augmented_views(self) -> int:
        views: int = self.settings.AUGMENT_EPOCH
        return views

    @property
    def grid(self) -> Grid:
        return Grid([(share,) for share in UNITS], (1.0,))

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fits the Gaussians, and to validation images the α with the highest accuracy, the first of
        equal ones, and the temperature. Without such images α is ALPHA and the temperature 1."""
        features, labels = self.views_of(training)
        classifier = self.learner
        self.set_gaussians(features, labels)
        if validation is not None:
            asked, answers = self.validation_features(validation)
            zero_shot = self.zero_shot(asked)
            votes = F.linear(asked, classifier.weight, classifier.bias)
            alpha = max(ALPHAS, key=lambda each: number_right(zero_shot + each * votes, answers))
            classifier.alpha.fill_(alpha)
            self.set_temperature(best_temperature(zero_shot + alpha * votes, answers))
            self.fit_text_temperature(labels)
        log.info(
            f"Gaussians of {len(classifier.features)} features, α {classifier.alpha:.3g}, "
            f"temperature {classifier.temperature:.3g}, of texts {classifier.text_temperature:.3g}"
        )

    def discriminants_of(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (K, E) and biases (K,) of features (R, N, E), of length one, with labels (N,)."""
        fit = fit_gaussians if self.settings.SHRINK else pooled_gaussians
        repeated = labels.repeat(len(features))
        means, precision = fit(features.flatten(0, 1), repeated, len(self.classnames))
        weight, bias = discriminants(means, precision)
        return weight.to(features.device), bias.to(features.device)

    @torch.no_grad()
    def held_out_logits(
        self, features: Tensor, labels: Tensor, asked: Tensor, settings: Sequence[Numbers]
    ) -> Iterator[Tensor]:
        """As ``FeatureMethod``; a setting is α in ``unit``s."""
        weight, bias = self.discriminants_of(F.normalize(features, dim=-1), labels)
        zero_shot = self.zero_shot(asked)
        votes = F.linear(asked, weight, bias)
        for setting in settings:
            yield zero_shot + setting[0] * unit(features) * votes

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, setting: Numbers) -> None:
        self.set_gaussians(features, labels)
        self.learner.alpha.fill_(setting[0] * unit(features))
        self.fit_text_temperature(labels)

    def set_gaussians(self, features: Tensor, labels: Tensor) -> None:
        """Fit two things to image features (R, N, E): the linear classifier, and the Gaussians that tell
        trained classes from others.

        The Gaussians are fitted to the mean of each image's views: they hold images out, and a view is
        not held out if another view of its image stays in.
        """
        classifier = self.learner
        features = F.normalize(features, dim=-1)  # (R, N, E)
        classifier.features = features.flatten(0, 1)
        weight, bias = self.discriminants_of(features, labels)
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
        classifier.gaussians.fit(F.normalize(features.mean(dim=0), dim=-1), labels)

    def fit_text_temperature(self, labels: Tensor) -> None:
        """Sets the temperature under which the training images' labels (N,) are most likely, where each
        class has a Gaussian of its text and of the other classes' images, if there are texts."""
        if not self.backbone.has_texts:
            return
        classifier = self.learner
        features = classifier.features
        repeated = labels.repeat(len(features) // len(labels))
        gaussians = gaussians_of_texts(features, self.hand_crafted, repeated)
        weight, bias = (part.to(self.device) for part in discriminants(*gaussians))
        votes = F.linear(features, weight, bias)
        logits = self.zero_shot(features) + classifier.alpha.item() * votes
        classifier.text_temperature.fill_(best_temperature(logits, repeated))

    def predict(self, logits: Tensor) -> Prediction:
        classifier = self.learner
        has_images = classifier.weight is not None
        temperature = classifier.temperature if has_images else classifier.text_temperature
        return Prediction((logits[0] / temperature).softmax(dim=-1))

    # ---- other classes ----

    def drop_class_part(self) -> None:
        self.learner.weight = None
        self.learner.bias = None
        self.learner.gaussians = None

    def state_for(self, state: State, classes: Sequence[int]) -> State | None:
        """Return the state for any list with a trained class, which the Gaussians serve."""
        return state_for(state, classes, self.learner.gaussians)

    def load(self, state: State, classnames: Sequence[str]) -> None:
        """Load a state; if no trained class is listed, make the others' Gaussians."""
        super().load(state, classnames)
        if self.left_out:
            means, precision = gaussians_of_texts(self.learner.features, self.hand_crafted)
            weight, bias = discriminants(means, precision)
            self.learner.others = weight.to(self.device), bias.to(self.device)

    def way_of_added(self) -> str:
        if self.left_out:
            return "Each class has a Gaussian of its text and of the training images nearest to it"
        return WAY_OF_ADDED


GDA = registered(GDAMethod)
