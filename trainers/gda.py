"""GDA: zero-shot CLIP plus Gaussian discriminant analysis of its image features (Wang et al., 2024,
"A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", §3). Each class is a Gaussian, all
have one covariance; nothing is trained. The Gaussian of a class without images is made of its text
and of the training images nearest to it (§3.3). Ours: validation images fit a temperature, which
leaves every answer and makes its probability mean something, and training images one for classes
without images, as if their own had none; and where a list has trained classes and others, the texts
say whether an image is of the trained ones (``gaussians.among_added``).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart, State
from .common.setting import Setting, at_least, node_of
from .evaluation.prediction import Prediction
from .learners.features import (
    CHOICES,
    FilledMethod,
    HeldOut,
    Numbers,
    SizedByState,
    best_temperature,
    most_likely,
    number_right,
)
from .maths.gaussians import (
    WAY_OF_ADDED,
    GaussianEvidence,
    among_added,
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
SHARES = [10 ** (power / 2) for power in range(-8, 7)]  # likewise by likelihood, see ``unit``


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
        at_least(0, 1000000),
    ),
    "CHOICE": Setting(
        "accuracy",
        "of settings: by right answers to validation images, as officially; or by likelihood, of "
        "training images in folds",
        CHOICES,
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
        logits = zero_shot[:, trained] + self.alpha * votes
        if not self.gaussians.has_added:
            return logits
        known = (logits / self.temperature).log_softmax(dim=-1)
        level = self.gaussians(features)[:, trained].logsumexp(dim=-1)  # (B,)
        texts = zero_shot.log_softmax(dim=-1)  # (B, K)
        return self.temperature * among_added(texts, known, level, asked)


class GDAMethod(FilledMethod):
    """Training-free: a recipe's single epoch only measures."""

    declared = SETTINGS
    learner: GaussianClassifier
    class_part = ClassPart(("weight", "bias", "gaussians"))
    whole_validation = True

    def build(self) -> GaussianClassifier:
        return GaussianClassifier(self)

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fits the Gaussians, and the settings to validation images. Without such images α is ALPHA
        and T is 1."""
        self.fill(*self.views_of(training))
        self.fit_evidence()
        if validation is not None:
            self.choose(self.held_out(validation))
            self.fit_text_temperature()
        classifier = self.learner
        log.info(
            f"Gaussians of {len(classifier.features)} features, α {classifier.alpha:.3g}, "
            f"temperature {classifier.temperature:.3g}, of texts {classifier.text_temperature:.3g}"
        )

    @torch.no_grad()
    def fill(self, features: Tensor, labels: Tensor) -> None:
        classifier = self.learner
        features = F.normalize(features, dim=-1)
        classifier.features = features.flatten(0, 1)
        fit = fit_gaussians if self.settings.SHRINK else pooled_gaussians
        self.images = len(labels)
        self.labels = labels.repeat(len(features))
        means, precision = fit(classifier.features, self.labels, len(self.classnames))
        weight, bias = discriminants(means, precision)
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)

    @property
    def unit(self) -> float:
        """α of the setting 1: by likelihood N / E, under which the Gaussians' logits, whose precision is
        E over N − 1 covariances, are log-densities, of any number N of images."""
        if not self.by_likelihood:
            return 1.0
        images, width = self.learner.features.shape
        return images / width

    @torch.no_grad()
    def under(self, features: Tensor) -> Callable[[Numbers], Tensor]:
        unit = self.unit
        under = self.with_votes(features, self.learner.weight, self.learner.bias)
        return lambda setting: under((setting[0] * unit,))

    def with_votes(
        self, features: Tensor, weight: Tensor, bias: Tensor
    ) -> Callable[[Numbers], Tensor]:
        """Logits (N, K) under α, by weights (K, E) and biases (K,)."""
        zero_shot = self.zero_shot(features)
        votes = F.linear(features, weight, bias)
        return lambda setting: zero_shot + setting[0] * votes

    def best(self, held_out: Sequence[HeldOut]) -> Numbers:
        """The α with the highest accuracy, the first of equal ones, or the most likely one."""
        if self.by_likelihood:
            return most_likely([(share,) for share in SHARES], (1.0,), held_out)
        return (max(ALPHAS, key=lambda alpha: number_right((alpha,), held_out)),)

    def take(self, setting: Numbers) -> None:
        self.learner.alpha.fill_(setting[0] * self.unit)

    def fit_for_other_classes(self) -> None:
        self.fit_evidence()
        self.fit_text_temperature()

    @torch.no_grad()
    def fit_evidence(self) -> None:
        """Fits the Gaussians that tell trained classes from others.

        They are of the views' means: of two views of one image, none would be held out from the
        other.
        """
        classifier = self.learner
        views = classifier.features.unflatten(0, (-1, self.images))  # (R, N, E)
        features = F.normalize(views.mean(dim=0), dim=-1)
        classifier.gaussians.fit(features, self.labels[: self.images])

    @torch.no_grad()
    def fit_text_temperature(self) -> None:
        """Sets the temperature under which the training images' labels are most likely, where each
        class has a Gaussian of its text and of the other classes' images."""
        classifier = self.learner
        features = classifier.features
        gaussians = gaussians_of_texts(features, self.hand_crafted, self.labels)
        under = self.with_votes(features, *discriminants(*gaussians))
        setting = (classifier.alpha.item(),)
        temperature = best_temperature(setting, [HeldOut(under, self.labels)])
        classifier.text_temperature.fill_(temperature)

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
        """The Gaussians serve every list with a trained class."""
        return state_for(state, classes, self.learner.gaussians)

    def load(self, state: State, classnames: Sequence[str]) -> None:
        """Where no trained class is asked for, it makes the others' Gaussians."""
        super().load(state, classnames)
        if self.left_out:
            means, precision = gaussians_of_texts(self.learner.features, self.hand_crafted)
            self.learner.others = discriminants(means, precision)

    def way_of_added(self) -> str:
        if self.left_out:
            return "Each class has a Gaussian of its text and of the training images nearest to it"
        return WAY_OF_ADDED


GDA = registered(GDAMethod)
