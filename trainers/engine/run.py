"""A run: a method, its images and its folder. It is trained, goes on where it was stopped, is tested,
and leaves its record. Without Dassl: ``MethodTrainer`` is its adapter; the training loop is ``fit``'s.
"""

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from ..common.errors import UserError
from ..common.fingerprints import data_name
from ..common.metrics import start_metrics
from ..common.record_file import remove_record
from ..common.trained_on import UNKNOWN_PICTURES, TrainedOn
from ..data.loader import Loader, Loaders, Pairs
from ..evaluation.prediction import Prediction, percent_right
from ..method import Batches, Method
from .checkpoint import BEST_FILE, MODEL_NAME, Checkpoints, epoch_name, load_trained
from .fit import OnDevice, fit, fit_once, scaler_of
from .optimizer import build_optimizer
from .progress import Progress
from .schedule import build_schedule
from .testing import Evaluator

log = logging.getLogger(__name__)
# split, answers, labels (N,) → the larger, the better
Criterion = Callable[[str, Prediction, Tensor], float]


def accuracy(split: str, answers: Prediction, labels: Tensor) -> float:
    """The accuracy of a split's answers, in percent."""
    return percent_right(answers.probability.argmax(dim=1), labels)


class Run:
    """One run.

    Args:
        cfg: its config; loaders: its images; method: the method that it trains and tests.
        judge: the score that chooses the best epoch, and that a test returns.

    Attributes:
        evaluation: its tests; checkpoints: its saved states, from which it goes on.
        optimizer, schedule, scaler: of a method that learns in epochs.
        done: epochs that were made before this process; epoch: the last one, from 0.
        best_result: of the epochs so far on validation images.
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
        if method.learns_in_epochs:
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
        learnable, total = method.count_parameters()
        if method.learner is not None and not learnable:
            log.info("%s: its learnable parameters are made of the training images", self.name)
        else:
            log.info(f"{self.name}: {learnable:,} learnable parameters, {total:,} in all")

    def make(self) -> None:
        """The whole run: it resumes where it was stopped, and ends with its record."""
        if self.method.learner is not None:
            self.read_descriptions()
            self.resume(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        self.train()
        self.finish()

    def prepare(self) -> None:
        """Prepare a training of any kind: the folder is this run's, and no former
        record stays.

        Raises:
            UserError: the folder holds another run.
        """
        self.read_descriptions()
        self.resume(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        remove_record(self.cfg.OUTPUT_DIR)

    def finish(self) -> None:
        """Finish after the training: answer the validation images, test, and write the
        record."""
        self.keep_validation_answers()
        if self.cfg.TEST.NO_TEST:
            self.evaluation.write_record()
        else:
            self.test()

    def log_images(self) -> None:
        """Says how many images there are."""
        images = self.loaders.images
        log.info(
            "%s: %d classes; %d images for training, %d for validation, %d for testing",
            data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT),
            len(images.classnames),
            len(images.train_x),
            len(images.val),
            len(images.test),
        )

    # ---- the images as a method takes them before and after the epochs ----

    def training_images(self, most: int | None = None, augmented: bool = False) -> Batches:
        """The training images in their order, as images are tested or ``augmented`` as they are
        trained on; evenly spaced ones where there are more than ``most``."""
        every = 1 if most is None else -(-len(self.loaders.images.train_x) // most)
        return self.pairs(self.loaders.over_training(every, augmented))

    def validation_images(self) -> Batches | None:
        """Return the images of val that are not test images, or the whole split (``whole_validation``)."""
        loader = self.loaders.own_val
        if loader is None:
            return None
        if self.method.whole_validation:
            loader = self.loaders.over(self.loaders.images.whole_val)
        return self.pairs(loader)

    def pairs(self, loader: Loader) -> OnDevice:
        return OnDevice(Pairs(loader), self.method.device)

    # ---- the training ----

    def read_descriptions(self) -> None:
        """Read the descriptions, so that their errors are raised before any training."""
        if self.method.describe is not None:
            self.method.describe(self.method.classnames)

    def train(self) -> None:
        """Make what is left of the training, and keep what was learned."""
        output = self.cfg.OUTPUT_DIR
        if self.method.learner is None:
            log.info("%s learns nothing: only tested", self.name)
            self.checkpoints.check_same_record()
            remove_record(output)
            return
        os.makedirs(output, exist_ok=True)
        remove_record(output)
        if self.method.learns_in_epochs:
            self.train_epochs()
        elif not self.done:
            started = time.monotonic()
            fit_once(self.method, self.training_images, self.validation_images())
            self.end_without_epochs(time.monotonic() - started)

    def train_epochs(self) -> None:
        """Make the epochs that are left; the final prompts are those of the last or, by
        ``TEST.FINAL_MODEL``, of the best one."""
        cfg = self.cfg
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
                Pairs(
                    copy.copy(self.loaders.train)
                ),  # its workers end with the training, not with the run
                self.optimizer,
                self.schedule,
                cfg.OPTIM.MAX_EPOCH,
                images=self.training_images,
                validation=self.validation_images(),
                scaler=self.scaler,
                done=self.done,
                is_compiled=cfg.TRAIN.COMPILE,
                after_step=progress.take_step,
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

    def end_without_epochs(self, seconds: float) -> None:
        """Keep what was fitted without epochs, as the end of the training."""
        self.evaluation.note_training(seconds)
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            self.save(BEST_FILE)
        self.save(epoch_name(1))  # last, since a run that has it trains no more

    def after_epoch(self) -> None:
        """Keep the prompts and, beside them, the best epoch's so far."""
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            assert self.loaders.val is not None  # ``check_data`` asks for one
            self.method.eval()
            answers, labels, *_ = self.evaluation.answers(self.loaders.val, "val")
            result = self.judge("val", answers, labels)
            if result > self.best_result:
                self.best_result = result
                self.save(BEST_FILE, result)
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
        log.info("Evaluate on the *%s* set", split)
        self.method.eval()
        answers, labels, *_ = self.evaluation.test(loader, split)
        result = self.judge(split, answers, labels)
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
            self.evaluation.keep_answers(self.evaluation.answers(loader, "val"), "val")

    # ---- saving ----

    def save(self, file_name: str, result: float | None = None) -> None:
        """Write a checkpoint of the epoch; result: its score."""
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

    def test_prompts(self, directory: str, epoch: int | None) -> float:
        """Test the prompts of another run's folder (``load``); the record notes how many of the images
        these were trained on. Returns the result of ``test``."""
        trained = self.load(directory, epoch)
        images = self.loaders.images
        items = images.val if self.cfg.TEST.SPLIT == "val" else images.test
        if images.digests:
            if note := images.note_on_trained(items, trained):
                log.warning("%s", note)
                self.evaluation.notes = [*self.evaluation.notes, note]
        remove_record(self.cfg.OUTPUT_DIR)
        return self.test()

    def load(self, directory: str, epoch: int | None = None) -> TrainedOn:
        """Load prompts for a test by ``load_trained``; returns the images that they were trained on.

        Raises:
            UserError: no folder is given, or there are none that fit.
        """
        if self.method.learner is None:
            log.info("%s learns nothing, so nothing is loaded", self.name)
            return UNKNOWN_PICTURES
        if not directory:
            raise UserError(
                f"--eval-only of {self.name} needs --model-dir, the folder of a finished training"
            )
        return load_trained(self.method, directory, self.cfg, epoch).images

    def is_done(self) -> bool:
        """Whether the run's folder holds all that it would leave, by ``Checkpoints.is_done``."""
        splits = {self.cfg.TEST.SPLIT} | ({"val"} if self.loaders.own_val else set())
        return self.checkpoints.is_done(sorted(splits))
