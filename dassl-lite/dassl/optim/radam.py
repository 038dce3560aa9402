"""Dassl's optimisers under their names, by torch's classes. Weights always decay by themselves, not through the gradient.

`RAdam` and `PlainRAdam` (Liu et al., 2020) are the same function, and torch's arithmetic. `AdamW` differs from Dassl's in
`eps`, which torch adds to the root of the *corrected* second moment: the same as an `eps` of √(1 − β₂ᵗ) times as much.
"""

from collections.abc import Iterable
from typing import Any

import torch


class RAdam(torch.optim.RAdam):
    """Adam whose first steps, in which the second moment is not yet known, are steps of momentum.

    It takes what torch's takes: lr, betas, eps, weight_decay.
    """

    def __init__(self, params: Iterable[Any], *settings: Any, **further: Any) -> None:
        super().__init__(params, *settings, decoupled_weight_decay=True, **further)  # type: ignore[misc]


PlainRAdam = RAdam


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay, by default none."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
