"""A run: a method, its images and its folder. It is trained, goes on where it was stopped, is tested,
and leaves its record. Without Dassl: ``MethodTrainer`` is its adapter; the training loop is ``fit``'s.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from ..common.console import counted
from ..common.errors import UserError
from ..common.fingerprints import data_name
from ..common.metrics import start_metrics
from ..common.record_file import remove_record
from ..data.loader import Loader, Loaders, Pairs, folds_of, groups_of
from ..evaluation.prediction import Prediction, percent_right
from ..method import Batches, Method
from .checkpoint import BEST, MODEL_NAME, Checkpoints, epoch_name, load_trained
from .fit import OnDevice, fit, scaler_of
from .optimizer import build_optimizer
from .progress import Progress
from .schedule import build_schedule
from .testing import Evaluator, SplitAnswers

log = logging.getLogger(__name__)
# split, answers, labels (N,) → the larger, the better
Criterion = Callable[[str, Prediction, Tensor], float]
PROBES = 8  # images of the pass from which a training's time is estimated


def accuracy(split: str, answers: Prediction, labels: Tensor) -> float:
    """The accuracy of a split's answers, in percent."""
    return percent_right(answers.probability.argmax(dim=1), labels)


class Run:
    """One run.

    Args:
        cfg: its config; loaders: its images; method: what it trains and tests.
        judge: what the best epoch is chosen by, and a test says.

    Attributes:
        evaluation: its tests; checkpoints: what is saved of it, and how it goes on.
        optimizer, schedule, scaler: of a method that learns.
        done: epochs that were made before this process; epoch: the last one, from 0.
        best_result: of the epochs so far on validation images.
        out_of_fold: the answers to all training images by folds that have not seen them, where the
            method is fitted so.
    """

    def __init__(
        self, cfg: CfgNode, loaders: Loaders, method: Method, judge: Criterion = accuracy
    ) -> None:
        self.cfg = cfg
        self.loaders = loaders
        self.method = method
        self.judge = judge
        self.name: str = cfg.TRAINER.NAME
        self.evaluation = Evaluator(cfg, loaders.images, method)
        parts: dict[str, Any] = {}
        if method.learner is not None:
            self.optimizer = build_optimizer(method, cfg.OPTIM)
            self.schedule = build_schedule(self.optimizer, cfg.OPTIM)
            self.scaler = scaler_of(method)
            parts = {
                "optimizer": self.optimizer,
                "scheduler": self.schedule,
                "scaler": self.scaler,
            }
        self.checkpoints = Checkpoints(cfg, loaders.images, method, parts)
        self.done = 0
        self.epoch = 0
        self.best_result = -math.inf
        self.out_of_fold: SplitAnswers | None = None
        self.check_folds()
        learnable, total = method.count_parameters()
        if method.learner is not None and not learnable:
            log.info("%s: its learnable parameters are made of the training images", self.name)
        else:
            log.info(f"{self.name}: {learnable:,} learnable parameters, {total:,} in all")

    def check_folds(self) -> None:
        """
        Raises:
            UserError: folds are asked for of a method that is trained: that would take as many
                trainings.
        """
        folds = self.cfg.DATASET.FOLDS
        if folds and self.method.learner is not None and not self.method.is_one_fit:
            raise UserError(
                f"DATASET.FOLDS is {folds}, but {self.name} learns in epochs: leave it out, so that a part of the images "
                "is tested on"
            )

    def make(self) -> None:
        """The whole run: it goes on where it was stopped, and ends with its record."""
        if self.method.learner is not None:
            self.read_descriptions()
            self.resume(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        self.train()
        self.keep_validation_answers()
        if self.cfg.TEST.NO_TEST:
            self.evaluation.write_record()
        else:
            self.test()

    def log_images(self) -> None:
        """Says how many images there are."""
        images = self.loaders.images
        if folds := folds_of(images):
            log.info(
                "%s: %d classes; %d images, few: all are trained on, and tested in %d folds",
                data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT),
                len(images.classnames),
                len(images.test),
                folds,
            )
            return
        log.info(
            "%s: %d classes; %d images for training, %d for validation, %d for testing",
            data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT),
            len(images.classnames),
            len(images.train_x),
            len(images.val or ()),
            len(images.test or ()),
        )

    # ---- the images as a method takes them before and after the epochs ----

    def training_images(self, most: int | None = None, augmented: bool = False) -> Batches:
        """The training images in their order, as images are tested or ``augmented`` as they are
        trained on; evenly spaced ones where there are more than ``most``."""
        every = 1 if most is None else -(-len(self.loaders.images.train_x) // most)
        return self.pairs(self.loaders.over_training(every, augmented))

    def validation_images(self) -> Batches | None:
        """The images of val that are none of the test's, or of the whole split; see ``whole_validation``."""
        loader = self.loaders.own_val
        if loader is None:
            return None
        # another toolbox's data set has the few-shot sample alone
        whole = getattr(self.loaders.images, "whole_val", None)
        if self.method.whole_validation and whole is not None:
            loader = self.loaders.over(whole())
        return self.pairs(loader)

    def pairs(self, loader: Loader) -> OnDevice:
        return OnDevice(Pairs(loader), self.method.device)

    # ---- the training ----

    def read_descriptions(self) -> None:
        """So that their errors are raised before any training."""
        if self.method.describe is not None:
            self.method.describe(self.method.classnames)

    def most_minutes(self) -> int:
        """How many minutes a training takes at most: a step costs up to three passes, forward and
        back, of which one is timed."""
        method = self.method
        images = torch.zeros(1, PROBES, 3, *self.cfg.INPUT.SIZE, device=method.device)
        started = time.perf_counter()
        with torch.no_grad(), method.towers.autocast():
            encoded = method.eval().encode()
            middle = time.perf_counter()
            method.answer(images, encoded)
        image = (time.perf_counter() - middle) / PROBES
        method.train()
        epochs = self.cfg.OPTIM.MAX_EPOCH
        steps = epochs * len(self.loaders.train)
        shown = epochs * len(self.loaders.images.train_x) * len(self.loaders.views) / steps
        minutes: int = math.ceil(steps * 3 * (middle - started + shown * image) / 60)
        return minutes

    def say_minutes(self) -> None:
        """Says ``most_minutes``, of a method that learns."""
        if self.method.learner is not None:
            log.info("Training takes up to %s", counted(self.most_minutes(), "minute"))

    def train(self) -> None:
        """All epochs that are left; the final prompts are those of the last or, by
        ``TEST.FINAL_MODEL``, of the best one."""
        cfg = self.cfg
        if self.method.learner is None:
            log.info("%s learns nothing: only tested", self.name)
            self.checkpoints.check_same_record()
            remove_record(cfg.OUTPUT_DIR)
            return
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        remove_record(cfg.OUTPUT_DIR)
        if folds_of(self.loaders.images) or self.is_fitted_in_folds():
            self.train_in_folds()
            return
        start_metrics(cfg.OUTPUT_DIR, self.done > 0)
        before = self.evaluation.seconds["train"]
        with Progress(
            cfg.OUTPUT_DIR,
            f"{self.name} on {data_name(cfg.DATASET.NAME, cfg.DATASET.ROOT)}, seed {cfg.SEED}",
            cfg.OPTIM.MAX_EPOCH,
            len(self.loaders.train),
            self.done,
            cfg.TRAIN.PRINT_FREQ,
        ) as progress:

            def after_epoch(epoch: int) -> None:
                self.epoch = epoch
                self.evaluation.note_training(before + progress.seconds, progress.step_seconds)
                self.after_epoch()

            def after_epochs() -> None:
                progress.close()  # before the bar of the test starts
                self.evaluation.note_training(before + progress.seconds, progress.step_seconds)
                if cfg.TEST.FINAL_MODEL == "best_val":
                    self.load(cfg.OUTPUT_DIR)

            has_changed = fit(
                self.method,
                Pairs(self.loaders.train),
                self.optimizer,
                self.schedule,
                cfg.OPTIM.MAX_EPOCH,
                images=self.training_images,
                validation=self.validation_images(),
                scaler=self.scaler,
                done=self.done,
                after_step=progress.note,
                after_epoch=after_epoch,
                after_epochs=after_epochs,
            )
        if has_changed:
            self.checkpoints.save_prompts_again()
        methods = [part for part in self.method.modules() if isinstance(part, Method)]
        if self.method.describe is not None and not any(part.uses_descriptions for part in methods):
            log.warning(
                f"DATASET.DESCRIPTIONS made no difference: {self.name} holds to no hand-crafted prompts"
            )

    def is_fitted_in_folds(self) -> bool:
        """Whether the training is one fit with settings by training images in folds; of one image per
        class nothing can be held out."""
        has_others = len(self.loaders.images.train_x) >= 2 * len(self.method.classnames)
        return self.method.is_fitted_in_folds and has_others

    def train_in_folds(self) -> None:
        """The whole training of a method that is one fit, see ``fit_in_folds``."""
        started = time.monotonic()
        self.out_of_fold = self.fit_in_folds()
        if not folds_of(self.loaders.images):
            self.evaluation.keep(self.out_of_fold, "train")
        self.epoch = self.cfg.OPTIM.MAX_EPOCH - 1
        self.evaluation.note_training(time.monotonic() - started)
        self.after_epoch()

    @torch.no_grad()
    def fit_in_folds(self) -> SplitAnswers:
        """See ``Method.fit_in_folds``."""
        method = self.method.eval()
        items = self.loaders.images.train_x
        groups = groups_of(self.loaders.images, items)
        answers, labels = method.fit_in_folds(self.looking, groups, self.cfg.SEED)
        answers.check_finite()
        figures = method.learned_figures().items()
        found = ", ".join(f"{name} {value:.3g}" for name, value in figures)
        log.info("%s is fitted to the features of %d images: %s", self.name, len(labels), found)
        return SplitAnswers(answers, labels.cpu(), [str(item.impath) for item in items])

    def looking(self, augmented: bool = False) -> Batches:
        """All training images, with a bar."""
        images = self.training_images(augmented=augmented)
        return tqdm(images, "Looking at the images", mininterval=1, dynamic_ncols=True)

    def after_epoch(self) -> None:
        """Keeps the prompts and, beside them, those of the best epoch so far."""
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            assert self.loaders.val is not None  # ``check_data`` asks for one
            self.method.eval()
            answers, labels, _ = self.evaluation.answers(self.loaders.val, "val")
            result = self.judge("val", answers, labels)
            if result > self.best_result:
                self.best_result = result
                self.save(BEST, result)
        self.save(epoch_name(self.epoch + 1))

    # ---- tests ----

    def test(self, split: str | None = None) -> float:
        """Tests on ``val`` or ``test``; this ends the run with its record.

        Returns:
            what ``judge`` says: accuracy in percent.
        """
        split = split or self.cfg.TEST.SPLIT
        loader = {"val": self.loaders.val, "test": self.loaders.test}.get(split)
        if loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no split {split!r} to test on")
        if folds_of(self.loaders.images) and self.method.learner and not self.out_of_fold:
            raise UserError(
                "the images were all trained on: an accuracy on them is no test, leave out DATASET.FOLDS"
            )
        log.info("Evaluate on the *%s* set", split)
        self.method.eval()
        known = self.out_of_fold if folds_of(self.loaders.images) else None
        result = self.judge(split, *self.evaluation.test(loader, split, known))
        self.evaluation.write_record()
        return result

    def keep_validation_answers(self) -> None:
        """Writes ``predictions-val.npz``, which thresholds are taken from, where val images are not the
        test's, and the run is tested.

        It comes before the test and prints, measures and times nothing: no figure of the run depends
        on it.
        """
        loader = self.loaders.own_val
        if loader is not None and self.cfg.TEST.SPLIT != "val" and not self.cfg.TEST.NO_TEST:
            self.method.eval()
            self.evaluation.keep(self.evaluation.answers(loader, "val"), "val")

    # ---- what is saved ----

    def save(self, file_name: str, result: float | None = None) -> None:
        """Writes a checkpoint of the epoch; result: what was judged of it."""
        self.checkpoints.save(
            f"{self.cfg.OUTPUT_DIR}/{MODEL_NAME}",
            file_name,
            self.epoch + 1,
            val_result=result,
            best_result=self.best_result,
            train_seconds=self.evaluation.seconds["train"],
        )

    def resume(self, directory: str) -> int:
        """Continues from the newest checkpoint below ``directory``; returns the epochs done."""
        state = self.checkpoints.resume(directory)
        if state is not None:
            self.best_result = state["best_result"]
            self.evaluation.note_training(state["train_seconds"])
            self.done = int(state["epoch"])
        return self.done

    def load(self, directory: str, epoch: int | None = None) -> None:
        """Loads prompts for a test, see ``load_trained``.

        Raises:
            UserError: no folder is given, or there are none that fit.
        """
        if self.method.learner is None:
            log.info("%s learns nothing, so nothing is loaded", self.name)
            return
        if not directory:
            raise UserError(
                f"--eval-only of {self.name} needs --model-dir, the folder of a finished training"
            )
        load_trained(self.method, directory, self.cfg, epoch)

    def is_done(self) -> bool:
        """Whether the run's folder holds all that it would leave, see ``Checkpoints.is_done``."""
        splits = {self.cfg.TEST.SPLIT} | ({"val"} if self.loaders.own_val else set())
        return self.checkpoints.is_done(sorted(splits))
