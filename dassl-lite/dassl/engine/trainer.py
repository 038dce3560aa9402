"""Trainers over labelled batches."""

import datetime
import os
import time

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from yacs.config import CfgNode

from dassl.data import DataManager
from dassl.engine.base import Batch, SummaryWriter, TrainerBase  # noqa: F401
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
from dassl.utils.checkpoint import BEST


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from the config; tests; saves; resumes."""

    num_batches: int  # of an epoch
    model: nn.Module
    optim: Optimizer
    sched: LRScheduler

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
        """Hook: make `self.model` and what trains it, and register them."""
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
        freq, done = self.cfg.TRAIN.CHECKPOINT_FREQ, self.epoch + 1
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
        return self.model(input)

    def parse_batch_test(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def run_epoch(self) -> None:
        """`forward_backward(batch)` for each batch; prints and records what it reports."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        end = time.monotonic()
        for self.batch_idx, batch in enumerate(self.train_loader_x):
            data_time.update(time.monotonic() - end)
            loss_summary = self.forward_backward(batch)
            batch_time.update(time.monotonic() - end)
            losses.update(loss_summary)
            lr, done, freq = self.get_current_lr(), self.batch_idx + 1, self.cfg.TRAIN.PRINT_FREQ
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
    """Trains on labelled batches: subclasses write `forward_backward(batch)`, which returns a dict of figures."""

    def parse_batch_train(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
