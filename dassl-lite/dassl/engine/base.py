"""What every trainer has: registered models, their checkpoints, the loop over epochs, and hooks around it."""

import importlib.util
import os
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dassl.utils import (
    load_checkpoint,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.checkpoint import BEST, STEP, describe, last_checkpoint, step_epochs, unwrapped

Batch = (
    Any  # what a data loader hands out: with `DatasetWrapper` a dict of tensors and lists by name
)
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
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot assign model before super().__init__() call")
        if name in self._models:
            raise AssertionError(f"Found duplicate model names: {name}")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """`names` as a list, after a check that they are registered; all names by default."""
        known = list(self._models)
        if names is None:
            return known
        names = tolist_if_not(names)
        for name in names:
            if name not in known:
                raise AssertionError(f"No model is registered as {name} (registered: {known})")
        return names

    def _optimizers(self, names: Names) -> list[Optimizer]:
        optims = [self._optims[name] for name in self.get_model_names(names)]
        return [optim for optim in optims if optim is not None]

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"A model's mode is train, test or eval, got {mode}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """One step of every schedule: trainers call it at the end of an epoch."""
        for name in self.get_model_names(names):
            sched = self._scheds[name]
            if sched is not None:
                sched.step()

    def get_current_lr(self, names: Names = None) -> float:
        """The rate of the first parameter group of the first model that has an optimiser."""
        for optim in self._optimizers(names):
            return optim.param_groups[0]["lr"]
        raise RuntimeError(
            f"No learning rate: none of the models {self.get_model_names(names)} has an optimiser"
        )

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
        for name in self.get_model_names():
            parts = {
                "state_dict": self._models[name],
                "optimizer": self._optims[name],
                "scheduler": self._scheds[name],
            }
            state: dict[str, Any] = {"epoch": epoch + 1, "val_result": val_result}
            for key, part in parts.items():
                state[key] = None if part is None else part.state_dict()
            save_checkpoint(
                state, os.path.join(directory, name), is_best=is_best, model_name=model_name
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume from the last epoch that every model has in `directory`; returns the epochs done, 0 if there are none."""
        names = self.get_model_names()
        file_name = self._file_to_resume(directory, names)
        if file_name is None:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        for name in names:
            epoch = resume_from_checkpoint(
                os.path.join(directory, name),
                self._models[name],
                self._optims[name],
                self._scheds[name],
                name=file_name,
            )
        return epoch

    @staticmethod
    def _file_to_resume(directory: str, names: list[str]) -> str | None:
        """One file name for all models: a run stopped between two files of an epoch goes on from the epoch before."""
        folders = [os.path.join(directory, name) for name in names]
        latest = {last_checkpoint(folder) for folder in folders}
        if len(latest) == 1:
            return latest.pop()
        common = set.intersection(*map(step_epochs, folders)) if folders else set()
        return f"{STEP}{max(common)}" if common else None

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load every model's weights: of `epoch` (from 1), else the best, else the last step."""
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained model is given (ignore this if it's done on purpose)"
            )
            return
        names = self.get_model_names()
        if epoch is not None:
            file_name = f"{STEP}{epoch}"
        elif all(os.path.exists(f"{directory}/{name}/{BEST}") for name in names):
            file_name = BEST
        else:
            file_name = self._file_to_resume(directory, names) or BEST
        for name in names:
            folder = f"{directory}/{name}"
            path = f"{folder}/{file_name}"
            if not os.path.exists(path):
                raise FileNotFoundError(f"No model at {path} ({describe(folder)})")
            checkpoint = load_checkpoint(path)
            result = checkpoint.get("val_result")
            result = result if result is None else f"{result:.1f}"
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']}, val_result={result})")
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

    def _missing(self, *args: Any) -> Any:
        raise NotImplementedError

    run_epoch = test = parse_batch_train = parse_batch_test = _missing
    forward_backward = model_inference = _missing
