"""Counting parameters."""

from collections.abc import Iterable

import torch.nn as nn
from torch import Tensor


def count_num_param(
    model: nn.Module | None = None, params: Iterable[Tensor | dict[str, Tensor]] | None = None
) -> int:
    """Count the numbers in the parameters of `model`, or in the given ones; a group is a dict with one as `params`."""
    params = params if model is None else model.parameters()
    if params is None:
        raise ValueError("count_num_param needs a model or params")
    return sum((item["params"] if isinstance(item, dict) else item).numel() for item in params)
