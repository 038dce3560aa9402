"""Optimisers by Dassl's names, torch's own."""

from typing import Any

import torch
from torch.optim import Optimizer
from yacs.config import CfgNode

from ..method import Method


def build_optimizer(method: Method, settings: CfgNode) -> Optimizer:
    """The optimiser of a method's learnable parts.

    settings: ``cfg.OPTIM``, whose ``NAME`` is adam, adamw, amsgrad, radam, rmsprop or sgd.
    """
    groups: Any = method.parameter_groups(settings.LR) or method.learned.parameters()
    name = settings.NAME
    common: dict[str, Any] = {"lr": settings.LR, "weight_decay": settings.WEIGHT_DECAY}
    if name == "sgd":
        return torch.optim.SGD(
            groups,
            momentum=settings.MOMENTUM,
            dampening=settings.SGD_DAMPNING,
            nesterov=settings.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            groups, momentum=settings.MOMENTUM, alpha=settings.RMSPROP_ALPHA, **common
        )
    common["betas"] = settings.ADAM_BETA1, settings.ADAM_BETA2
    if name == "adamw":
        return torch.optim.AdamW(groups, **common)
    if name == "radam":
        return torch.optim.RAdam(groups, **common)
    return torch.optim.Adam(groups, amsgrad=name == "amsgrad", **common)
