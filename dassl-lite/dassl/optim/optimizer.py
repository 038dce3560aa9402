"""Optimisers by name: torch's own classes."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
from yacs.config import CfgNode

from dassl.utils import check_availability

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: CfgNode, param_groups: Iterable[Any] | None = None
) -> torch.optim.Optimizer:
    """The optimiser that `optim_cfg` (cfg.OPTIM) names, over `param_groups` if given, else over all of `model`.

    `model` is a module (its frozen parameters are included) or an iterable of parameters or parameter groups.
    """
    name = optim_cfg.NAME
    check_availability(name, AVAI_OPTIMS, key="OPTIM.NAME")
    if param_groups is not None and optim_cfg.STAGED_LR:
        warnings.warn("OPTIM.STAGED_LR is ignored, since param_groups is given", stacklevel=2)
    if param_groups is None:
        if optim_cfg.STAGED_LR:
            param_groups = _staged(model, optim_cfg)
        else:
            param_groups = model.parameters() if isinstance(model, nn.Module) else model

    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "adam":
        return torch.optim.Adam(param_groups, betas=betas, **common)
    if name == "amsgrad":
        return torch.optim.Adam(param_groups, betas=betas, amsgrad=True, **common)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    if name == "radam":
        # Dassl's own RAdam shrinks the weights directly (decoupled), as in the paper's code
        return torch.optim.RAdam(param_groups, betas=betas, decoupled_weight_decay=True, **common)
    if name == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
    return torch.optim.SGD(
        param_groups,
        momentum=optim_cfg.MOMENTUM,
        dampening=optim_cfg.SGD_DAMPNING,
        nesterov=optim_cfg.SGD_NESTEROV,
        **common,
    )


def _staged(model: nn.Module | Iterable[Any], optim_cfg: CfgNode) -> list[dict[str, Any]]:
    """Two groups: the children named in NEW_LAYERS at the full rate, everything else at BASE_LR_MULT of it."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs an nn.Module, got {type(model).__name__}")
    network: nn.Module = model.module if isinstance(model, nn.DataParallel) else model
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = [new_layers] if isinstance(new_layers, str) else list(new_layers)
    if not new_layers:
        warnings.warn("OPTIM.NEW_LAYERS is empty: OPTIM.STAGED_LR only lowers the learning rate", stacklevel=3)
    children = [name for name, _ in network.named_children()]
    for layer in new_layers:
        check_availability(layer, children, key="OPTIM.NEW_LAYERS")
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (new if name.split(".")[0] in new_layers else base).append(parameter)
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
