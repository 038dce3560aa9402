"""What a ``PromptTrainer`` saves, and how it goes on from it or tests it."""
import logging
import os
import shutil
import time

from . import checkpoint
from .checkpoint import BEST
from .errors import UserError
from .files import write_atomically
from .interruption import REQUEUE, Interrupted, asked_by

log = logging.getLogger(__name__)

MODEL_NAME = "prompt_learner"  # folder of the checkpoints in that of a run


class SavedPrompts:
    """The part of ``PromptTrainer`` that saves and loads.

    A run that is stopped at any moment, by whatever means, and started again by the same command ends with the same prompts and
    metrics, bit for bit, on a CPU: a checkpoint holds everything that the steps behind it depend on, and a file is there whole or not at
    all. Between a checkpoint and the end of the process nothing is lost but the time: the steps in between are made again.

    Attributes:
        end_of_epoch: where training was behind the last step of the epoch, while it validates; else None.
    """
    end_of_epoch = None

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Writes prompts and all that an exact resume needs; never CLIP's weights, never anything of the class names' shape."""
        file_name = model_name or checkpoint.epoch_name(epoch + 1)
        self.save_state(directory, file_name, {"epoch": epoch + 1, "position": None, "rng": checkpoint.rng_state()}, val_result)

    def save_state(self, directory, file_name, progress, val_result=None):
        """Writes a checkpoint.

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
        }
        checkpoint.save(state, f"{directory}/{MODEL_NAME}", file_name)
        self.saved_at = time.monotonic()
        log.info("Checkpoint saved to %s/%s/%s", directory, MODEL_NAME, file_name)

    # ---- in the middle of an epoch ----

    def after_step(self):
        """Writes a checkpoint where one is due or the run is asked to stop."""
        if self.train_loader_x.batches_done == self.num_batches:
            self.end_of_epoch = self.progress_in_epoch()
        if asked_by():
            self.stop_if_asked(self.progress_in_epoch())
        if self.is_due():
            self.save_step(self.progress_in_epoch())

    def progress_in_epoch(self):
        return {"epoch": self.epoch, "position": self.train_loader_x.position(), "rng": checkpoint.rng_state()}

    def is_due(self):
        """Whether to write a checkpoint behind this step. Another toolbox's config may lack the keys."""
        every, minutes = self.cfg.TRAIN.get("CHECKPOINT_STEPS", 0), self.cfg.TRAIN.get("CHECKPOINT_MINUTES", 0)
        steps = self.epoch * self.num_batches + self.train_loader_x.batches_done
        return (every > 0 and steps % every == 0) or (minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes)

    def after_epoch(self):
        super().after_epoch()  # validates and saves
        self.end_of_epoch = None

    def save_step(self, progress):
        """Writes the checkpoint of a place in an epoch; returns its name."""
        file_name = checkpoint.step_name(progress["epoch"], progress["position"]["batches"])
        self.save_state(self.output_dir, file_name, progress)
        return file_name

    def stop_if_asked(self, progress=None):
        """Ends the run where a signal asks for it, with a checkpoint of ``progress``, or with those that are there.

        Raises:
            Interrupted: a signal has come.
        """
        signal = asked_by()
        if signal is None:
            return
        saved = f"checkpoint {self.save_step(progress)} written to {self.output_dir}/{MODEL_NAME}" if progress else "nothing to save"
        message = f"{signal}: {saved}; the same command goes on from here (exit code {REQUEUE})"
        log.info(message)
        raise Interrupted(message)

    # ---- going on, and testing ----

    def resume_model_if_exist(self, directory):
        """Continues from the newest checkpoint below ``directory`` that can be read; returns the number of epochs done."""
        folder = f"{directory}/{MODEL_NAME}"
        file_name, state = checkpoint.load_newest(folder)
        if file_name is None:
            if self.cfg.RESUME:
                raise UserError(f"--resume {directory}: no checkpoint there (looked for {folder}/{checkpoint.POINTER})")
            checkpoint.remove_steps(folder)  # of a run that is started over
            return 0
        self.check_origin(state, folder)
        checkpoint.check_same_run(state, self.cfg, self.classnames, folder)
        self.load_prompts(state, folder)
        self.optim.load_state_dict(state["optimizer"])
        self.sched.load_state_dict(state["scheduler"])
        if state["scaler"]:  # empty where the run's device needed no scaler
            self.precision.scaler.load_state_dict(state["scaler"])
        self.best_result = state["best_result"]
        self.restore_training_state(state["training_state"])
        self.seconds["train"] = state["train_seconds"]
        position = state.get("position")  # files of earlier versions have none
        if position:
            self.first_batch = position["batches"]
            self.train_loader_x.begin_at(position, state["rng"])
        else:
            checkpoint.restore_rng_state(state["rng"])
        if os.path.realpath(directory) != os.path.realpath(self.output_dir) and os.path.isfile(f"{folder}/{BEST}"):
            # the best epoch so far may stay the best: it has to be found in this run's folder at the end
            write_atomically(f"{self.output_dir}/{MODEL_NAME}/{BEST}", lambda path: shutil.copyfile(f"{folder}/{BEST}", path))
        log.info("Resuming from %s/%s: %d epochs and %d steps done", folder, file_name, state["epoch"], self.first_batch)
        return state["epoch"]

    def load_model(self, directory, epoch=None):
        """Loads prompts for evaluation: those of ``epoch`` (from 1); without it the best ones under ``best_val``, else the newest.

        Raises:
            UserError: no folder given, no such checkpoint, or it is of another trainer, backbone, prompt shape or class list.
        """
        if self.prompt_learner is None:
            log.info("%s learns nothing, so nothing is loaded", type(self).__name__)
            return
        if not directory:
            raise UserError(f"--eval-only of {type(self).__name__} needs --model-dir, the folder of a finished training")
        folder = f"{directory}/{MODEL_NAME}"
        if epoch is not None:
            file_name = checkpoint.epoch_name(epoch)
        else:
            file_name = BEST if self.cfg.TEST.FINAL_MODEL == "best_val" else checkpoint.newest(folder) or BEST
        state = checkpoint.load(f"{folder}/{file_name}")
        self.check_origin(state, folder)
        self.load_prompts(state, folder)
        log.info("Loading weights to %s from %s/%s (epoch = %d)", MODEL_NAME, folder, file_name, state["epoch"])

    def check_origin(self, state, folder):
        """Refuses prompts that were trained by another method, for another CLIP or, if they are per class, other classes."""
        if state["trainer"] != type(self).__name__:
            raise UserError(f"{folder} was trained by {state['trainer']}, this is {type(self).__name__}")
        if state["backbone_hash"] != self.backbone_hash:
            raise UserError(f"{folder} was trained for the backbone {state['config']['MODEL.BACKBONE.NAME']}, this run has "
                            f"{self.cfg.MODEL.BACKBONE.NAME!r}, which has other weights")
        if getattr(self.prompt_learner, "class_specific", False) and state["classnames"] != self.classnames:
            raise UserError(f"{folder} holds class-specific contexts of {len(state['classnames'])} other classes: they can only be "
                            "tested on the classes they were trained for")

    def load_prompts(self, state, folder):
        try:
            self.prompt_learner.load_state_dict(state["state_dict"])
        except RuntimeError as error:
            raise UserError(f"{folder} holds prompts of another shape, use the config they were trained with: "
                            f"{' '.join(str(error).split())}") from error
