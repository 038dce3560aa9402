"""Subjective logic for classifiers: evidence → opinion, Dempster's rule, trusted cross-entropy, reliability of dependent witnesses.

Pure functions on tensors; no CLIP, no Dassl. Everything starts from *log*-evidence, so that neither a logit of +200 nor
one of −200 over- or underflows, in value or gradient. The last dimension is always the K classes.

References:
    - Jøsang (2016), "Subjective Logic": opinions and their Dirichlet form.
    - Sensoy et al. (2018), "Evidential Deep Learning to Quantify Classification Uncertainty": α = e + 1, eqs. 1–5.
    - Han et al. (2021), "Trusted Multi-View Classification": Dempster's rule for opinions (def. 4), loss (eqs. 8–10).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RELIABILITIES = [step / 20 for step in range(1, 21)]  # where the search for the best one starts


@dataclass
class Opinion:
    """A subjective opinion over K classes, held as log-evidence.

    Attributes:
        log_evidence: (…, K), log e_k.
    """

    log_evidence: Tensor

    @property
    def log_alpha(self) -> Tensor:
        """(…, K), log of the Dirichlet's parameters α_k = e_k + 1."""
        return log1p_exp(self.log_evidence)

    @property
    def log_strength(self) -> Tensor:
        """(…), log S with S = Σ_k α_k."""
        return self.log_alpha.logsumexp(dim=-1)

    @property
    def belief(self) -> Tensor:
        """(…, K) belief masses e_k / S in [0, 1); with the vacuity they sum to one."""
        return (self.log_evidence - self.log_strength[..., None]).exp()

    @property
    def vacuity(self) -> Tensor:
        """(…) uncertainty mass K / S in (0, 1], 1 without any evidence."""
        return (math.log(self.log_evidence.shape[-1]) - self.log_strength).exp()

    @property
    def probability(self) -> Tensor:
        """(…, K) expected probabilities α_k / S."""
        return (self.log_alpha - self.log_strength[..., None]).exp()

    @property
    def log_probability(self) -> Tensor:
        """(…, K), log of the expected probabilities."""
        return self.log_alpha - self.log_strength[..., None]


def log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to double precision; torch's own softplus turns linear at 20, which is an error of 2e-9."""
    return F.softplus(x, threshold=40)


def dempster(log_evidences: Tensor, reliability: Tensor | float = 1.0) -> Opinion:
    """Fuses M opinions by Dempster's rule, all at once.

    For two opinions with beliefs b¹, b² and vacuities u¹, u² the rule (Han et al. 2021, def. 4) reads::

        C = Σ_{i≠j} b_i¹ b_j²,   b_k = (b_k¹ b_k² + b_k¹ u² + b_k² u¹) / (1 − C),   u = u¹ u² / (1 − C).

    Proof of the closed form: put b = e / S and u = K / S and divide. The factor 1 / (1 − C) and the strengths cancel::

        b_k / u = (b_k¹/u¹)(b_k²/u²) + b_k¹/u¹ + b_k²/u²,   that is   e_k/K = (1 + e_k¹/K)(1 + e_k²/K) − 1.

    So 1 + e_k / K is the product of its parts, for two opinions and by induction for M::

        1 + e_k / K = Π_m (1 + e_k^m / K),

    whatever the order, in O(M·K) instead of O(M·K²), and without a division by 1 − C.

    The rule takes the opinions for those of independent witnesses. Witnesses who look at the same picture are not; a reliability ω ≤ 1
    counts each as ω of an independent one::

        1 + e_k / K = Π_m (1 + e_k^m / K)^ω.

    ω = 1 is Dempster's rule and ω = 1/M the (geometric) mean of the opinions; the order of the classes is the same under any ω > 0.

    Args:
        log_evidences: (M, …, K).
        reliability: ω, a number above 0.

    Returns:
        ``Opinion`` of (…, K).
    """
    parts = log_evidences - math.log(log_evidences.shape[-1])  # (M, …, K), log(e_k^m / K)
    total = reliability * log1p_exp(parts).sum(dim=0)  # (…, K), ω Σ_m log1p(e_k^m / K)
    # log expm1(total); where all evidence is below the precision of 1 + e/K, expm1(total) is the plain sum
    plain = parts.logsumexp(dim=0) + torch.as_tensor(reliability, dtype=parts.dtype).log()
    tiny = plain < math.log(torch.finfo(parts.dtype).eps)
    total = torch.where(
        tiny, torch.ones_like(total), total
    )  # keeps the other branch's gradient finite
    fused = torch.where(tiny, plain, total + (-torch.expm1(-total)).log())
    return Opinion(fused + math.log(log_evidences.shape[-1]))


def usual_reliability(templates: int) -> float:
    """The reliability 2 / (M + 1) of M witnesses where no validation image says more: 1 for a single one, 0.4 for four.

    The mean of M numbers with pairwise correlation ρ varies like that of M / (1 + (M − 1) ρ) independent ones, so each counts as
    1 / (1 + (M − 1) ρ) of one; here ρ = 1/2.
    """
    return 2 / (templates + 1)


def fitted_reliability(log_evidences: Tensor, labels: Tensor) -> float:
    """The reliability in [0.05, 1] under which ``dempster``'s expected probabilities have the least negative log-likelihood.

    Args:
        log_evidences: (M, N, K) of N images that nothing was trained on.
        labels: (N,) class indices.
    """
    log_evidences = log_evidences.double()

    def loss(reliability: float) -> float:
        log_probability = dempster(log_evidences, reliability).log_probability  # (N, K)
        return -log_probability.gather(-1, labels[:, None]).mean().item()

    from scipy.optimize import minimize_scalar  # here: importing a method must not take its time

    # a grid first: the loss need not have one minimum only
    best, step = min(RELIABILITIES, key=loss), RELIABILITIES[0]
    bounds = max(step, best - step), min(1.0, best + step)
    refined = float(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    # further digits are noise of some hundred images, and of the processor
    return round(min(best, refined, key=loss), 3)


def conflict(log_evidences: Tensor, fused: Opinion) -> Tensor:
    """Dempster's C of M opinions in [0, 1): the mass of the joint belief that lies on different classes, which the rule leaves out.

    The rule's second half, u = Π_m u^m / (1 − C), holds for any number of opinions, so C = 1 − Π_m u^m / u.

    Args:
        log_evidences: (M, …, K).
        fused: ``dempster`` of them.

    Returns:
        (…).
    """
    templates, classes = log_evidences.shape[0], log_evidences.shape[-1]
    log_agreement = (
        (templates - 1) * math.log(classes)
        - Opinion(log_evidences).log_strength.sum(dim=0)
        + fused.log_strength
    )
    return -torch.expm1(log_agreement.clamp(max=0))  # rounding alone would put it above 0


def trusted_cross_entropy(opinion: Opinion, labels: Tensor) -> Tensor:
    """Cross-entropy expected under the opinion's Dirichlet, E_{p~Dir(α)}[−log p_y] = ψ(S) − ψ(α_y) (Han et al. 2021, eq. 8).

    Args:
        opinion: of (…, K).
        labels: (…) class indices.

    Returns:
        (…) non-negative losses.
    """
    log_alpha = opinion.log_alpha.gather(-1, labels[..., None])[..., 0]  # (…)
    return digamma_of_exp(opinion.log_strength) - digamma_of_exp(log_alpha)


def digamma_of_exp(log_x: Tensor) -> Tensor:
    """ψ(x) for x = exp(log_x) ≥ 1, however large."""
    # log x from which the asymptotic series is exact to the dtype's precision
    limit = math.log(30.0 if torch.finfo(log_x.dtype).bits <= 32 else 1000.0)
    inverse = (-log_x.clamp(min=limit)).exp()
    series = log_x - inverse / 2 - inverse**2 / 12 + inverse**4 / 120
    return torch.where(log_x > limit, series, torch.digamma(log_x.clamp(max=limit).exp()))
