"""Subjective logic for classifiers: logits → evidence → opinion, Dempster's rule, losses, reliability of
dependent witnesses.

Nothing here is trained; no CLIP, no Dassl. ``Evidence`` turns logits into *log*-evidence, which the
pure functions start from, so that neither a logit of +200 nor one of −200 over- or underflows, in
value or gradient. The last dimension is always the K classes.

References:
    - Jøsang (2016), "Subjective Logic": opinions and their Dirichlet form.
    - Sensoy et al. (2018), "Evidential Deep Learning to Quantify Classification Uncertainty": α = e
      + 1, eqs. 1–5.
    - Han et al. (2021), "Trusted Multi-View Classification": Dempster's rule for opinions (def. 4),
      loss (eqs. 8–10).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import in_float64

# The log of the mean evidence over the classes, in nats, that the untrained CLIP would give. Chosen
# by cross-validation (docs/log.md).
LEVEL = 4.0
NO_EVIDENCE = 1e-6  # of a logit below 0 under EVIDENCE relu: its log is finite


class Evidence(nn.Module):
    """Turns M templates' logits into log-evidence; its three numbers are not trained.

    Args:
        templates: M; classes: K of the training; kind: ``EVIDENCE``.

    Attributes:
        offset: (), b: the mean over training images of logsumexp_k l_k of the untrained CLIP's
            logits l.
        trained_classes: (), K of the training.
        reliability: (), ω of each template for ``dempster``. Until it is fitted it is 1 / M:
            templates look at one picture through one encoder, so together they count as one.
    """

    offset: Tensor
    trained_classes: Tensor
    reliability: Tensor

    def __init__(self, templates: int, classes: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("trained_classes", torch.tensor(classes))
        self.register_buffer("reliability", torch.tensor(1 / templates))

    def forward(self, logits: Tensor) -> Tensor:
        """log e^m = l^m − b + c + log max(K, K_trained) in fp32, (M, B, K) → (M, B, K).

        c is ``LEVEL``. On a longer list of classes than the trained one e_k / K, the source of belief
        and vacuity, depends on the image and the class alone, so that the vacuity
        1 / (1 + Σ_k e_k / K) changes only by the evidence of the further classes. On a shorter one the
        evidence e_k does: a class does not lose its own because other classes were left
        out.

        Of the other kinds e^m is softplus(l^m) or max(l^m, 0), as Han et al. (2021) and Sensoy et
        al. (2018) have it of a network's outputs.
        """
        if self.kind == "softplus":
            return log_softplus(logits.float())
        if self.kind == "relu":
            return logits.float().clamp(min=NO_EVIDENCE).log()
        classes = self.trained_classes.clamp(min=logits.shape[-1])
        return logits.float() - self.offset + LEVEL + classes.log()


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
        return self.log_probability.exp()

    @property
    def log_probability(self) -> Tensor:
        """(…, K), log of the expected probabilities."""
        return self.log_alpha - self.log_strength[..., None]


def log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to double precision; torch's own softplus turns linear at 20, which is an
    error of 2e-9."""
    return F.softplus(x, threshold=40)


def log_softplus(x: Tensor) -> Tensor:
    """log log(1 + exp(x)), which is x far below 0."""
    return torch.where(x < -30, x, log1p_exp(x.clamp(min=-30)).log())


def dempster(log_evidences: Tensor, reliability: Tensor | float = 1.0) -> Opinion:
    """Fuses M opinions by Dempster's rule, all at once.

    For two opinions with beliefs b¹, b² and vacuities u¹, u² the rule (Han et al. 2021, def. 4) reads::

        C = Σ_{i≠j} b_i¹ b_j²,   b_k = (b_k¹ b_k² + b_k¹ u² + b_k² u¹) / (1 − C),   u = u¹ u² / (1 − C).

    Proof of the closed form: put b = e / S and u = K / S and divide. The factor 1 / (1 − C) and the
    strengths cancel::

        b_k / u = (b_k¹/u¹)(b_k²/u²) + b_k¹/u¹ + b_k²/u²,   that is   e_k/K = (1 + e_k¹/K)(1 + e_k²/K) − 1.

    So 1 + e_k / K is the product of its parts, for two opinions and by induction for M::

        1 + e_k / K = Π_m (1 + e_k^m / K),

    whatever the order, in O(M·K) instead of O(M·K²), and without a division by 1 − C.

    The rule takes the opinions as independent witnesses'. Witnesses who look at the same
    picture are not; a reliability ω ≤ 1 counts a witness as ω of an independent one::

        1 + e_k / K = Π_m (1 + e_k^m / K)^ω_m.

    All ω = 1 is Dempster's rule and all ω = 1/M the (geometric) mean of the opinions. A witness
    without any evidence leaves the opinion as it is.

    Args:
        log_evidences: (M, …, K).
        reliability: ω, a number above 0 or one for each witness, (M,).

    Returns:
        ``Opinion`` of (…, K).
    """
    parts = log_evidences - math.log(log_evidences.shape[-1])  # (M, …, K), log(e_k^m / K)
    weights = torch.as_tensor(reliability, dtype=parts.dtype, device=parts.device)
    weights = weights.expand(len(parts)).view(-1, *[1] * (parts.dim() - 1))  # (M, 1, …)
    total = (weights * log1p_exp(parts)).sum(dim=0)  # (…, K), Σ_m ω_m log1p(e_k^m / K)
    # log expm1(total); where all evidence is below the precision of 1 + e/K, expm1(total) is the
    # plain sum
    plain = (parts + weights.log()).logsumexp(dim=0)
    tiny = plain < math.log(torch.finfo(parts.dtype).eps)
    # keeps the other branch's gradient finite
    total = torch.where(tiny, torch.ones_like(total), total)
    fused = torch.where(tiny, plain, total + (-torch.expm1(-total)).log())
    return Opinion(fused + math.log(log_evidences.shape[-1]))


def fitted_factor(log_evidences: Tensor, labels: Tensor, usual: Sequence[float]) -> float:
    """Return the factor in [0.2, 2] of usual reliabilities with which ``dempster``'s
    expected probabilities have the least negative log-likelihood.

    Without bounds a small set of images that are all right would make it grow without limit.

    Args:
        log_evidences: (M, N, K) of N images that nothing was trained on.
        labels: (N,) class indices.
        usual: M reliabilities.
    """
    log_evidences = in_float64(log_evidences)
    labels = labels.to(log_evidences.device)
    weights = torch.tensor(usual, dtype=log_evidences.dtype)

    def loss(factor: float) -> float:
        fused = dempster(log_evidences, factor * weights)
        return -fused.log_probability.gather(-1, labels[:, None]).mean().item()

    # finer steps would be noise of some hundred images, and of the processor
    return min((step / 50 for step in range(10, 101)), key=loss)


def conflict(log_evidences: Tensor) -> Tensor:
    """Dempster's C of M opinions in [0, 1): the mass of the joint belief that lies on different
    classes, which the rule leaves out.

    The rule's second half, u = Π_m u^m / (1 − C), holds for any number of opinions, so C = 1 − Π_m
    u^m / u.

    Args:
        log_evidences: (M, …, K).

    Returns:
        (…).
    """
    templates, *_, classes = log_evidences.shape
    log_agreement = (
        (templates - 1) * math.log(classes)
        - Opinion(log_evidences).log_strength.sum(dim=0)
        + dempster(log_evidences).log_strength
    )
    return -torch.expm1(log_agreement.clamp(max=0))  # rounding alone would put it above 0


def trusted_cross_entropy(opinion: Opinion, labels: Tensor) -> Tensor:
    """Cross-entropy expected under the opinion's Dirichlet, E_{p~Dir(α)}[−log p_y] = ψ(S) − ψ(α_y)
    (Han et al. 2021, eq. 8).

    Args:
        opinion: of (…, K).
        labels: (…) class indices.

    Returns:
        (…) non-negative losses.
    """
    log_alpha = opinion.log_alpha.gather(-1, labels[..., None])[..., 0]  # (…)
    return digamma_of_exp(opinion.log_strength) - digamma_of_exp(log_alpha)


def evidential_loss(opinion: Opinion, labels: Tensor) -> Tensor:
    """Mean of ``trusted_cross_entropy`` and of the cross-entropy of the belief's shares, −log(b_y /
    Σ_k b_k).

    The trusted cross-entropy alone does not learn from images whose class has little evidence
    (Pandey and Yu, 2023, "Learn to Accumulate Evidence from All Training Samples"). Its gradient by
    log e_y is::

        −e_y (ψ′(1 + e_y) − ψ′(S)),   about −(1 − e_y / S) for much evidence and −e_y (π² / 6 − ψ′(S)) → 0 for little,

    never positive, while the shares' cross-entropy has −(1 − p_y) with p_y = e_y / Σ_k e_k
    for any amount. So the mean's is at least half of cross-entropy's, at every level and for every
    K.

    Args:
        opinion: of (…, K).
        labels: (…) class indices.

    Returns:
        (…) non-negative losses.
    """
    shares = opinion.log_evidence.log_softmax(dim=-1).gather(-1, labels[..., None])[..., 0]
    return (trusted_cross_entropy(opinion, labels) - shares) / 2


def misleading_evidence(opinion: Opinion, labels: Tensor) -> Tensor:
    """Divergence KL(Dir(α̃) ‖ Dir(1)) of the evidence for wrong classes from none: α̃ is α with α̃_y =
    1 (Sensoy et al. 2018, eq. 5; Han et al. 2021, eqs. 9 and 10)::

        ln Γ(S̃) − ln Γ(K) − Σ_k ln Γ(α̃_k) + Σ_k (α̃_k − 1) (ψ(α̃_k) − ψ(S̃)),   S̃ = Σ_k α̃_k.

    With h(x) = ln Γ(x) − (x − 1) ψ(x) + x, whose large terms have cancelled, this is::

        h(S̃) − Σ_k h(α̃_k) + (K − 1) ψ(S̃) − ln Γ(K).

    Args:
        opinion: of (…, K).
        labels: (…) class indices.

    Returns:
        (…) non-negative divergences.
    """
    log_alpha = opinion.log_alpha.scatter(-1, labels[..., None], 0.0)  # (…, K), log α̃
    log_strength = log_alpha.logsumexp(dim=-1)  # (…), log S̃
    classes = log_alpha.shape[-1]
    spread = h_of_exp(log_strength) - h_of_exp(log_alpha).sum(dim=-1)  # (…)
    return spread + (classes - 1) * digamma_of_exp(log_strength) - math.lgamma(classes)


def h_of_exp(log_x: Tensor) -> Tensor:
    """h(x) of ``misleading_evidence`` for x = exp(log_x) ≥ 1, however large."""
    limit = series_limit(log_x)
    inverse = (-log_x.clamp(min=limit)).exp()
    constant = (math.log(2 * math.pi) + 1) / 2
    series = log_x / 2 + constant - inverse / 3 - inverse**2 / 12 - inverse**3 / 90
    x = log_x.clamp(max=limit).exp()
    exact = x.lgamma() - (x - 1) * torch.digamma(x) + x
    return torch.where(log_x > limit, series, exact)


def digamma_of_exp(log_x: Tensor) -> Tensor:
    """ψ(x) for x = exp(log_x) ≥ 1, however large."""
    limit = series_limit(log_x)
    inverse = (-log_x.clamp(min=limit)).exp()
    series = log_x - inverse / 2 - inverse**2 / 12 + inverse**4 / 120
    return torch.where(log_x > limit, series, torch.digamma(log_x.clamp(max=limit).exp()))


def series_limit(log_x: Tensor) -> float:
    """log x from which asymptotic series in 1 / x are exact to the precision of log_x's dtype."""
    return math.log(30.0 if torch.finfo(log_x.dtype).bits <= 32 else 1000.0)
