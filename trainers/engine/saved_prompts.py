"""How a ``PromptTrainer`` saves and loads prompts, and resumes."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from dassl.engine import TrainerX

from .. import distributed
from ..common.errors import UserError
from ..common.files import remove_leftovers, write_atomically
from ..common.fingerprints import split_hash, tensor_hash
from ..common.interruption import REQUEUE, Interrupted, asked_by
from ..common.readers import read_arrays
from ..common.record_file import FILE_NAME, read_record
from ..data.random_state import restore_rng_state, rng_state
from . import checkpoint
from .checkpoint import BEST, OTHER_IMAGES, State
from .checks import validates_on_test_images
from .precision import Precision
from .resumable import TrainingLoader

log = logging.getLogger(__name__)

MODEL_NAME = "prompt_learner"  # folder of the checkpoints in that of a run


class SavedPrompts(TrainerX):
    """The part of ``PromptTrainer`` that saves and loads.

    A run that is stopped at any moment, in any way, and started again by the same command ends with the same prompts and
    metrics, bit for bit, on a CPU: a checkpoint holds everything that later steps depend on, and is written atomically. Steps after the
    last checkpoint are repeated.

    Attributes:
        end_of_epoch: where training was after the last step of the epoch, while it validates; else None.
    """

    end_of_epoch: State | None = None
    # of the other parts of ``PromptTrainer``:
    prompt_learner: Any  # the method's own module; None where nothing is learned
    precision: Precision
    classnames: list[str]
    backbone_hash: str
    seconds: dict[str, float]
    train_started: float
    saved_at: float
    train_loader_x: TrainingLoader
    training_state: Callable[[], dict[str, Any]]
    restore_training_state: Callable[[dict[str, Any]], None]

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Writes prompts and all that an exact resume needs; never CLIP's weights or the class names' embeddings."""
        file_name = model_name or checkpoint.epoch_name(epoch + 1)
        self.save_state(
            directory,
            file_name,
            {"epoch": epoch + 1, "position": None, "rng": rng_state()},
            val_result,
        )

    def save_state(
        self, directory: str, file_name: str, progress: State, val_result: float | None = None
    ) -> None:
        """Writes a checkpoint, in the first process while the others wait. Nothing in it depends on their number.

        Args:
            progress: dict of epoch (epochs done), position (of the next one, see ``TrainingLoader``; None: at its start) and rng.
        """
        state = {
            **progress,
            "state_dict": self.prompt_learner.state_dict(),
            "optimizer": self.optim.state_dict(),
            "scheduler": self.sched.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "val_result": None if val_result is None else float(val_result),
            "best_result": self.best_result,
            "training_state": self.training_state(),
            "train_seconds": self.seconds["train"] + time.monotonic() - self.train_started,
            "trainer": type(self).__name__,
            "classnames": self.classnames,
            "backbone_hash": self.backbone_hash,
            "config": checkpoint.config_of_run(self.cfg),
            "split_hash": split_hash(self.dm.dataset),
        }
        if distributed.is_first():
            checkpoint.save(state, f"{directory}/{MODEL_NAME}", file_name)
        distributed.wait()
        self.saved_at = time.monotonic()
        log.info("Checkpoint saved to %s/%s/%s", directory, MODEL_NAME, file_name)

    # ---- in the middle of an epoch ----

    def after_step(self) -> None:
        """Writes a checkpoint where one is due or the run is asked to stop."""
        if self.train_loader_x.batches_done == self.num_batches:
            self.end_of_epoch = self.progress_in_epoch()
        is_asked, is_due = distributed.any_of(
            asked_by() is not None, distributed.is_first() and self.is_due()
        )
        if is_asked:
            self.stop_if_asked(self.progress_in_epoch())
        if is_due:
            self.save_step(self.progress_in_epoch())

    def progress_in_epoch(self) -> State:
        return {"epoch": self.epoch, "position": self.train_loader_x.position(), "rng": rng_state()}

    def is_due(self) -> bool:
        """Whether to write a checkpoint after this step. Another toolbox's config may lack the keys."""
        every, minutes = (
            self.cfg.TRAIN.get("CHECKPOINT_STEPS", 0),
            self.cfg.TRAIN.get("CHECKPOINT_MINUTES", 0),
        )
        steps = self.epoch * self.num_batches + self.train_loader_x.batches_done
        return (every > 0 and steps % every == 0) or (
            minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes
        )

    def after_epoch(self) -> None:
        super().after_epoch()  # validates and saves
        self.end_of_epoch = None

    def save_step(self, progress: State) -> str:
        """Writes the checkpoint of a place in an epoch; returns its name."""
        file_name = checkpoint.step_name(progress["epoch"], progress["position"]["batches"])
        self.save_state(self.output_dir, file_name, progress)
        return file_name

    def stop_if_asked(self, progress: State | None = None) -> None:
        """Stops the run if a signal asks for it, after a checkpoint of ``progress``, if given.

        Raises:
            Interrupted: a signal has come.
        """
        if not any(distributed.any_of(asked_by() is not None)):
            return
        signal = distributed.first_known(asked_by())
        saved = (
            f"checkpoint {self.save_step(progress)} written to {self.output_dir}/{MODEL_NAME}"
            if progress
            else "nothing to save"
        )
        message = f"{signal}: {saved}; the same command goes on from here (exit code {REQUEUE})"
        log.info(message)
        raise Interrupted(message)

    # ---- going on, and testing ----

    def resume_model_if_exist(self, directory: str) -> int:
        """Continues from the newest checkpoint below ``directory`` that can be read; returns the number of epochs done."""
        folder = f"{directory}/{MODEL_NAME}"
        remove_leftovers(f"{self.output_dir}/{MODEL_NAME}")
        file_name, state = checkpoint.load_newest(folder)
        if state is None:
            if self.cfg.RESUME:
                raise UserError(
                    f"--resume {directory}: no checkpoint there (looked for {folder}/{checkpoint.POINTER})"
                )
            if distributed.is_first():
                checkpoint.remove_steps(folder)  # of a run that is started over
            return 0
        self.check_origin(state, folder)
        checkpoint.check_same_run(
            state, self.cfg, self.classnames, self.has_other_images(state.get("split_hash")), folder
        )
        self.load_prompts(state, folder)
        try:
            self.restore(state)
        except Exception as error:  # what is whole may still be of another kind
            raise UserError(
                f"{folder}/{file_name} can't be gone on from ({type(error).__name__}): delete {folder} to start over"
            ) from error
        elsewhere = os.path.realpath(directory) != os.path.realpath(self.output_dir)
        if elsewhere and distributed.is_first() and os.path.isfile(f"{folder}/{BEST}"):
            # the best epoch so far may stay the best: it has to be found in this run's folder at the end
            write_atomically(
                f"{self.output_dir}/{MODEL_NAME}/{BEST}",
                lambda path: shutil.copyfile(f"{folder}/{BEST}", path),
            )
        log.info(
            "Resuming from %s/%s: %d epochs and %d steps done",
            folder,
            file_name,
            state["epoch"],
            self.train_loader_x.batches_done,
        )
        return state["epoch"]

    def restore(self, state: State) -> None:
        """Takes back what ``save_state`` wrote beside the prompts."""
        self.optim.load_state_dict(state["optimizer"])
        self.sched.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty where the run's device needed no scaler
            self.precision.scaler.load_state_dict(state["scaler"])
        self.best_result = state["best_result"]
        self.restore_training_state(state["training_state"])
        self.seconds["train"] = float(state["train_seconds"])
        position = state.get("position")  # files of earlier versions have none
        if position:
            self.train_loader_x.begin_at(position, state["rng"])
        else:
            restore_rng_state(state["rng"])

    def has_other_images(self, known: str | None) -> bool:
        """Whether a run's ``split_hash`` (None in older files: no) differs from this one's; few-shot samples without a seed may differ."""
        is_drawn_anew = self.cfg.SEED < 0 and self.cfg.DATASET.NUM_SHOTS >= 1
        return known is not None and not is_drawn_anew and known != split_hash(self.dm.dataset)

    def is_done(self) -> bool:
        """Whether the run's folder holds all that it would leave, made with the same settings from the same images.

        Raises:
            UserError: the finished run was trained on other images.
        """
        path = f"{self.output_dir}/{FILE_NAME}"
        if not os.path.isfile(path):
            return False
        try:
            record = read_record(path)
        except UserError:  # it is written anew
            return False
        if checkpoint.changes(self.cfg, record):
            return False
        if self.has_other_images(record["split_hash"]):
            if self.prompt_learner is None:
                return False
            raise UserError(
                f"{self.output_dir} belongs to another run ({OTHER_IMAGES}): give another --output-dir, or delete that folder"
            )
        val = (
            [] if self.val_loader is None or validates_on_test_images(self.dm.dataset) else ["val"]
        )
        try:
            for split in {self.cfg.TEST.SPLIT, *val}:
                read_arrays(f"{self.output_dir}/predictions-{split}.npz")
            prompts_hash = None if self.prompt_learner is None else self.final_prompts_hash()
        except Exception:  # damaged bytes can raise anything
            return False
        return (record["backbone_hash"], record["prompts_hash"]) == (
            self.backbone_hash,
            prompts_hash,
        )

    def final_prompts_hash(self) -> str:
        """Hash of the prompts in the run's final checkpoint."""
        folder = f"{self.output_dir}/{MODEL_NAME}"
        return self.prompts_hash(
            checkpoint.load(f"{folder}/{self.final_checkpoint(folder)}")["state_dict"]
        )

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads prompts for evaluation: those of ``epoch`` (from 1); without it the best ones under ``best_val``, else the newest.

        Raises:
            UserError: no folder given, no such checkpoint, or it is of another trainer, backbone, prompt shape or class list.
        """
        if self.prompt_learner is None:
            log.info("%s learns nothing, so nothing is loaded", type(self).__name__)
            return
        if not directory:
            raise UserError(
                f"--eval-only of {type(self).__name__} needs --model-dir, the folder of a finished training"
            )
        folder = f"{directory}/{MODEL_NAME}"
        file_name = self.final_checkpoint(folder) if epoch is None else checkpoint.epoch_name(epoch)
        state = checkpoint.load(f"{folder}/{file_name}")
        self.check_origin(state, folder)
        self.load_prompts(state, folder)
        log.info(
            "Loading weights to %s from %s/%s (epoch = %d)",
            MODEL_NAME,
            folder,
            file_name,
            state["epoch"],
        )

    def final_checkpoint(self, folder: str) -> str:
        """Name of the file with a training's final prompts: the best ones under ``best_val``, else the newest."""
        return (
            BEST if self.cfg.TEST.FINAL_MODEL == "best_val" else checkpoint.newest(folder) or BEST
        )

    def save_prompts_again(self) -> None:
        """Puts the prompts as they are now into the checkpoint of the final ones."""
        folder = f"{self.output_dir}/{MODEL_NAME}"
        if distributed.is_first():
            file_name = self.final_checkpoint(folder)
            checkpoint.save(
                {
                    **checkpoint.load(f"{folder}/{file_name}"),
                    "state_dict": self.prompt_learner.state_dict(),
                },
                folder,
                file_name,
            )
        distributed.wait()

    def check_origin(self, state: State, folder: str) -> None:
        """Refuses prompts that were trained by another method, for another CLIP or, if they are per class, other classes."""
        if state["trainer"] != type(self).__name__:
            raise UserError(
                f"{folder} was trained by {state['trainer']}, this is {type(self).__name__}"
            )
        if state["backbone_hash"] != self.backbone_hash:
            raise UserError(
                f"{folder} was trained for the backbone {state['config'].get('MODEL.BACKBONE.NAME')}, this run has "
                f"{self.cfg.MODEL.BACKBONE.NAME!r}, which has other weights"
            )
        if self.is_class_specific and state["classnames"] != self.classnames:
            raise UserError(
                f"{folder} holds class-specific contexts of {len(state['classnames'])} other classes: they can only be "
                "tested on the classes they were trained for"
            )

    def load_prompts(self, state: State, folder: str) -> None:
        try:
            self.take_prompts(state["state_dict"], state["classnames"])
        except RuntimeError as error:
            raise UserError(
                f"{folder} holds prompts of another shape, use the config, and --protocol, that they were trained with: "
                f"{' '.join(str(error).split())}"
            ) from error

    # ---- what belongs to the classes that were trained ----

    def take_prompts(self, prompts: State, classnames: list[str]) -> None:
        """Loads a prompt learner's state that was trained for ``classnames``; where they are others its ``class_parameters`` become None."""
        learner, shared = self.prompt_learner, self.for_any_classes(prompts)
        own = getattr(learner, "class_parameters", ())
        if own and (classnames != self.classnames or len(shared) == len(prompts)):
            log.info(
                "Left out for these %d classes: %s, which belongs to those that it was trained for",
                len(self.classnames),
                ", ".join(own),
            )
            for name in own:
                setattr(learner, name, None)
            prompts = shared
        learner.load_state_dict(prompts)

    def for_any_classes(self, prompts: State) -> State:
        """The part of a prompt learner's state that says something of any class."""
        own = getattr(self.prompt_learner, "class_parameters", ())
        return {name: value for name, value in prompts.items() if name.partition(".")[0] not in own}

    @property
    def is_class_specific(self) -> bool:
        """Whether nothing that is learned says anything of other classes than those that were trained."""
        return self.prompt_learner is not None and not self.for_any_classes(
            self.prompt_learner.state_dict()
        )

    def prompts_hash(self, prompts: State) -> str:
        """Hash of a prompt learner's state, the same for whatever classes it is tested on."""
        return tensor_hash((self.for_any_classes(prompts) or prompts).values())
