"""Counting, freezing and initialising parameters."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
from torch.nn import init

from dassl.utils.tools import check_availability


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


def open_all_layers(model: nn.Module) -> None:
    """Train every layer: training mode, gradients on."""
    model.train()
    for p in model.parameters():
        p.requires_grad = True


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Train the named children only; the others go to evaluation mode without gradients."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    open_layers = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    for name in open_layers:
        check_availability(name, list(children))
    for name, module in children.items():
        is_open = name in open_layers
        module.train(is_open)
        for p in module.parameters():
            p.requires_grad = is_open


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Fresh weights for linear, convolution, batch-norm and instance-norm layers; biases become zero."""
    check_availability(init_type, ["normal", "xavier", "kaiming", "orthogonal"])

    def init_layer(m: Any) -> None:  # any module: what is done depends on the attributes it has
        name = type(m).__name__
        if hasattr(m, "weight") and ("Conv" in name or "Linear" in name):
            if init_type == "normal":
                init.normal_(m.weight.data, 0.0, gain)
            elif init_type == "xavier":
                init.xavier_normal_(m.weight.data, gain=gain)
            elif init_type == "kaiming":
                init.kaiming_normal_(m.weight.data, a=0, mode="fan_in")
            else:
                init.orthogonal_(m.weight.data, gain=gain)
        elif "BatchNorm" in name or "InstanceNorm" in name:
            if getattr(m, "weight", None) is not None:
                init.constant_(m.weight.data, 1.0)
        else:
            return
        if getattr(m, "bias", None) is not None:
            init.constant_(m.bias.data, 0.0)

    model.apply(init_layer)
