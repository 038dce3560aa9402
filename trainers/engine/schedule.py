"""Learning-rate schedules with warm-up, as Dassl defines them, on torch's ``LambdaLR``.

Dassl's own warm-up classes fail on current torch and keep a pickled optimiser in checkpoints; this
one's state is an epoch number.
"""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from ..common.errors import UserError
from ..common.ranges import check_choice

SCHEDULES = ("single_step", "multi_step", "cosine")
WARMUPS = ("constant", "linear")


def build_schedule(optimizer: Optimizer, optim_cfg: CfgNode) -> LambdaLR:
    """Scheduler to be stepped once after each epoch.

    Args:
        optimizer: its groups' learning rates are the base L; a group with 0 keeps it.
        optim_cfg: ``cfg.OPTIM``. What the warm-up names, ``WARMUP_CONS_LR`` or ``WARMUP_MIN_LR``, is
            the rate of every group, whatever its L.

    Raises:
        UserError: unknown ``LR_SCHEDULER`` or ``WARMUP_TYPE``, a warm-up that leaves nothing.
    """
    if not optim_cfg.WARMUP_RECOUNT and optim_cfg.WARMUP_EPOCH >= optim_cfg.MAX_EPOCH:
        raise UserError(
            f"OPTIM.WARMUP_EPOCH {optim_cfg.WARMUP_EPOCH} leaves none of the {optim_cfg.MAX_EPOCH} epochs, and WARMUP_RECOUNT "
            "is off"
        )
    check_choice("OPTIM.LR_SCHEDULER", optim_cfg.LR_SCHEDULER, SCHEDULES)
    if optim_cfg.WARMUP_EPOCH > 0:
        check_choice("OPTIM.WARMUP_TYPE", optim_cfg.WARMUP_TYPE, WARMUPS)
    bases = [group["lr"] for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor, base, optim_cfg) for base in bases])


def factor(base: float, optim_cfg: CfgNode, epoch: int) -> float:
    """What a group's learning rate L = ``base`` is multiplied by in an epoch (from 0)."""
    warmup = max(optim_cfg.WARMUP_EPOCH, 0)
    if epoch < warmup:
        if optim_cfg.WARMUP_TYPE == "constant":
            return optim_cfg.WARMUP_CONS_LR / base if base else 0.0
        if epoch == 0:
            return optim_cfg.WARMUP_MIN_LR / base if base else 0.0
        return epoch / warmup
    if optim_cfg.WARMUP_RECOUNT or warmup == 0:
        return decay(epoch - warmup, optim_cfg)
    # without recounting, the decay goes on as if it had run during warm-up, but starts from L
    return decay(epoch, optim_cfg) / decay(warmup, optim_cfg)


def decay(epoch: int, optim_cfg: CfgNode) -> float:
    """Factor of the base rate after ``epoch`` epochs of the schedule after the warm-up."""
    if optim_cfg.LR_SCHEDULER == "cosine":
        return (1 + math.cos(math.pi * epoch / optim_cfg.MAX_EPOCH)) / 2
    steps = optim_cfg.STEPSIZE
    if optim_cfg.LR_SCHEDULER == "single_step":
        size = steps[-1] if isinstance(steps, (list, tuple)) else steps
        return optim_cfg.GAMMA ** (epoch // (size if size > 0 else optim_cfg.MAX_EPOCH))
    return optim_cfg.GAMMA ** sum(epoch >= milestone for milestone in steps if milestone > 0)
