"""Counting parameters."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn


def count_num_param(model: nn.Module | None = None, params: Iterable[Any] | None = None) -> int:
    """How many numbers the parameters of `model`, or the given parameters or groups, hold."""
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is not None:
        total = 0
        for item in params:
            group = item["params"] if isinstance(item, dict) else item
            total += sum(p.numel() for p in ([group] if isinstance(group, torch.Tensor) else group))
        return total
    raise ValueError("count_num_param needs a model or params")
