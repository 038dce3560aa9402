"""Learning-rate schedules by name, stepped once per epoch, with an optional warm-up before them."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

from dassl.utils import check_availability

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class ConstantWarmupScheduler(LRScheduler):
    """For `warmup_epoch` epochs the rate `first_lr`, then `successor`, which starts at its first value.

    The state holds the successor's state, not the successor: its optimiser is always the live one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        first_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        self.first_lr = first_lr
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self, lr: float | Tensor) -> float | Tensor:
        """The rate in epoch `self.last_epoch` < `warmup_epoch` of a group whose full rate is `lr`."""
        return self.first_lr

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch < self.warmup_epoch:
            return [self.warmup_lr(lr) for lr in self.base_lrs]
        if self.last_epoch > self.warmup_epoch:
            self.successor.step()
        return self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        successor = state_dict["successor"]  # in Dassl's files the scheduler itself
        if isinstance(successor, LRScheduler):
            successor = successor.state_dict()
        self.successor.load_state_dict(successor)
        super().load_state_dict({**state_dict, "successor": self.successor})


class LinearWarmupScheduler(ConstantWarmupScheduler):
    """The rate `first_lr` in the first epoch, then e / `warmup_epoch` of the full rate."""

    def warmup_lr(self, lr: float | Tensor) -> float | Tensor:
        return lr * self.last_epoch / self.warmup_epoch if self.last_epoch else self.first_lr


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """The schedule that `optim_cfg` (cfg.OPTIM) names."""
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, key="OPTIM.LR_SCHEDULER")
    steps = optim_cfg.STEPSIZE
    epochs = optim_cfg.MAX_EPOCH
    scheduler: LRScheduler
    if optim_cfg.LR_SCHEDULER == "single_step":
        step = steps[-1] if isinstance(steps, (list, tuple)) else steps
        scheduler = StepLR(optimizer, step if step > 0 else epochs, optim_cfg.GAMMA)
    elif optim_cfg.LR_SCHEDULER == "multi_step":
        scheduler = MultiStepLR(optimizer, list(steps), optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(epochs))  # type: ignore[arg-type]  # as Dassl saves it

    warmup = optim_cfg.WARMUP_EPOCH
    if warmup <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup  # the epochs of the warm-up count as epochs of the schedule
    kinds = {
        "linear": (LinearWarmupScheduler, optim_cfg.WARMUP_MIN_LR),
        "constant": (ConstantWarmupScheduler, optim_cfg.WARMUP_CONS_LR),
    }
    check_availability(optim_cfg.WARMUP_TYPE, list(kinds), key="OPTIM.WARMUP_TYPE")
    kind, first_lr = kinds[optim_cfg.WARMUP_TYPE]
    return kind(optimizer, scheduler, warmup, first_lr)
