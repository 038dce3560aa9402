"""Optimisers by name."""

import torch
import torch.nn as nn
from torch.optim.optimizer import ParamsT
from yacs.config import CfgNode

from dassl.optim.radam import RAdam
from dassl.utils import check_availability

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | ParamsT, optim_cfg: CfgNode, param_groups: ParamsT | None = None
) -> torch.optim.Optimizer:
    """The optimiser that `optim_cfg` (cfg.OPTIM) names, over `param_groups` if given, else over all
    of `model`.

    `model` is a module (its frozen parameters are included) or an iterable of parameters or
    parameter groups.
    """
    name = optim_cfg.NAME
    check_availability(name, AVAI_OPTIMS, key="OPTIM.NAME")
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    if name == "sgd":
        return torch.optim.SGD(
            param_groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common
        )
    common["betas"] = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "radam":
        return RAdam(param_groups, **common)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, **common)
    return torch.optim.Adam(param_groups, amsgrad=name == "amsgrad", **common)
