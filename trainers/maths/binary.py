"""``BinaryProbe``: a yes-or-no logistic regression for each label, beside logits that are known already,
for rising strengths of the data: each fit starts where the one before has ended.

Known logits t are linear in the features, as CLIP's are. So s t beside W z means that the weights are
drawn towards those of the texts, s times as large, instead of towards zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .logistic import BIAS_PRIOR, NEGLIGIBLE, TEXT_PRIOR, Parameters, minimum_near, turned
from .threads import one_thread

# values of the strength C that a likelihood is asked for
STRENGTHS = [10 ** (power / 2) for power in range(-2, 7)]
BLOCK = 2048  # images whose errors are computed at a time: 100 labels of them are 1.6 MB


@dataclass(frozen=True)
class BinaryProbe:
    """Logits W z + b + s t of features z (E,) and known logits t (K,), each label's for itself.

    Attributes:
        weight: (K, E), bias: (K,), text_weight: (), in float64 on the CPU.
    """

    weight: Tensor
    bias: Tensor
    text_weight: Tensor

    def __call__(self, features: Tensor, texts: Tensor) -> Tensor:
        """Logits (N, K) of features (N, E) and known logits (N, K), on the CPU."""
        from_features = features.double().cpu() @ self.weight.t() + self.bias
        return from_features + self.text_weight * texts.double().cpu()


def probes(
    features: Tensor, truth: Tensor, texts: Tensor, strengths: Sequence[float]
) -> Iterator[BinaryProbe]:
    """The probe for each strength C, when it is asked for: it minimises

        ½ |W|² + C Σ_ik BCE(W_k z_i + b_k + s t_ik, y_ik),

    and for all but nothing b and s are free; s is one number for all labels. The features are centred
    and turned to the axes of their spread λ, which changes no minimum; there the curvature of a label's
    weights is about 1 + C h λ with the mean h of its p (1 − p), and L-BFGS in coordinates that are
    scaled by its root takes about ten steps.

    Args:
        features: (N, E); truth: (N, K), bool; texts: (N, K), known logits; strengths: rising.
    """
    z, spread, axes, mean = turned(features)
    problem = Problem(z.float(), truth.float().cpu(), texts.float().cpu(), spread)
    for strength in strengths:
        turned_weight, bias, share = problem.solve(strength)
        weight = (axes @ turned_weight).t()
        yield BinaryProbe(weight, bias - weight @ mean, share)


class Problem:
    """The probe's objective in turned coordinates, and the last minimum. What is of each image is computed
    in fp32, twice as fast, and sums and parameters are in float64.

    Args:
        z: (N, r), centred features along axes; truth: (N, K), zeros and ones; texts: (N, K); all in
            fp32; spread: (r,), λ, in float64.
    """

    def __init__(self, z: Tensor, truth: Tensor, texts: Tensor, spread: Tensor) -> None:
        self.z = z
        self.truth = truth
        self.texts = texts
        self.spread = spread
        self.images, self.labels = texts.shape
        rate = (truth.double().sum(dim=0) + 0.5) / (self.images + 1)  # (K,)
        self.curvature = rate * (1 - rate)  # (K,), h
        self.text_spread = texts.double().square().sum(dim=0)  # (K,)
        bias = rate.logit() - texts.double().mean(dim=0)
        weight = torch.zeros(len(spread) * self.labels, dtype=torch.float64)
        # at first the answer is the texts', as often as the label occurs
        self.minimum = torch.cat([weight, bias, torch.ones(1, dtype=torch.float64)])

    def scale(self, strength: float) -> Tensor:
        """One over the root of each parameter's curvature."""
        data = strength * self.curvature  # (K,)
        of_weight = (1 + self.spread[:, None] * data).flatten()
        of_bias = BIAS_PRIOR + data * self.images
        of_text = (TEXT_PRIOR + data @ self.text_spread)[None]
        return torch.cat([of_weight, of_bias, of_text]).rsqrt()

    def logits(self, z: Tensor, texts: Tensor, vector: Tensor) -> Tensor:
        """(B, K) of some images."""
        weight, bias, share = Parameters.of(vector.float(), self.labels)
        return torch.addmm(bias, z, weight).add_(texts * share)

    def value_and_slope(self, vector: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        at = Parameters.of(vector, self.labels)
        loss = torch.zeros((), dtype=torch.float64)
        slopes = Parameters(*map(torch.zeros_like, at))
        blocks = (part.split(BLOCK) for part in (self.z, self.truth, self.texts))
        for z, truth, texts in zip(*blocks):
            logits = self.logits(z, texts, vector)  # (B, K)
            loss += F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
            error = logits.sigmoid_().sub_(truth)
            slopes.weight.add_(z.t() @ error)
            slopes.bias.add_(error.sum(dim=0))
            slopes.text_weight.add_((error * texts).sum())
        return at.with_priors(strength, loss, slopes)

    def mean_curvature(self) -> Tensor:
        """The mean (K,) of p (1 − p) at the last minimum."""
        total = torch.zeros(self.labels, dtype=torch.float64)
        for z, texts in zip(self.z.split(BLOCK), self.texts.split(BLOCK)):
            probability = self.logits(z, texts, self.minimum).sigmoid_()
            total += (probability * (1 - probability)).sum(dim=0)
        return (total / self.images).clamp(min=NEGLIGIBLE)

    @one_thread()
    def solve(self, strength: float) -> Parameters:
        """The minimum, which is where the next search starts."""
        self.minimum = minimum_near(
            self.minimum, self.scale(strength), partial(self.value_and_slope, strength=strength)
        )
        self.curvature = self.mean_curvature()
        return Parameters.of(self.minimum, self.labels)
