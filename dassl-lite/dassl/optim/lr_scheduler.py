"""Learning-rate schedules by name, stepped once an epoch, with an optional warm-up before them."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

from dassl.utils import check_availability

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
AVAI_WARMUPS = ["linear", "constant"]


class _WarmupScheduler(LRScheduler):
    """For `warmup_epoch` epochs the rate of `warmup_lr`, then `successor`, which starts at its first value.

    The state holds the successor's state, not the successor: its optimiser is always the live one.
    """

    def __init__(
        self, optimizer: Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[float | Tensor]:
        """The rate of each group in epoch `self.last_epoch` < `warmup_epoch`."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch < self.warmup_epoch:
            return self.warmup_lr()
        return self.successor.get_last_lr()

    def step(self) -> None:  # type: ignore[override]  # no `epoch` argument: torch has deprecated it
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step()
            self.last_epoch += 1
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "successor")}
        state["successor"] = self.successor.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        self.__dict__.update(state)


class ConstantWarmupScheduler(_WarmupScheduler):
    """`cons_lr` during the warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float | Tensor]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_WarmupScheduler):
    """`min_lr` in the first epoch, then e / `warmup_epoch` of the full rate."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float | Tensor]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """The schedule that `optim_cfg` (cfg.OPTIM) names."""
    name = optim_cfg.LR_SCHEDULER
    check_availability(name, AVAI_SCHEDS, key="OPTIM.LR_SCHEDULER")
    stepsize = optim_cfg.STEPSIZE
    scheduler: LRScheduler
    if name == "single_step":
        if isinstance(stepsize, (list, tuple)):
            stepsize = stepsize[-1]
        if not isinstance(stepsize, int):
            raise TypeError(
                f"OPTIM.STEPSIZE must be an integer for single_step, got {type(stepsize).__name__}"
            )
        scheduler = StepLR(
            optimizer,
            step_size=stepsize if stepsize > 0 else optim_cfg.MAX_EPOCH,
            gamma=optim_cfg.GAMMA,
        )
    elif name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise TypeError(
                f"OPTIM.STEPSIZE must be a list for multi_step, got {type(stepsize).__name__}"
            )
        scheduler = MultiStepLR(optimizer, milestones=list(stepsize), gamma=optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH))  # type: ignore[arg-type]  # as Dassl saves it

    warmup = optim_cfg.WARMUP_EPOCH
    if warmup <= 0:
        return scheduler
    check_availability(optim_cfg.WARMUP_TYPE, AVAI_WARMUPS, key="OPTIM.WARMUP_TYPE")
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup  # the epochs of the warm-up count as epochs of the schedule
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_MIN_LR)
