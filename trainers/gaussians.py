"""Gaussian discriminant analysis of image features: the classifier that few images determine best.

Each class is a normal distribution of features with a mean of its own and one covariance for all.
Nothing is trained: means and covariance are those of the images.

References:
    - Wang et al. (2024), "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation".
    - Kubokawa and Srivastava (2008), "Estimation of the precision matrix of a singular Wishart
      distribution": the shrunken inverse, which exists with fewer images than dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 4  # in which each image of a class is held out once


def fit_gaussians(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, E) of K classes and their common precision (E, E), in float64.

    The precision is E · ((N − 1) S + tr(S) I)⁻¹ with the covariance S of the features around their
    classes' means. A class without images has the mean of all.

    Args:
        features: (N, E); labels: (N,); classes: K.
    """
    features = features.double()
    members = F.one_hot(labels, classes).double()  # (N, K)
    counts = members.sum(dim=0)[:, None]  # (K, 1)
    means = members.t() @ features / counts.clamp(min=1)
    means = torch.where(counts > 0, means, features.mean(dim=0))  # (K, E)
    around = features - means[labels]  # (N, E)
    scatter = around.t() @ around  # (E, E), (N − 1) S
    trace = scatter.trace() / max(1, len(features) - 1)
    # of one image a class there is no spread: then all directions count alike
    ridge = torch.where(trace > 0, trace, torch.ones_like(trace))
    width = features.shape[1]
    identity = torch.eye(width, dtype=features.dtype, device=features.device)
    return means, width * torch.linalg.inv(scatter + ridge * identity)


def log_densities(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """log N(z; μ_k, P⁻¹) up to a constant, −½ (z − μ_k)ᵀ P (z − μ_k): (N, E) → (N, K)."""
    projected, means_projected = features @ precision, means @ precision
    return (
        projected @ means.t()  # (N, K)
        - (projected * features).sum(dim=-1, keepdim=True) / 2
        - (means_projected * means).sum(dim=-1) / 2
    )


def held_out_log_densities(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``log_densities`` (N, K) of each image under Gaussians of the others.

    The images of each class go to ``FOLDS`` folds in turn; a fold is judged by those of the rest.
    """
    features = features.double()
    turn = F.one_hot(labels, classes).cumsum(dim=0)[torch.arange(len(labels)), labels]  # (N,)
    densities = features.new_empty(len(labels), classes)
    for fold in range(FOLDS):
        held = turn % FOLDS == fold
        gaussians = fit_gaussians(features[~held], labels[~held], classes)
        densities[held] = log_densities(features[held], *gaussians)
    return densities
