"""MethodTrainer: trains and tests a ``Method`` in Dassl.

A method's file ends with ``CDC = registered(CDCMethod)``, which makes its trainer, ``trainer_of``, and
registers it. Its settings are ``cfg.TRAINER.<NAME>``, the trainer's name in capitals. The training
loop is ``fit``'s.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from dassl.data import DataManager
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_optimizer
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from .build import build_method, settings_of
from .common.console import show_messages
from .common.errors import UserError
from .common.fingerprints import data_name
from .common.metrics import start_metrics
from .common.record_file import remove_record
from .data.loader import (
    Batch,
    CheckedImages,
    in_even_batches,
    prepare_workers,
    template_views,
)
from .engine.checkpoint import BEST, MODEL_NAME, Checkpoints, epoch_name, load_trained
from .engine.checks import check_data, check_run, validates_on_test_images
from .engine.progress import Progress
from .engine.schedule import build_schedule
from .engine.testing import Evaluator
from .evaluation.prediction import Prediction
from .fit import fit
from .method import Batches, Method
from .settings import add_run_settings

log = logging.getLogger(__name__)
Pair = TypeVar("Pair")


class Parsed(Generic[Pair]):
    """A loader's batches, each as ``parse`` gives it. The loader draws its seed only when they are
    asked for."""

    def __init__(self, loader: DataLoader[Batch], parse: Callable[[Batch], Pair]) -> None:
        self.loader = loader
        self.parse = parse

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.loader:
            yield self.parse(batch)


class MethodTrainer(TrainerX):
    """Builds data, method and optimiser from a config, trains, tests, and writes the run's record.

    Attributes:
        method: the ``Method`` that a subclass trains.
        model: the one of this run.
        checkpoints: what is saved of it, and how it goes on.
        evaluation: its tests.
    """

    method: type[Method]
    model: Method

    def __init__(self, cfg: CfgNode) -> None:
        show_messages()
        add_run_settings(cfg)  # another toolbox's config may not have them
        super().__init__(cfg)

    # ---- build ----

    def check_cfg(self, cfg: CfgNode) -> None:
        self.method.check(settings_of(self.method, cfg), f"TRAINER.{type(self).__name__.upper()}")
        check_run(cfg)

    def build_data_loader(self) -> None:
        self.views = template_views(
            self.cfg, *self.method.views(settings_of(self.method, self.cfg))
        )
        self.dm = dm = DataManager(
            self.cfg, custom_tfm_train=self.views, dataset_wrapper=CheckedImages
        )
        self.train_loader_x = dm.train_loader_x
        if self.cfg.OPTIM.LEAST_STEPS:
            self.train_loader_x = in_even_batches(dm.train_loader_x, self.cfg.OPTIM)
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        for loader in filter(None, (self.train_loader_x, dm.val_loader, dm.test_loader)):
            prepare_workers(loader)
        self.num_classes = dm.num_classes
        self.lab2cname = dm.lab2cname
        self.num_source_domains = dm.num_source_domains
        check_data(self.cfg, dm)

    def build_model(self) -> None:
        cfg = self.cfg
        data = self.dm.dataset
        name = type(self).__name__
        self.model = model = build_method(self.method, cfg, list(data.classnames), self.device)
        self.evaluation = Evaluator(cfg, data, model)
        parts: dict[str, Optimizer | LRScheduler | GradScaler] = {}
        if model.learner is not None:
            groups = model.parameter_groups(cfg.OPTIM.LR)
            self.optim = build_optimizer(model.learner, cfg.OPTIM, groups)
            self.sched = build_schedule(self.optim, cfg.OPTIM)
            is_half = model.autocast_dtype == torch.float16
            self.scaler = GradScaler(self.device.type, enabled=is_half)
            self.register_model(MODEL_NAME, model.learner, self.optim, self.sched)
            parts = {"optimizer": self.optim, "scheduler": self.sched, "scaler": self.scaler}
        self.checkpoints = Checkpoints(cfg, data, model, parts)
        learnable, total = model.count_parameters()
        log.info(f"{name}: {learnable:,} learnable parameters, {total:,} in all")

    def parse_batch_train(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (V, B, 3, H, W) in their views, and labels (B,)."""
        return torch.stack(batch["img"]).to(self.device), batch["label"].to(self.device)

    def parse_batch_test(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same of test images, (1, B, 3, H, W)."""
        return batch["img"].to(self.device)[None], batch["label"].to(self.device)

    # ---- the images as a method takes them before and after the epochs ----

    def training_images(self, most: int | None = None, augmented: bool = False) -> Batches:
        """The training images in their order, as images are tested or ``augmented`` as they are
        trained on; evenly spaced ones where there are more than ``most``."""
        images = self.dm.dataset.train_x
        every = 1 if most is None else -(-len(images) // most)
        return Parsed(self.loader_over(images[::every], augmented), self.parse_batch_test)

    def loader_over(self, images: Sequence[Datum], augmented: bool = False) -> DataLoader[Batch]:
        """A loader of the images in their order."""
        with contextlib.redirect_stdout(None):  # Dassl prints it, as at the start of the run
            transform = build_transform(self.cfg, is_train=augmented)
        loader = build_data_loader(
            self.cfg,
            data_source=images,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            is_train=False,
            tfm=transform,
            dataset_wrapper=CheckedImages,
        )
        prepare_workers(loader)
        return loader

    def validation_loader(self) -> DataLoader[Batch] | None:
        """Of validation images that are none of the test's; None without such."""
        if self.val_loader is None or validates_on_test_images(self.dm.dataset):
            return None
        return self.val_loader

    def validation_images(self) -> Batches | None:
        """The images of ``validation_loader``, or of the whole split; see ``whole_validation``."""
        loader = self.validation_loader()
        data = self.dm.dataset
        if loader is None:
            return None
        # another toolbox's data set has the few-shot sample alone
        if self.method.whole_validation and hasattr(data, "whole_val"):
            loader = self.loader_over(data.whole_val())
        return Parsed(loader, self.parse_batch_test)

    # ---- the training ----

    def train(self) -> None:  # type: ignore[override]  # as SimpleTrainer's
        if self.model.learner is None:
            log.info("%s learns nothing: only tested", type(self).__name__)
            remove_record(self.output_dir)
            self.keep_validation_answers()
            self.test()
            return
        if self.model.describe is not None:
            self.model.describe(self.model.classnames)  # errors are raised before any training
        self.before_train()  # resumes, or refuses to
        os.makedirs(self.output_dir, exist_ok=True)
        remove_record(self.output_dir)
        start_metrics(self.output_dir, self.start_epoch > 0)
        name = data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT)
        with Progress(
            self.output_dir,
            f"{type(self).__name__} on {name}, seed {self.cfg.SEED}",
            self.max_epoch,
            len(self.train_loader_x),
            self.start_epoch,
            self.cfg.TRAIN.PRINT_FREQ,
        ) as progress:
            before = self.evaluation.seconds["train"]

            def after_epoch(epoch: int) -> None:
                self.epoch = epoch
                self.evaluation.note_training(before + progress.seconds, progress.step_seconds)
                self.after_epoch()

            def after_epochs() -> None:
                progress.close()  # before the bar of the test starts
                self.evaluation.note_training(before + progress.seconds, progress.step_seconds)
                if self.cfg.TEST.FINAL_MODEL == "best_val":
                    self.load_model(
                        self.output_dir
                    )  # as Dassl does, but only on its way to the test

            has_changed = fit(
                self.model,
                Parsed(self.train_loader_x, self.parse_batch_train),
                self.optim,
                self.sched,
                self.max_epoch,
                images=self.training_images,
                validation=self.validation_images(),
                scaler=self.scaler,
                done=self.start_epoch,
                after_step=progress.note,
                after_epoch=after_epoch,
                after_epochs=after_epochs,
            )
        if has_changed:
            self.checkpoints.save_prompts_again()
        self.after_train()

    def after_epoch(self) -> None:
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            assert self.val_loader is not None  # ``check_data`` asks for one
            self.set_model_mode("eval")
            answers, labels, _ = self.evaluation.answers(self.val_loader, "val")
            result = self.evaluated("val", answers, labels)
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        methods = [part for part in self.model.modules() if isinstance(part, Method)]
        if self.model.describe is not None and not any(part.uses_descriptions for part in methods):
            name = type(self).__name__
            log.warning(
                f"DATASET.DESCRIPTIONS made no difference: {name} holds to no hand-crafted prompts"
            )
        if not self.cfg.TEST.NO_TEST:
            self.keep_validation_answers()
        super().after_train()  # tests
        if self.cfg.TEST.NO_TEST:
            self.evaluation.write_record()

    # ---- tests ----

    def test(self, split: str | None = None) -> float:
        """Evaluates on ``val`` or ``test``; this ends the run with its record.

        Returns:
            accuracy in percent.
        """
        split = split or self.cfg.TEST.SPLIT
        loader = {"val": self.val_loader, "test": self.test_loader}.get(split)
        if loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no split {split!r} to test on")
        log.info("Evaluate on the *%s* set", split)
        self.set_model_mode("eval")
        result = self.evaluated(split, *self.evaluation.test(loader, split))
        self.evaluation.write_record()
        return result

    def evaluated(self, split: str, answers: Prediction, labels: Tensor) -> float:
        """What Dassl's evaluator makes of answers: its first figure."""
        self.evaluator.reset()
        self.evaluator.process(answers.probability, labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return float(next(iter(results.values())))

    def keep_validation_answers(self) -> None:
        """Writes ``predictions-val.npz``, which ``predict.py`` takes thresholds from, where val images
        are not the test's.

        It comes before the test and prints, measures and times nothing: no figure of the run depends
        on it.
        """
        loader = self.validation_loader()
        if loader is not None and self.cfg.TEST.SPLIT != "val":
            self.set_model_mode("eval")
            self.evaluation.keep(loader, "val")

    # ---- what is saved ----

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Writes the checkpoint after an epoch, from 0."""
        self.checkpoints.save(
            f"{directory}/{MODEL_NAME}",
            model_name or epoch_name(epoch + 1),
            epoch + 1,
            val_result=None if val_result is None else float(val_result),
            best_result=self.best_result,
            train_seconds=self.evaluation.seconds["train"],
        )

    def resume_model_if_exist(self, directory: str) -> int:
        """Continues from the newest checkpoint below ``directory``; returns the epochs done."""
        state = self.checkpoints.resume(directory)
        if state is None:
            return 0
        self.best_result = state["best_result"]
        self.evaluation.note_training(state["train_seconds"])
        return int(state["epoch"])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads prompts for evaluation, see ``load_trained``."""
        name = type(self).__name__
        if self.model.learner is None:
            log.info("%s learns nothing, so nothing is loaded", name)
            return
        if not directory:
            raise UserError(
                f"--eval-only of {name} needs --model-dir, the folder of a finished training"
            )
        load_trained(self.model, directory, self.cfg, epoch)

    def is_done(self) -> bool:
        """Whether the run's folder holds all that this run would leave, see ``Checkpoints.is_done``."""
        splits = {self.cfg.TEST.SPLIT} | ({"val"} if self.validation_loader() else set())
        return self.checkpoints.is_done(sorted(splits))


def trainer_of(method: type[Method]) -> type[MethodTrainer]:
    """The trainer of ``<Name>Method``, a class of its own called ``<Name>``, in Dassl's registry.

    Raises:
        KeyError: another one is registered under that name.
    """
    name = method.name()
    facts = {"method": method, "__module__": method.__module__, "__doc__": method.__doc__}
    trainer = type(name, (MethodTrainer,), facts)
    TRAINER_REGISTRY.register()(trainer)
    return trainer
