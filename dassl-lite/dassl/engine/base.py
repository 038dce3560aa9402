"""What every trainer has: registered models, their checkpoints, the loop over epochs, and hooks around it."""

import importlib.util
import os
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dassl.utils import load_checkpoint, resume_from_checkpoint, save_checkpoint, tolist_if_not
from dassl.utils.checkpoint import BEST, STEP, newest_step, unwrapped

# what a data loader hands out: with `DatasetWrapper` a dict of tensors and lists by name
Batch = Any
Names = str | list[str] | None


def SummaryWriter(log_dir: str = "runs", **kwargs: Any) -> Any:
    """TensorBoard's writer, imported at first use (it is slow to import); None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter

    return TensorBoardWriter(log_dir=log_dir, **kwargs)


class TrainerBase:
    """Models under names, each perhaps with an optimiser and a scheduler; subclasses say what an epoch is."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, LRScheduler | None] = OrderedDict()
        self._writer: Any = None

    # Models

    def register_model(
        self,
        name: str = "model",
        model: Any = None,
        optim: Optimizer | None = None,
        sched: LRScheduler | None = None,
    ) -> None:
        """Make a model known: it is switched between training and testing, saved, loaded and resumed under `name`."""
        if name in self._models:
            raise AssertionError(f"Found duplicate model names: {name}")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """`names` as a list, after a check that they are registered; all names by default."""
        known = list(self._models)
        names = known if names is None else tolist_if_not(names)
        if unknown := [name for name in names if name not in known]:
            raise AssertionError(f"No model is registered as {unknown[0]} (registered: {known})")
        return names

    def _optimizers(self, names: Names) -> list[Optimizer]:
        return [optim for name in self.get_model_names(names) if (optim := self._optims[name])]

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"A model's mode is train, test or eval, got {mode}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """One step of every schedule: trainers call it at the end of an epoch."""
        for name in self.get_model_names(names):
            if sched := self._scheds[name]:
                sched.step()

    def get_current_lr(self, names: Names = None) -> float:
        """The rate of the first parameter group of the first model that has an optimiser."""
        return self._optimizers(names)[0].param_groups[0]["lr"]

    # Updates

    def model_zero_grad(self, names: Names = None) -> None:
        for optim in self._optimizers(names):
            optim.zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        for optim in self._optimizers(names):
            optim.step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    # Checkpoints

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write every model after `epoch` (from 0) to `directory/<its name>`."""
        for name, model in self._models.items():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": model.state_dict(),
                "epoch": epoch + 1,
                "optimizer": optim and optim.state_dict(),
                "scheduler": sched and sched.state_dict(),
                "val_result": val_result,
            }
            save_checkpoint(state, f"{directory}/{name}", is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume from the last epoch that every model has in `directory`; returns the epochs done, 0 if there are none."""
        if not self._models:
            raise RuntimeError(
                f"{type(self).__name__} has registered no model, so there is nothing to train "
                "(call register_model in build_model; a trainer without training runs with --eval-only)"
            )
        file_name = newest_step(*(f"{directory}/{name}" for name in self._models))
        if file_name is None:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        for name, model in self._models.items():
            parts = model, self._optims[name], self._scheds[name]
            epoch = resume_from_checkpoint(f"{directory}/{name}", *parts, name=file_name)
        return epoch

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load every model's weights: of `epoch` (from 1), else the best, else the last step."""
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained model is given (ignore this if it's done on purpose)"
            )
            return
        folders = {name: f"{directory}/{name}" for name in self._models}
        if epoch is not None:
            file_name = f"{STEP}{epoch}"
        elif all(os.path.exists(f"{folder}/{BEST}") for folder in folders.values()):
            file_name = BEST
        else:
            file_name = newest_step(*folders.values()) or BEST
        for name, folder in folders.items():
            path = f"{folder}/{file_name}"
            if not os.path.exists(path):
                raise FileNotFoundError(f"No model at {path}")
            checkpoint = load_checkpoint(path)
            epoch, result = checkpoint["epoch"], checkpoint.get("val_result")
            print(f"Load {path} to {name} (epoch={epoch}, val_result={result})")
            unwrapped(self._models[name]).load_state_dict(checkpoint["state_dict"])

    # Scalars

    def init_writer(self, log_dir: str) -> None:
        if self._writer is None:
            self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    # The loop

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """All epochs; `before_train` may change `self.start_epoch` to resume."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None: ...

    def after_train(self) -> None: ...

    def before_epoch(self) -> None: ...

    def after_epoch(self) -> None: ...

    # A trainer over batches writes these

    def run_epoch(self) -> None:
        raise NotImplementedError

    def forward_backward(self, batch: Batch) -> dict[str, float] | None:
        raise NotImplementedError
