"""Logistic regression that adds to known logits, fitted for rising values of C, the inverse of the penalty.

Each fit starts where the one before has ended, in coordinates that make the objective nearly round.

Under ``Softmax`` an image has one of K labels; under ``Sigmoid`` each label is a yes-or-no question of its
own. The known logits t are CLIP's, which are linear in the features. So the penalty on W in W z + s t draws
the sum's weights towards s times the texts' features, instead of towards zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import in_float64
from .threads import one_thread

# a direction's share of the largest spread, below which nothing is learned in it
NEGLIGIBLE = 1e-10
# inverse variances of the priors of biases and of the text's weight: where the data say nothing of them,
# as of a class without images, they stay finite
BIAS_PRIOR = 1e-2
TEXT_PRIOR = 1e-2
# values of the strength C that a likelihood is asked for
STRENGTHS = [10 ** (power / 2) for power in range(-2, 7)]
LAST_GAIN = 1e-4  # share of the objective that a last step gains
MOST_STEPS = 200  # at most, of a fit
IMAGES_AT_ONCE = (
    2048  # images whose yes-or-no errors are computed at a time: 100 labels of them are 1.6 MB
)


@dataclass(frozen=True)
class Regression:
    """Logits W z + b + s t of features z (E,) and known logits t (K,).

    Attributes:
        weight: (K, E), bias: (K,), text_weight: (), in float64 on the CPU.
    """

    weight: Tensor
    bias: Tensor
    text_weight: Tensor

    def __call__(self, features: Tensor, texts: Tensor) -> Tensor:
        """Logits (N, K) of features (N, E) and known logits (N, K), on their device."""
        features = in_float64(features)
        device = features.device
        from_features = features @ self.weight.to(device).t() + self.bias.to(device)
        return from_features + self.text_weight.to(device) * in_float64(texts)


class Link(Protocol):
    """The likelihood of a target given logits.

    Attributes:
        dtype: of computations on single images; sums and parameters are in float64.
        block: images that are computed at a time; None: all.
    """

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def block(self) -> int | None: ...

    def first(self, target: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the biases (K,) that the first search starts from, and the mean curvature (K,) of each
        label's logit there; texts: (N, K), known logits."""

    def loss_and_error(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the log-likelihood () of images, and its slope (B, K) in their logits (B, K), which may
        be overwritten."""

    def mean_curvature(self, blocks: Iterator[Tensor], images: int) -> Tensor:
        """Return the mean (K,) over images of the curvature of each label's logit; blocks: of logits
        (B, K)."""

    def text_curvature(self, data: Tensor, texts: Tensor) -> Tensor:
        """Return the curvature () along the texts' weight; data: (K,), the logits' curvature, times the strength;
        texts: (N, K)."""


class Softmax:
    """One label per image: the target is a label (N,)."""

    dtype = torch.float64
    block = None

    def first(self, target: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        classes = texts.shape[1]
        bias = torch.zeros(classes, dtype=torch.float64)
        return bias, torch.full_like(bias, 1 / classes)

    def loss_and_error(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        error = logits.log_softmax(dim=1)
        right = error.gather(1, target[:, None])
        error = error.exp_().scatter_add_(1, target[:, None], -torch.ones_like(right))
        return -right.sum(), error

    def mean_curvature(self, blocks: Iterator[Tensor], images: int) -> Tensor:
        """Return the mean over the labels, too, for each of them."""
        (logits,) = blocks
        certain = logits.log_softmax(dim=1).exp().square().sum() / images
        classes = logits.shape[1]
        return ((1 - certain) / classes).expand(classes)

    def text_curvature(self, data: Tensor, texts: Tensor) -> Tensor:
        around = texts - texts.mean(dim=1, keepdim=True)
        return data[0] * around.square().sum()


class Sigmoid:
    """Any number of labels per image: the target is (N, K), zeros and ones. In fp32, twice as fast."""

    dtype = torch.float32
    block = IMAGES_AT_ONCE

    def first(self, target: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Start where each label is as frequent as it occurs, beside the texts' logits."""
        rate = (target.double().sum(dim=0) + 0.5) / (len(target) + 1)  # (K,)
        return rate.logit() - texts.double().mean(dim=0), rate * (1 - rate)

    def loss_and_error(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return loss, logits.sigmoid_().sub_(target)

    def mean_curvature(self, blocks: Iterator[Tensor], images: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for logits in blocks:
            probability = logits.sigmoid_()
            total = total + (probability * (1 - probability)).sum(dim=0).double()
        return total / images

    def text_curvature(self, data: Tensor, texts: Tensor) -> Tensor:
        return data @ texts.double().square().sum(dim=0)


def around(texts: Tensor, of_trained: Tensor) -> Tensor:
    """Return logits (B, K) of texts minus the trained labels' mean (of (B, T)), in float64."""
    return in_float64(texts) - in_float64(of_trained).mean(dim=1, keepdim=True)


def regressions(
    features: Tensor, target: Tensor, texts: Tensor, strengths: Sequence[float], link: Link
) -> Iterator[Regression]:
    """Yield the regression for each strength C, which minimises

        ½ |W|² − C log p(target | W z + b + s t).

    b and s are nearly free (their priors are wide); s is one number for all labels. The features are centred
    and turned to the axes of their spread λ, which changes no minimum; there the curvature is about
    1 + C h λ with the mean h of p (1 − p), and L-BFGS in coordinates that are scaled by its root takes
    about ten steps.

    Args:
        features: (N, E); target: as the link takes it; texts: (N, K), known logits; strengths: rising.
    """
    z, spread, axes, mean = turn_to_axes(features)
    known = texts.to("cpu", link.dtype)
    problem = Problem(z.to(link.dtype), target.cpu(), known, spread, link)
    for strength in strengths:
        turned_weight, bias, share = problem.solve(strength)
        weight = (axes @ turned_weight).t()
        yield Regression(weight, bias - weight @ mean, share)


@one_thread()
def turn_to_axes(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (N, E), centred and turned to the axes of their spread: these (N, r), the spread (r,), λ, the
    axes (E, r) and the mean (E,), in float64 on the CPU. Axes of next to no spread are left out."""
    z = features.cpu().double()
    mean = z.mean(dim=0)
    z = z - mean
    spread, axes = torch.linalg.eigh(z.t() @ z)
    kept = spread > NEGLIGIBLE * spread.max().clamp(min=NEGLIGIBLE)
    spread = spread[kept]  # (r,)
    axes = axes[:, kept]  # (E, r)
    return z @ axes, spread, axes, mean


@one_thread()
def minimum_near(
    start: Tensor, scale: Tensor, value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """The parameters (P,) of the least value, found by L-BFGS from ``start`` on.

    Args:
        start: (P,), float64; scale: (P,), one over the root of each parameter's curvature.
        value_and_slope: of parameters (P,), a number () and its slope (P,).
    """
    from scipy.optimize import minimize  # here, since importing a method must not take its time

    def scaled(point: object) -> tuple[float, object]:
        value, slope = value_and_slope(torch.from_numpy(point) * scale)
        return value.item(), (slope * scale).numpy()

    found = minimize(
        scaled,
        (start / scale).numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": LAST_GAIN, "gtol": 0.0, "maxiter": MOST_STEPS},
    )
    return torch.from_numpy(found.x) * scale


class Parameters(NamedTuple):
    """W (r, K), b (K,) and s (), or the slopes of a loss in these."""

    weight: Tensor
    bias: Tensor
    text_weight: Tensor

    @classmethod
    def of(cls, vector: Tensor, labels: int) -> "Parameters":
        """Split a vector (r K + K + 1,) into the parameters; labels: K."""
        weight = vector[: -labels - 1].view(-1, labels)
        return cls(weight, vector[-labels - 1 : -1], vector[-1])

    def with_priors(
        self, strength: float, loss: Tensor, slopes: "Parameters"
    ) -> tuple[Tensor, Tensor]:
        """The objective (), half the squares of these parameters by their priors and ``strength`` times the
        loss, and its slope (r K + K + 1,).

        Args:
            loss: (), at these parameters; slopes: its.
        """
        penalty = (
            self.weight.square().sum()
            + BIAS_PRIOR * self.bias.square().sum()
            + TEXT_PRIOR * self.text_weight.square()
        )
        slope = torch.cat(
            [
                (strength * slopes.weight + self.weight).flatten(),
                strength * slopes.bias + BIAS_PRIOR * self.bias,
                (strength * slopes.text_weight + TEXT_PRIOR * self.text_weight)[None],
            ]
        )
        return penalty / 2 + strength * loss, slope


class Problem:
    """The regressions' objective in turned coordinates, and the last minimum.

    Args:
        z: (N, r), centred features along axes; target: as the link takes it; texts: (N, K); spread: (r,), λ.
    """

    def __init__(
        self, z: Tensor, target: Tensor, texts: Tensor, spread: Tensor, link: Link
    ) -> None:
        self.z = z
        self.target = target
        self.texts = texts
        self.spread = spread
        self.link = link
        self.images, self.labels = texts.shape
        bias, self.curvature = link.first(target, texts)  # (K,) each; the latter is h
        weight = torch.zeros(len(spread) * self.labels, dtype=torch.float64)
        # at first the answer is the texts'
        self.minimum = torch.cat([weight, bias, torch.ones(1, dtype=torch.float64)])

    def scale(self, strength: float) -> Tensor:
        """One over the root of each parameter's curvature."""
        data = strength * self.curvature  # (K,)
        of_weight = (1 + self.spread[:, None] * data).flatten()
        of_bias = (
            BIAS_PRIOR + data * self.images
        ).float()  # only the way to the minimum follows it
        of_text = (TEXT_PRIOR + self.link.text_curvature(data, self.texts))[None]
        return torch.cat([of_weight, of_bias, of_text]).rsqrt()

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield features, target and known logits of some images at a time."""
        size = self.link.block or self.images
        return zip(self.z.split(size), self.target.split(size), self.texts.split(size))

    def logits(self, z: Tensor, texts: Tensor, vector: Tensor) -> Tensor:
        """(B, K) of some images."""
        weight, bias, share = Parameters.of(vector.to(z.dtype), self.labels)
        return torch.addmm(bias, z, weight).add_(texts * share)

    def value_and_slope(self, vector: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        at = Parameters.of(vector, self.labels)
        loss = torch.zeros((), dtype=torch.float64)
        slopes = Parameters(*map(torch.zeros_like, at))
        for z, target, texts in self.blocks():
            own_loss, error = self.link.loss_and_error(self.logits(z, texts, vector), target)
            loss += own_loss
            slopes.weight.add_(z.t() @ error)
            slopes.bias.add_(error.sum(dim=0))
            slopes.text_weight.add_((error * texts).sum())
        return at.with_priors(strength, loss, slopes)

    @one_thread()
    def solve(self, strength: float) -> Parameters:
        """Return the minimum; the next search starts there."""
        self.minimum = minimum_near(
            self.minimum, self.scale(strength), partial(self.value_and_slope, strength=strength)
        )
        at_minimum = (self.logits(z, texts, self.minimum) for z, _, texts in self.blocks())
        curvature = self.link.mean_curvature(at_minimum, self.images)
        self.curvature = curvature.clamp(min=NEGLIGIBLE)
        return Parameters.of(self.minimum, self.labels)
