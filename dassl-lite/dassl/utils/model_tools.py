"""Counting parameters."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn


def count_num_param(model: nn.Module | None = None, params: Iterable[Any] | None = None) -> int:
    """How many numbers the parameters of `model`, or the given parameters or groups, hold."""
    params = params if model is None else model.parameters()
    if params is None:
        raise ValueError("count_num_param needs a model or params")
    groups = (item["params"] if isinstance(item, dict) else item for item in params)
    return sum(
        group.numel() if isinstance(group, torch.Tensor) else count_num_param(params=group)
        for group in groups
    )
