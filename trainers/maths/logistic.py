"""Multinomial logistic regression beside logits that are known already, for rising strengths of the
data: each fit starts where the one before has ended, in coordinates in which it is nearly round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .threads import one_thread

# a direction's share of the largest spread, below which nothing is learned in it
NEGLIGIBLE = 1e-10
# inverse variances of the priors of biases and of the text's weight: where the data say nothing of them,
# as of a class without images, they stay finite
BIAS_PRIOR = 1e-2
TEXT_PRIOR = 1e-2
TOLERANCE = 1e-4  # share of the objective that a last step gains
MOST_STEPS = 200  # at most, of a fit


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
        device = features.device
        from_features = features.double() @ self.weight.to(device).t() + self.bias.to(device)
        return from_features + self.text_weight.to(device) * texts.double()


def regressions(
    features: Tensor, labels: Tensor, texts: Tensor, strengths: Sequence[float]
) -> Iterator[Regression]:
    """The regression for each strength C, when it is asked for: it minimises

        ½ |W|² + C Σ_i CE(W z_i + b + s t_i, y_i),

    and for all but nothing b and s are free. The features are centred and turned to the axes of their
    spread λ, which changes no minimum; there the curvature is about 1 + C h λ with the mean h of
    p (1 − p), and L-BFGS in coordinates that are scaled by its root takes about ten steps.

    Args:
        features: (N, E); labels: (N,); texts: (N, K), known logits; strengths: rising.
    """
    z, spread, axes, mean = turned(features)
    problem = Problem(z, labels.cpu(), texts.double().cpu(), spread)
    for strength in strengths:
        turned_weight, bias, share = problem.solve(strength)
        weight = (axes @ turned_weight).t()
        yield Regression(weight, bias - weight @ mean, share)


@one_thread()
def turned(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (N, E), centred and turned to the axes of their spread: these (N, r), the spread (r,), λ, the
    axes (E, r) and the mean (E,), in float64 on the CPU. Axes of next to no spread are left out."""
    z = features.double().cpu()
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
        options={"ftol": TOLERANCE, "gtol": 0.0, "maxiter": MOST_STEPS},
    )
    return torch.from_numpy(found.x) * scale


class Parameters(NamedTuple):
    """W (r, K), b (K,) and s (), or the slopes of a loss in these."""

    weight: Tensor
    bias: Tensor
    text_weight: Tensor

    @classmethod
    def of(cls, vector: Tensor, labels: int) -> "Parameters":
        """Those that a vector (r K + K + 1,) holds in a row; labels: K."""
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
        z: (N, r), centred features along axes; labels: (N,); texts: (N, K); spread: (r,), λ.
    """

    def __init__(self, z: Tensor, labels: Tensor, texts: Tensor, spread: Tensor) -> None:
        self.z = z
        self.labels = labels
        self.texts = texts
        self.spread = spread
        self.images, self.classes = texts.shape
        self.curvature = 1 / self.classes  # h, as at zero
        parameters = len(spread) * self.classes + self.classes + 1
        self.minimum = torch.zeros(parameters, dtype=torch.float64)
        self.minimum[-1] = 1.0  # at first the answer is the texts'
        around = texts - texts.mean(dim=1, keepdim=True)
        self.text_spread = around.square().sum()

    def scale(self, strength: float) -> Tensor:
        """One over the root of each parameter's curvature."""
        data = strength * self.curvature
        of_weight = (1 + data * self.spread).repeat_interleave(self.classes)
        of_bias = torch.full((self.classes,), BIAS_PRIOR + data * self.images).to(of_weight)
        of_text = (TEXT_PRIOR + data * self.text_spread)[None]
        return torch.cat([of_weight, of_bias, of_text]).rsqrt()

    def log_probability(self, vector: Tensor) -> Tensor:
        """(N, K), of each class."""
        weight, bias, share = Parameters.of(vector, self.classes)
        logits = torch.addmm(bias, self.z, weight).add_(share * self.texts)
        return logits.log_softmax(dim=1)

    def value_and_slope(self, vector: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        error = self.log_probability(vector)
        right = error.gather(1, self.labels[:, None])
        error = error.exp_().scatter_add_(1, self.labels[:, None], -torch.ones_like(right))
        slopes = Parameters(self.z.t() @ error, error.sum(dim=0), (error * self.texts).sum())
        at = Parameters.of(vector, self.classes)
        return at.with_priors(strength, -right.sum(), slopes)

    @one_thread()
    def solve(self, strength: float) -> Parameters:
        """The minimum, which is where the next search starts."""
        self.minimum = minimum_near(
            self.minimum, self.scale(strength), partial(self.value_and_slope, strength=strength)
        )
        certain = self.log_probability(self.minimum).exp().square().sum().item() / self.images
        self.curvature = max((1 - certain) / self.classes, NEGLIGIBLE)
        return Parameters.of(self.minimum, self.classes)
