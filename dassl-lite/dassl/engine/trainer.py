"""Trainers: registered models, their checkpoints, the loop over epochs and labelled batches, and
hooks around it."""

import datetime
import importlib.util
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from yacs.config import CfgNode

from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer  # noqa: F401

# some of these names user code imports from here, as from Dassl's module
from dassl.utils import (  # noqa: F401
    AverageMeter,
    MetricMeter,
    check_availability,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.checkpoint import BEST, STEP, newest_step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter

Names = str | list[str] | None


class LoadedBatch(TypedDict):
    """A data loader's batch of b images, with one view of each."""

    img: Tensor  # (b, 3, height, width)
    label: Tensor  # (b,), as are the next two
    domain: Tensor
    index: Tensor
    impath: list[str]


def SummaryWriter(log_dir: str = "runs", **kwargs: object) -> "TensorBoardWriter | None":
    """TensorBoard's writer, imported at first use (it is slow to import); None where it is not
    installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter

    return TensorBoardWriter(log_dir=log_dir, **kwargs)


class TrainerBase:
    """Models under names, each perhaps with an optimiser and a scheduler; subclasses define an
    epoch."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, LRScheduler | None] = OrderedDict()
        self._writer: TensorBoardWriter | None = None

    # Models

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: Optimizer | None = None,
        sched: LRScheduler | None = None,
    ) -> None:
        """Make a model known: it is switched between training and testing, saved, loaded and
        resumed under `name`."""
        if name in self._models:
            raise AssertionError(f"Found duplicate model names: {name}")
        self._models[name] = cast(nn.Module, model)  # None is Dassl's default, and of no use
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """`names` as a list; all names by default."""
        return list(self._models) if names is None else tolist_if_not(names)

    def _optimizers(self, names: Names) -> list[Optimizer]:
        return [optim for name in self.get_model_names(names) if (optim := self._optims[name])]

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """mode: train, test or eval."""
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """One step of every schedule: trainers call it at the end of an epoch."""
        for name in self.get_model_names(names):
            if sched := self._scheds[name]:
                sched.step()

    def get_current_lr(self, names: Names = None) -> float:
        """The rate of the first parameter group of the first model that has an optimiser."""
        return float(self._optimizers(names)[0].param_groups[0]["lr"])

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
            optim = self._optims[name]
            sched = self._scheds[name]
            state = {
                "state_dict": model.state_dict(),
                "epoch": epoch + 1,
                "optimizer": optim and optim.state_dict(),
                "scheduler": sched and sched.state_dict(),
                "val_result": val_result,
            }
            save_checkpoint(state, f"{directory}/{name}", is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume from the last epoch that every model has in `directory`; returns the epochs done,
        0 if there are none."""
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
            resume_from_checkpoint(folder, self._models[name], name=file_name)

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

    def forward_backward(self, batch: LoadedBatch) -> dict[str, float] | None:
        raise NotImplementedError


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from the config; tests; saves; resumes."""

    num_batches: int  # of an epoch
    model: nn.Module

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -float("inf")

    def check_cfg(self, cfg: CfgNode) -> None:
        """Hook: refuse a config that the trainer cannot follow (nothing is built yet)."""

    def build_data_loader(self) -> None:
        self.dm = dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.val_loader = dm.val_loader  # may be None
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname

    def build_model(self) -> None:
        """Hook: make `self.model`, its optimiser and its schedule, and register them."""
        raise NotImplementedError

    def train(self) -> None:  # type: ignore[override]  # Dassl's two signatures
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        check_availability(
            self.cfg.TEST.FINAL_MODEL, ["last_step", "best_val"], key="TEST.FINAL_MODEL"
        )
        directory = self.cfg.RESUME or self.output_dir
        self.start_epoch = self.resume_model_if_exist(directory)
        if self.cfg.RESUME and self.start_epoch == 0:
            raise FileNotFoundError(
                f'RESUME is "{directory}", which holds no checkpoint of {self.get_model_names()}'
            )
        if self.start_epoch > self.max_epoch:
            raise ValueError(
                f"{directory} was trained for {self.start_epoch} epochs, OPTIM.MAX_EPOCH is only {self.max_epoch}"
            )
        self.init_writer(os.path.join(self.output_dir, "tensorboard"))
        self.time_start = time.monotonic()

    def after_epoch(self) -> None:
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        done = self.epoch + 1
        if done == self.max_epoch or (freq > 0 and done % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = round(time.monotonic() - self.time_start)
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")
        self.close_writer()

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on "val" or "test" (by default TEST.SPLIT); returns the evaluator's first figure."""
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        loaders = {"val": self.val_loader, "test": self.test_loader}
        check_availability(
            split, [name for name, loader in loaders.items() if loader], key="TEST.SPLIT"
        )
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loaders[split]):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return float(next(iter(results.values())))

    def model_inference(self, input: Tensor) -> Tensor:
        output: Tensor = self.model(input)
        return output

    def parse_batch_test(self, batch: LoadedBatch) -> tuple[Tensor, ...]:
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def run_epoch(self) -> None:
        """`forward_backward(batch)` for each batch; prints and records its numbers."""
        self.set_model_mode("train")
        losses = MetricMeter()
        batch_time = AverageMeter()
        data_time = AverageMeter()
        self.num_batches = len(self.train_loader_x)
        end = time.monotonic()
        for self.batch_idx, batch in enumerate(self.train_loader_x):
            data_time.update(time.monotonic() - end)
            loss_summary = self.forward_backward(batch)
            batch_time.update(time.monotonic() - end)
            losses.update(loss_summary)
            lr = self.get_current_lr()
            done = self.batch_idx + 1
            freq = self.cfg.TRAIN.PRINT_FREQ
            if done % freq == 0 or self.num_batches < freq:
                left = (self.max_epoch - self.epoch) * self.num_batches - done
                print(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) {losses} lr {lr:.4e} "
                    f"eta {datetime.timedelta(seconds=int(batch_time.avg * left))}"
                )
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", lr, step)
            end = time.monotonic()


class TrainerX(SimpleTrainer):
    """Trains on labelled batches: subclasses write `forward_backward(batch)`, which returns a dict
    of figures."""

    def parse_batch_train(self, batch: LoadedBatch) -> tuple[Tensor, ...]:
        return (
            batch["img"].to(self.device),
            batch["label"].to(self.device),
            batch["domain"].to(self.device),
        )
