"""Learning-rate schedules with warm-up, as Dassl defines them, on torch's ``LambdaLR``.

Dassl's own warm-up classes fail on current torch and keep a pickled optimiser in checkpoints; this
one's state is an epoch number.
"""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode


def build_schedule(optimizer: Optimizer, optim_cfg: CfgNode) -> LambdaLR:
    """Scheduler to be stepped once after each epoch.

    Args:
        optimizer: its groups' learning rates are the base L; a group with 0 keeps it.
        optim_cfg: ``cfg.OPTIM``. The warm-up's rate, ``WARMUP_CONS_LR`` or ``WARMUP_MIN_LR``, is
            every group's, whatever its L.
    """
    bases = [group["lr"] for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor, base, optim_cfg) for base in bases])


def factor(base: float, optim_cfg: CfgNode, epoch: int) -> float:
    """Return the factor of a group's learning rate L = ``base`` in an epoch (from 0)."""
    warmup = max(optim_cfg.WARMUP_EPOCH, 0)
    if epoch < warmup:
        is_constant = optim_cfg.WARMUP_TYPE == "constant"
        if epoch > 0 and not is_constant:
            share: float = epoch / warmup
            return share
        first = optim_cfg.WARMUP_CONS_LR if is_constant else optim_cfg.WARMUP_MIN_LR
        return first / base if base else 0.0
    if optim_cfg.LR_SCHEDULER == "cosine":
        return (1 + math.cos(math.pi * (epoch - warmup) / optim_cfg.MAX_EPOCH)) / 2
    steps = optim_cfg.STEPSIZE
    size = steps[-1] if isinstance(steps, (list, tuple)) else steps
    decay: float = optim_cfg.GAMMA ** (
        (epoch - warmup) // (size if size > 0 else optim_cfg.MAX_EPOCH)
    )
    return decay
