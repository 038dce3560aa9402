"""Gaussian discriminant analysis of image features: the classifier that few images determine best.

Each class is a normal distribution of features with a mean of its own and one covariance for all.
Nothing is trained: means and covariance are the images'.

References:
    - Wang et al. (2024), "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation".
    - Kubokawa and Srivastava (2008), "Estimation of the precision matrix of a singular Wishart
      distribution": the shrunken inverse, which exists with fewer images than dimensions.
"""

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..class_part import ADDED, State
from ..devices import in_float64
from .threads import one_thread

log = logging.getLogger(__name__)

DENSITY_FOLDS = 4  # each image of a class is held out in one of them
DENSITY_FACTORS = [1.15**power for power in range(-60, 41)]  # of log-densities, 2e-4 to 268
NEAREST_IMAGES = 64  # images that, with its text, make a class without images
TEXT_COPIES = 16  # copies of that text
MARGIN = 0.5  # nats, in ``among_added``
MOST_LEVEL = 2.0  # likewise
WAY_OF_ADDED = (
    "The texts and the level of the Gaussians' evidence say whether an image is of a trained class"
)


@one_thread()
def fit_gaussians(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, E) of K classes and their common precision (E, E), in float64.

    The precision is E · ((N − 1) S + tr(S) I)⁻¹ with the covariance S of the features around their
    classes' means. A class without images has the mean of all.

    Args:
        features: (N, E); labels: (N,); classes: K.
    """
    features = in_float64(features)
    labels = labels.to(features.device)
    members = F.one_hot(labels, classes).double()  # (N, K)
    counts = members.sum(dim=0)[:, None]  # (K, 1)
    means = members.t() @ features / counts.clamp(min=1)
    means = torch.where(counts > 0, means, features.mean(dim=0))  # (K, E)
    around = features - means[labels]  # (N, E)
    scatter = around.t() @ around  # (E, E), (N − 1) S
    return means, shrunken_precision(scatter, len(features))


@one_thread()
def shrunken_precision(scatter: Tensor, images: int) -> Tensor:
    """E · (C + tr(C) / (N − 1) I)⁻¹ of the scatter C (E, E) of N images, N − 1 times their
    covariance."""
    trace = scatter.trace() / max(1, images - 1)
    if trace == 0:  # one image per class has no spread: then all directions count alike
        trace = torch.ones_like(trace)
    ridge = trace * torch.eye(len(scatter)).to(scatter)
    precision: Tensor = len(scatter) * torch.linalg.inv(scatter + ridge)
    return precision


@one_thread()
def pooled_gaussians(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, E) of (N, E) features, and the pseudo-inverse (E, E) of the mean over the classes of
    their covariances; in float64, cut off where the official one, in float32, is."""
    means, _ = fit_gaussians(features, labels, classes)
    features = in_float64(features)
    labels = labels.to(features.device)
    counts = labels.bincount(minlength=classes).clamp(min=2)
    around = features - means[labels]  # (N, E)
    covariance = around.t() @ (around / (classes * (counts[labels, None] - 1)))
    rtol = len(covariance) * torch.finfo(torch.float32).eps
    return means, torch.linalg.pinv(covariance, rtol=rtol, hermitian=True)


@one_thread()
def gaussians_of_texts(
    features: Tensor, texts: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means (K, E) and common precision (E, E) of classes that have texts (K, E) and no images.

    A mean is over the nearest of the N training images and copies of the text; the precision is the
    mean over classes of their nearest images' around the text.

    Args:
        features: (N, E), of the training images.
        labels: (N,), of the same, if the classes do have images: none is near its own class.
    """
    features = in_float64(features)
    texts = in_float64(texts)
    similarity = texts @ features.t()  # (K, N)
    count = len(features)
    if labels is not None:
        labels = labels.to(texts.device)
        similarity.scatter_(0, labels[None], -torch.inf)
        count -= int(labels.bincount().max())
    count = min(NEAREST_IMAGES, count)
    nearest = features[similarity.topk(count).indices]  # (K, k, E)
    means = (nearest.sum(dim=1) + TEXT_COPIES * texts) / (count + TEXT_COPIES)
    precision = torch.zeros_like(texts.t() @ texts)
    for around in nearest - texts[:, None]:  # (k, E); all at once would be K · E² numbers
        precision += shrunken_precision(around.t() @ around, count) / len(texts)
    return means, precision


def discriminants(means: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """W = μ P (K, E) and b = −½ μᵀ P μ (K,), in fp32: W z + b is the log density of z up to a term that all
    classes share."""
    weight = means @ precision
    return weight.float(), -(weight * means).sum(dim=1).float() / 2


def log_densities(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """log N(z; μ_k, P⁻¹) up to a constant, −½ (z − μ_k)ᵀ P (z − μ_k): (N, E) → (N, K)."""
    projected = features @ precision
    return (
        projected @ means.t()  # (N, K)
        - (projected * features).sum(dim=-1, keepdim=True) / 2
        - (means @ precision * means).sum(dim=-1) / 2
    )


def held_out_log_densities(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``log_densities`` (N, K) of each image under Gaussians of the others.

    The images of each class go to ``DENSITY_FOLDS`` folds in turn; a fold is judged by the rest.
    """
    features = in_float64(features)
    labels = labels.to(features.device)
    number_in_class = F.one_hot(labels, classes).cumsum(dim=0)  # (N, K)
    turn = number_in_class.gather(1, labels[:, None])[:, 0]  # (N,), which image of its class
    densities = features.new_empty(len(labels), classes)
    for fold in range(DENSITY_FOLDS):
        held = turn % DENSITY_FOLDS == fold
        means, precision = fit_gaussians(features[~held], labels[~held], classes)
        densities[held] = log_densities(features[held], means, precision)
    return densities


class GaussianEvidence(nn.Module):
    """Evidence for K classes from image features alone: Gaussians of the training images.

    It gives evidence for the classes that it has seen, and none for others (``among_added``). A
    method that is asked for others alone has None in its place.

    Args:
        width: E; classes: K.

    Attributes:
        means: (K, E), precision: (E, E) of the Gaussians; zeros until they are fitted.
        offset: (), mean over training images of the level, by ``fit``.
        level_scale: (), factor s of the level's deviations, at most 1.
        classes: (K,), the listed ones, as indices of the trained ones, or ``ADDED``.
        asked: the same as numbers, which an exported model holds as constants.
        is_fitted: whether the Gaussians are set.
    """

    means: Tensor
    precision: Tensor
    offset: Tensor
    level_scale: Tensor
    classes: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, width))
        self.register_buffer("precision", torch.zeros(width, width))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("level_scale", torch.ones(()))
        self.register_buffer("classes", torch.arange(classes))
        self.is_fitted = False
        self.asked = list(range(classes))
        nn.Module.register_load_state_dict_post_hook(self, note_fitted)

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Sets the Gaussians of features (N, E), of length one, with labels (N,).

        The log-densities are multiplied by the factor of ``DENSITY_FACTORS`` under which the labels of
        held-out images are most likely: densities in many dimensions are far too sure. Their level,
        log Σ_k e_k / K, has a mean of 0 over these images and a standard deviation of at most 1: it
        differs between images by far more than it tells of any class, and an image without any
        evidence would have no answer (chosen by cross-validation, docs/log.md). With one image per
        class nothing can be held out: then nothing is set.
        """
        classes = len(self.means)
        if labels.bincount().max() < 2:
            log.info("The Gaussians give no evidence: no class has a second training image")
            return
        held_out = held_out_log_densities(features, labels, classes)  # (N, K)
        labels = labels.to(held_out.device)
        factor = min(DENSITY_FACTORS, key=lambda by: F.cross_entropy(by * held_out, labels).item())
        means, precision = fit_gaussians(features, labels, classes)
        self.means.copy_(means)
        self.precision.copy_(factor * precision)
        level = (factor * held_out).logsumexp(dim=-1)  # (N,)
        self.offset.copy_(level.mean())
        self.level_scale.copy_(1 / level.std().clamp(min=1))
        self.is_fitted = True

    @property
    def has_added(self) -> bool:
        """Whether any class that is asked for is none of the trained ones."""
        return ADDED in self.asked

    def forward(self, features: Tensor) -> Tensor:
        """log(e_k / K) at level 0 for features (B, E): (B, K), always in fp32, −∞ for added classes.

        It is v_k − (1 − s) log Σ_j exp(v_j), v being the log densities less the offset and s the
        level's scale. K are the classes asked for, j goes over all that it was fitted to.
        """
        with torch.autocast(features.device.type, enabled=False):  # half has too few digits for it
            evidence = log_densities(features, self.means, self.precision) - self.offset
            level = evidence.logsumexp(dim=-1, keepdim=True)  # (B, 1)
            evidence = evidence + (self.level_scale - 1) * level  # (B, T)
            nothing = torch.full_like(level, -torch.inf)  # (B, 1), the last column, which ADDED is
            return torch.cat([evidence, nothing], dim=1)[:, self.asked]

    def with_added(
        self, features: Tensor, logits: Tensor, zero_shot: Tensor, temperature: Tensor
    ) -> Tensor:
        """Logits (B, K) at a temperature for a list of trained and of added classes, by ``among_added``.

        Args:
            features: (B, E); logits: (B, T), among the T trained classes on the list.
            zero_shot: (B, K), the texts' logits.
        """
        known = (logits / temperature).log_softmax(dim=-1)
        trained = positions_of_trained(self.asked)
        level = self(features)[:, trained].logsumexp(dim=-1)  # (B,)
        texts = zero_shot.log_softmax(dim=-1)  # (B, K)
        return temperature * among_added(texts, known, level, self.asked)


def state_for(state: State, classes: Sequence[int], own: GaussianEvidence) -> State | None:
    """A learner's state whose Gaussians, its ``gaussians``, serve a list of classes; None where they
    can't: there is no trained class, or others beside them and no evidence to tell them apart.

    Args:
        state: of a learner for the trained classes; classes: their numbers, or ``ADDED``.
        own: the Gaussians that will load it, which become as many as were trained.
    """
    is_fitted = bool(state["gaussians.precision"].any())
    has_trained = bool(positions_of_trained(classes))
    if ADDED in classes and not (is_fitted and has_trained):
        return None
    own.means = own.means.new_empty(state["gaussians.means"].shape)
    return {**state, "gaussians.classes": torch.tensor(classes)}


def among_added(texts: Tensor, known: Tensor, level: Tensor, asked: Sequence[int]) -> Tensor:
    """Log-probabilities (B, K) for a list of trained and of added classes.

    There are texts of all classes, but images of the trained ones only. Whether an image is of a
    trained class is decided by the texts and by its level of evidence, which is 0 for a typical image
    of these classes. Among the trained classes the classifier that has seen images decides:

        log P(trained) / P(added) = log Σ_trained p_k / Σ_added p_k + level − MARGIN.

    Under ``MARGIN`` 0.5 images of added classes are answered as well as by the texts alone, and
    trained classes' far better (chosen by cross-validation, docs/log.md). The level counts
    ±``MOST_LEVEL`` at most: pictures unlike all that were trained on can be of either kind.

    Args:
        texts: (B, K), log-probabilities log p_k by the texts.
        known: (B, T), logits among the T trained classes on the list, in its order.
        level: (B,), as in ``GaussianEvidence``.
        asked: K numbers, ``ADDED`` for the added ones.
    """
    trained = positions_of_trained(asked)
    added = [position for position, number in enumerate(asked) if number == ADDED]
    others = texts[:, added]  # (B, K − T)
    of_others = others.logsumexp(dim=-1)  # (B,)
    level = level.clamp(-MOST_LEVEL, MOST_LEVEL)  # (B,)
    odds = texts[:, trained].logsumexp(dim=-1) - of_others + level - MARGIN  # (B,)
    of_trained = F.logsigmoid(odds)[:, None] + known  # (B, T)
    of_added = F.logsigmoid(-odds)[:, None] + others - of_others[:, None]  # (B, K − T)
    order = [*trained, *added]
    return torch.cat([of_trained, of_added], dim=1)[:, [order.index(k) for k in range(len(order))]]


def positions_of_trained(asked: Sequence[int]) -> list[int]:
    """Return the places of the trained classes on a list, for ``among_added``."""
    return [position for position, number in enumerate(asked) if number != ADDED]


def note_fitted(gaussians: GaussianEvidence, *_: object) -> None:
    """Takes loaded Gaussians for fitted where they are set, and the classes that are asked for."""
    gaussians.is_fitted = bool(gaussians.precision.any())
    gaussians.asked = gaussians.classes.tolist()
