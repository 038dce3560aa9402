"""Subjective logic for classifiers: evidence → opinion, Dempster's rule, trusted cross-entropy, KL to the uniform Dirichlet.

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

EVIDENCE_FUNCTIONS = ("exp", "softplus", "relu")
NO_EVIDENCE = 1e-30  # stands for zero where its logarithm is taken


@dataclass
class Opinion:
    """A subjective opinion over K classes, held as log-evidence.

    Attributes:
        log_evidence: (…, K), log e_k.
    """
    log_evidence: Tensor

    @property
    def classes(self) -> int:
        return self.log_evidence.shape[-1]

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
        return (math.log(self.classes) - self.log_strength).exp()

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


def log_evidence(logits: Tensor, offset: Tensor | float, function: str, centred: bool = False) -> Tensor:
    """Log-evidence of logits in fp32 or better, e_k = g(l_k − b), or if centred g(l_k − mean_j l_j − b).

    Centred, evidence for a class is by how much more like it an image is than like the average class. How like it is to all classes alike,
    which in CLIP varies from image to image and says little of what is shown, is then no evidence for any.

    Args:
        logits: (…, K).
        offset: broadcastable; b.
        function: g, one of ``exp``, ``softplus``, ``relu``.
        centred: whether evidence is measured from the mean over classes.

    Raises:
        ValueError: another function.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    shifted = (logits - logits.mean(dim=-1, keepdim=True) if centred else logits) - offset
    if function == "exp":
        return shifted
    if function == "softplus":
        # log softplus(x) → x for x ≪ 0, where softplus itself underflows
        small = shifted < -15
        return torch.where(small, shifted, log1p_exp(shifted.clamp(min=-15)).log())
    if function == "relu":
        return F.relu(shifted).clamp(min=NO_EVIDENCE).log()
    raise ValueError(f"evidence function {function!r}, it takes one of {', '.join(EVIDENCE_FUNCTIONS)}")


def dempster(log_evidences: Tensor) -> Opinion:
    """Fuses M opinions by Dempster's rule, all at once.

    For two opinions with beliefs b¹, b² and vacuities u¹, u² the rule (Han et al. 2021, def. 4) reads::

        C = Σ_{i≠j} b_i¹ b_j²,   b_k = (b_k¹ b_k² + b_k¹ u² + b_k² u¹) / (1 − C),   u = u¹ u² / (1 − C).

    Proof of the closed form: put b = e / S and u = K / S and divide. The factor 1 / (1 − C) and the strengths cancel::

        b_k / u = (b_k¹/u¹)(b_k²/u²) + b_k¹/u¹ + b_k²/u²,   that is   e_k/K = (1 + e_k¹/K)(1 + e_k²/K) − 1.

    So 1 + e_k / K is the product of its parts, for two opinions and by induction for M::

        1 + e_k / K = Π_m (1 + e_k^m / K),

    whatever the order, in O(M·K) instead of O(M·K²), and without a division by 1 − C.

    Args:
        log_evidences: (M, …, K).

    Returns:
        ``Opinion`` of (…, K).
    """
    parts = log_evidences - math.log(log_evidences.shape[-1])  # (M, …, K), log(e_k^m / K)
    total = log1p_exp(parts).sum(dim=0)  # (…, K), Σ_m log1p(e_k^m / K)
    # log expm1(total); where all evidence is below the precision of 1 + e/K, expm1(total) is the plain sum
    plain = parts.logsumexp(dim=0)
    tiny = plain < math.log(torch.finfo(parts.dtype).eps)
    total = torch.where(tiny, torch.ones_like(total), total)  # keeps the other branch's gradient finite
    fused = torch.where(tiny, plain, total + (-torch.expm1(-total)).log())
    return Opinion(fused + math.log(log_evidences.shape[-1]))


def cumulative(log_evidences: Tensor) -> Opinion:
    """Fuses M opinions by cumulative belief fusion: **e_k = Σ_m e_k^m** (Jøsang 2016, §12.3).

    Dempster's rule gives this and more, e_k/K = Σ_m e_k^m/K + Σ_{m<n} e_k^m e_k^n/K² + …: it takes opinions for those of witnesses who judged
    independently of each other, so that those who agree are worth more than their evidence taken together. Templates all see the same image.

    Args:
        log_evidences: (M, …, K).

    Returns:
        ``Opinion`` of (…, K).
    """
    return Opinion(log_evidences.logsumexp(dim=0))


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
    log_agreement = (templates - 1) * math.log(classes) - Opinion(log_evidences).log_strength.sum(dim=0) + fused.log_strength
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


def kl_to_uniform(opinion: Opinion, labels: Tensor) -> Tensor:
    """KL[Dir(α̃) ‖ Dir(1, …, 1)] of the opinion without its evidence for the true class (Sensoy et al. 2018, eq. 5 ff.).

    Written with g(x) = ln Γ(x) − (x − 1) ψ(x) + x, in which the terms linear in α cancel::

        KL = g(S) + (K − 1) ψ(S) − ln Γ(K) − Σ_k g(α̃_k).

    Args:
        opinion: of (…, K).
        labels: (…) class indices.

    Returns:
        (…) non-negative divergences.
    """
    true_class = F.one_hot(labels, opinion.classes).bool()
    log_alpha = opinion.log_alpha.masked_fill(true_class, 0.0)  # (…, K), α̃_y = 1
    log_strength = log_alpha.logsumexp(dim=-1)  # (…)
    return (_g_of_exp(log_strength) + (opinion.classes - 1) * digamma_of_exp(log_strength) - math.lgamma(opinion.classes)
            - _g_of_exp(log_alpha).sum(dim=-1))


def _series_from(dtype: torch.dtype) -> float:
    """log x from which the asymptotic series below is exact to the dtype's precision."""
    return math.log(30.0) if torch.finfo(dtype).bits <= 32 else math.log(1000.0)


def digamma_of_exp(log_x: Tensor) -> Tensor:
    """ψ(x) for x = exp(log_x) ≥ 1, however large."""
    limit = _series_from(log_x.dtype)
    inverse = (-log_x.clamp(min=limit)).exp()
    series = log_x - inverse / 2 - inverse ** 2 / 12 + inverse ** 4 / 120
    return torch.where(log_x > limit, series, torch.digamma(log_x.clamp(max=limit).exp()))


def _g_of_exp(log_x: Tensor) -> Tensor:
    """g(x) = ln Γ(x) − (x − 1) ψ(x) + x for x = exp(log_x) ≥ 1; it grows like ½ ln x."""
    limit = _series_from(log_x.dtype)
    x = log_x.clamp(max=limit).exp()
    direct = torch.lgamma(x) - (x - 1) * torch.digamma(x) + x
    inverse = (-log_x.clamp(min=limit)).exp()
    series = (log_x + math.log(2 * math.pi) + 1) / 2 - inverse / 3 - inverse ** 2 / 12 - inverse ** 3 / 90
    return torch.where(log_x > limit, series, direct)
