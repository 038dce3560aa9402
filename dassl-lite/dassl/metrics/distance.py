"""Distances between all rows of two matrices."""

import torch.nn.functional as F
from torch import Tensor

from dassl.utils import check_availability


def _check(a: Tensor, b: Tensor) -> None:
    for x in (a, b):
        if x.dim() != 2:
            raise ValueError(f"Distances need 2-D inputs, got {x.dim()}-D")
    if a.size(1) != b.size(1):
        raise ValueError(f"Distances need features of one size, got {a.size(1)} and {b.size(1)}")


def euclidean_squared_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """(m, d), (n, d) -> (m, n)."""
    _check(input1, input2)
    squares = input1.square().sum(1, keepdim=True) + input2.square().sum(1)  # (m, n)
    return squares - 2 * input1 @ input2.t()


def cosine_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """1 - cosine: (m, d), (n, d) -> (m, n)."""
    _check(input1, input2)
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()


def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Tensor:
    """Squared "euclidean" or "cosine" distances."""
    metrics = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}
    check_availability(metric, list(metrics))
    return metrics[metric](input1, input2)
