"""GDA: zero-shot CLIP plus Gaussian discriminant analysis of its image features (Wang et al., 2024,
"A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", §3). Each class is a Gaussian, all
have one covariance; nothing is trained. The Gaussian of a class without images is made of its text
and of the training images nearest to it (§3.3). Ours: validation images fit a temperature, which
leaves every answer and makes its probability mean something; and where a list has trained classes
and others, the texts say whether an image is of the trained ones (``gaussians.among_added``).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .evaluation.prediction import Prediction
from .evaluation.uncertainty import fit_temperature
from .features import FeatureMethod, SizedByState
from .gaussians import (
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

log = logging.getLogger(__name__)
ALPHAS = [10.0**power for power in range(-4, 3)]  # values of α that are tried, in this order


def add_gda_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.GDA``."""
    cfg.TRAINER.GDA = node = CfgNode()
    node.ALPHA = 0.1  # α, weight of the Gaussians' logits, where there are no validation images
    node.SHRINK = True  # shrinks the covariance; officially in few-shot, not in base-to-new
    node.AUGMENT_EPOCH = 10  # augmented views of a training image, each a sample
    node.PREC = "fp16"


class GaussianClassifier(SizedByState):
    """Weights (T, E) and biases (T,) of T trained classes, the features (N, E) they are made of, α,
    the temperature of the answers, and the Gaussians' evidence, whose ``classes`` are the K that
    are asked for."""

    weight: Any  # a parameter; None for classes that were not trained, as is the bias
    bias: Any
    others: tuple[Tensor, Tensor]  # the weights and biases of those
    features: Tensor
    alpha: Tensor
    temperature: Tensor
    gaussians: GaussianEvidence  # None as the weights are
    class_parameters = ("weight", "bias", "gaussians")  # see ``Method.build``
    sized = ("features", "weight", "bias")

    def __init__(self, method: Method) -> None:
        super().__init__()
        width, classes = method.backbone.embed_dim, len(method.classnames)
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("features", torch.zeros(0, width))
        self.register_buffer("alpha", torch.tensor(method.settings.ALPHA))
        self.register_buffer("temperature", torch.ones(()))
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


class GDAMethod(FeatureMethod):
    """Training-free: a recipe's single epoch only measures."""

    learner: GaussianClassifier
    whole_validation = True
    small = {"AUGMENT_EPOCH": 2}

    def build(self) -> GaussianClassifier:
        return GaussianClassifier(self)

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Fits the Gaussians; takes the α with the highest accuracy on validation images, the first
        of equal ones, and the temperature under which their labels are most likely. Without such
        images α is ALPHA and T is 1."""
        node, classifier, classes = self.settings, self.learner, len(self.classnames)
        with torch.random.fork_rng(devices=[]):  # training must not depend on these passes
            features, labels = self.augmented_features(training)  # (R, N, E), (N,)
            held = None if validation is None else self.features_of(validation)
        classifier.features = features.flatten(0, 1)
        labels = labels.repeat(len(features))
        fit = fit_gaussians if node.SHRINK else pooled_gaussians
        means, precision = fit(classifier.features, labels, classes)
        weight, bias = discriminants(means, precision)
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
        # of the views' means: of two views of one image, none would be held out from the other
        images = F.normalize(features.mean(dim=0), dim=-1)  # (N, E)
        classifier.gaussians.fit(images, labels[: len(images)])
        if held is not None:
            images, answers = held[0][0], held[1]
            zero_shot = self.logits(held[0], self.hand_crafted[None])[0]  # (N_val, K)

            def right(alpha: float) -> int:
                classifier.alpha.fill_(alpha)
                return int((classifier(images, zero_shot).argmax(dim=1) == answers).sum())

            classifier.alpha.fill_(max(ALPHAS, key=right))
            log_probability = classifier(images, zero_shot).log_softmax(dim=1)
            classifier.temperature.fill_(fit_temperature(log_probability, answers))
        log.info(
            f"Gaussians of {len(labels)} features, α {classifier.alpha:.3g}, temperature "
            f"{classifier.temperature:.3g}"
        )

    def predict(self, logits: Tensor) -> Prediction:
        return Prediction((logits[0] / self.learner.temperature).softmax(dim=-1))

    def load(self, state: Mapping[str, Tensor], classnames: Sequence[str]) -> None:
        """The Gaussians serve every list with a trained class; for others alone it makes theirs."""
        if "gaussians.means" in state:
            served = state_for(self.classnames, state, classnames, self.learner.gaussians)
            if served is not None:
                state = served
                classnames = self.classnames
        super().load(state, classnames)
        if self.learner.class_parameters[0] in self.left_out:
            means, precision = gaussians_of_texts(self.learner.features, self.hand_crafted)
            self.learner.others = discriminants(means, precision)


GDA = registered(GDAMethod)
