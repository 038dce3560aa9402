"""What a ``PromptTrainer`` saves, and how it goes on from it or tests it."""
import logging
import os
import shutil
import time

from . import checkpoint, distributed
from .checkpoint import BEST
from .errors import UserError

log = logging.getLogger(__name__)

MODEL_NAME = "prompt_learner"  # folder of the checkpoints in that of a run


class SavedPrompts:
    """The part of ``PromptTrainer`` that saves and loads."""

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Writes prompts and all that an exact resume needs; never CLIP's weights, never anything of the class names' shape.

        Of several processes the first writes, and all go on when it has. Nothing in the file depends on their number.
        """
        if distributed.is_first():
            self.write_checkpoint(epoch, directory, val_result, model_name)
        distributed.wait()

    def write_checkpoint(self, epoch, directory, val_result, model_name):
        state = {
            "state_dict": self.prompt_learner.state_dict(),
            "epoch": epoch + 1,
            "optimizer": self.optim.state_dict(),
            "scheduler": self.sched.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "val_result": None if val_result is None else float(val_result),
            "best_result": self.best_result,
            "training_state": self.training_state(),
            "rng": checkpoint.rng_state(),
            "train_seconds": self.seconds["train"] + time.monotonic() - self.train_started,
            "trainer": type(self).__name__,
            "classnames": self.classnames,
            "backbone_hash": self.backbone_hash,
            "config": checkpoint.config_of_run(self.cfg),
        }
        file_name = model_name or f"model.pth.tar-{epoch + 1}"
        checkpoint.save(state, f"{directory}/{MODEL_NAME}", file_name)
        log.info("Checkpoint saved to %s/%s/%s", directory, MODEL_NAME, file_name)

    def resume_model_if_exist(self, directory):
        """Continues from the newest checkpoint below ``directory``; returns the number of epochs done."""
        folder = f"{directory}/{MODEL_NAME}"
        file_name = checkpoint.newest(folder)
        if file_name is None:
            if self.cfg.RESUME:
                raise UserError(f"--resume {directory}: no checkpoint there (looked for {folder}/{checkpoint.POINTER})")
            return 0
        state = checkpoint.load(f"{folder}/{file_name}")
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
        checkpoint.restore_rng_state(state["rng"])
        elsewhere = os.path.realpath(directory) != os.path.realpath(self.output_dir)
        if elsewhere and distributed.is_first() and os.path.isfile(f"{folder}/{BEST}"):
            # the best epoch so far may stay the best: it has to be found in this run's folder at the end
            checkpoint.write_atomically(f"{self.output_dir}/{MODEL_NAME}/{BEST}", lambda path: shutil.copyfile(f"{folder}/{BEST}", path))
        log.info("Resuming from %s/%s: %d epochs done", folder, file_name, state["epoch"])
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
            file_name = f"model.pth.tar-{epoch}"
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
