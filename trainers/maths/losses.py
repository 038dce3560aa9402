"""Loss terms that several methods have."""

import torch.nn.functional as F
from torch import Tensor

SHORT = 0.03  # δ: deviations much shorter than this have no direction yet


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """Mean of 1 − cos between features (M, N, E) and those they are kept near to, (N, E) or (M, N,
    E), all normalised.

    Of a template's texts and the hand-crafted prompt's it is the knowledge-guided term of KgCoOp
    (Yao et al., 2023), which for normalised features is half the squared distance; CDC's L_con.
    Scalar in [0, 2].
    """
    return 1 - (features * reference).sum(dim=-1).mean()


def knowledge_guided_loss(
    logits: Tensor, labels: Tensor, texts: Tensor, hand_crafted: Tensor, weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """KgCoOp's loss: cross-entropy + W · ``consistency_loss`` of the texts and the hand-crafted
    prompts; and both.

    Args:
        logits: (B, K); labels: (B,).
        texts: (M, K, E); hand_crafted: (K, E); weight: W.
    """
    task = F.cross_entropy(logits, labels)
    distance = consistency_loss(texts, hand_crafted)
    return task + weight * distance, {"loss_ce": task, "loss_kg": distance}


def decoupling_loss(features: Tensor, reference: Tensor) -> Tensor:
    """CDC's L_de: mean cosine between the deviations d^m = features^m − reference of templates m <
    n; 0 for a single template.

    With a short length δ = ``SHORT`` in it, so that it is smooth where a template has not moved yet::

        L_de = mean over m < n and N of  d^m · d^n / sqrt((|d^m|² + δ²) (|d^n|² + δ²)).

    A cosine of the features themselves would work against the consistency loss: it falls as
    templates leave the reference, and together they have their minimum at "all templates equal the
    reference" from a small weight of consistency on. The deviations' cosine asks in which direction
    a template leaves, not how far. Derivation for β L_de + γ Σ_m L_con^m with free unit vectors:
    put w^m = cos a · t + sin a · v_m with v_m ⊥ t the vertices of a simplex, v_m · v_n = ρ = −1 /
    (M − 1). With y = |d|² + δ², |d|² = 2 (1 − cos a)::

        d^m · d^n = (|d|² / 2) (2ρ + (1 − ρ) |d|² / 2),     L_de = d^m · d^n / y,     γ Σ_m L_con^m = γ M |d|² / 2,

    whose derivative in y is β (1 − ρ) / 4 − β C / y² + γ M / 2 with C = δ² (−ρ + (1 − ρ) δ² / 4).
    So the minimum lies at y² = β C / (β (1 − ρ) / 4 + γ M / 2): templates apart, each at a short
    distance from the reference, which the cross-entropy is left to choose; L_de is ρ + O(δ) there.
    They collapse, y = δ², exactly from γ = 2β / (M (M − 1) δ²) on.

    Args:
        features: (M, N, E), normalised; of N texts or images.
        reference: (N, E) or (M, N, E), normalised.

    Returns:
        scalar in [−1 / (M − 1), 1].
    """
    if len(features) == 1:
        return features.new_zeros(())
    deviation = features - reference  # (M, N, E)
    length = (deviation.square().sum(dim=-1, keepdim=True) + SHORT**2).sqrt()  # (M, N, 1)
    return mean_over_pairs(deviation / length)


def similarity_of_templates(features: Tensor) -> Tensor:
    """Mean cosine between the features of templates m < n, the usual L_de; 0 for a single template.

    features: (M, N, E), normalised. Returns a scalar in [−1 / (M − 1), 1].
    """
    if len(features) == 1:
        return features.new_zeros(())
    return mean_over_pairs(features)


def mean_over_pairs(vectors: Tensor) -> Tensor:
    """Mean of a_m · a_n over m < n and N of vectors (M, N, E), M ≥ 2; scalar."""
    templates = len(vectors)
    # Σ_{m≠n} a_m · a_n = |Σ_m a_m|² − Σ_m |a_m|²
    pairs = vectors.sum(dim=0).square().sum(dim=-1) - vectors.square().sum(dim=(0, 2))  # (N,)
    return pairs.mean() / (templates * (templates - 1))


def cosines(features: Tensor, reference: Tensor) -> dict[str, float]:
    """How far templates are apart: mean cosines of their features (M, N, E), all normalised, with
    the reference (N, E) or (M, N, E).

    Returns:
        ``to_clip``: to the reference; with two templates or more also ``between``: of pairs of
        templates, and ``deviations``: of pairs of their deviations from the reference. Each a mean
        over pairs and N.
    """

    means = {"to_clip": (features * reference).sum(dim=-1).mean().item()}
    if len(features) > 1:
        for name, vectors in (("between", features), ("deviations", features - reference)):
            means[name] = mean_over_pairs(F.normalize(vectors, dim=-1)).item()
    return means


def collapse_weight(templates: int, decoupling: float, of_deviations: bool = True) -> float:
    """γ from which β L_de + γ Σ_m ``consistency_loss`` is least where all templates equal the
    reference.

    Where L_de is ``similarity_of_templates``, w^m = cos a · t + sin a · v_m as in
    ``decoupling_loss`` gives, for small a::

        β (1 − a² M / (M − 1)) + γ M a² / 2,   which is least at a = 0 from γ = 2β / (M − 1) on.

    Args:
        templates: M ≥ 2; decoupling: β.
        of_deviations: whether L_de is ``decoupling_loss``, which derives the formula.
    """
    if not of_deviations:
        return 2 * decoupling / (templates - 1)
    return 2 * decoupling / (templates * (templates - 1) * SHORT**2)
