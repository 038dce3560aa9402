"""Checkpoints that hold prompts only, load without executing anything, and resume to the same numbers.

Files lie where Dassl puts them: ``<output>/prompt_learner/model.pth.tar-<epoch>`` and
``model-best.pth.tar``. The end of each epoch is kept until the next one ends; every
TRAIN.CHECKPOINT_FREQ-th, and the last, stay.
"""

import io
import logging
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode

from ..common.console import counted, first_few
from ..common.errors import UserError, raise_machines
from ..common.files import remove_leftovers, write_bytes
from ..common.readers import Stored, check_archive
from ..common.record_file import RECORD_FILE, read_answers, read_record
from ..common.same_run import NOT_PART_OF_A_RUN, OTHER_IMAGES, changes, config_of_run, differing
from ..common.trained_on import UNKNOWN_PICTURES, TrainedOn
from ..data.images import Images
from ..data.random_state import restore_rng_state, rng_state
from ..method import Method
from .official import (
    LAYOUTS,
    STAND_INS,
    check_state,
    is_official,
    prompts_in,
    trained_names,
)

if TYPE_CHECKING:
    from torch.distributed.checkpoint.stateful import Stateful


log = logging.getLogger(__name__)


TrainingState = dict[str, Stored]  # of a training, as ``Checkpoints.save`` writes it


class Training(NamedTuple):
    """The training of a checkpoint: the names of its classes, its settings, as
    ``config_of_run`` gives them, and its images, as far as they are known."""

    classnames: Sequence[str]
    settings: Mapping[str, str]
    images: TrainedOn = UNKNOWN_PICTURES


MODEL_NAME = "prompt_learner"  # folder of the checkpoints in a run's folder
BEST_FILE = "model-best.pth.tar"
# of the fields that each file has
STATE_TYPES = {
    "state_dict": dict,
    "epoch": int,
    "trainer": str,
    "classnames": list,
    "config": dict,
    "backbone_hash": str,
    "split_hash": str,
    "trained_on": torch.Tensor,
    "thumbnails": torch.Tensor,
}


def epoch_name(epochs: int) -> str:
    return f"model.pth.tar-{epochs}"


def epochs_in(folder: str) -> list[int]:
    """The numbers of epochs after which there are checkpoints in a folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = (re.fullmatch(r"model\.pth\.tar-(\d+)", name) for name in names)
    return [int(match[1]) for match in matches if match]


class Checkpoints:
    """The checkpoints of one training.

    A run that is killed at any moment and started again by the same command ends with the same
    prompts and metrics, bit for bit on a like CPU with as many threads: the end of an epoch is kept
    with everything that later steps depend on, and written atomically. Steps after it are repeated.

    Args:
        cfg: the run's config; images: its training and test images.
        method: whose learner is trained; parts: optimiser and so on, whose state is kept by name.
    """

    def __init__(
        self,
        cfg: CfgNode,
        images: Images,
        method: Method,
        parts: "Mapping[str, Stateful]",
    ) -> None:
        self.cfg = cfg
        self.images = images
        self.method = method
        self.parts = parts

    def save(self, folder: str, file_name: str, epoch: int, **facts: object) -> None:
        """Writes prompts and all that an exact resume needs; never CLIP's weights.

        Args:
            folder: of the checkpoints; epoch: epochs done; facts: further values to keep, in types
                that load without executing anything.
        """
        trained_on = self.images.trained_on
        state = {
            "epoch": epoch,
            "rng": rng_state(),
            "state_dict": self.method.learned.state_dict(),
            **{name: part.state_dict() for name, part in self.parts.items()},
            "training_state": self.method.memory,
            "trainer": self.cfg.TRAINER.NAME,
            "classnames": self.method.classnames,
            "backbone_hash": self.method.towers.backbone_hash,
            "config": config_of_run(self.cfg),
            "split_hash": self.images.split_hash,
            "trained_on": torch.tensor(sorted(trained_on.files), dtype=torch.int64),
            "thumbnails": torch.from_numpy(trained_on.thumbnails),
            **facts,
        }
        write(state, folder, file_name)
        log.info("Checkpoint saved to %s/%s", folder, file_name)
        every = self.cfg.TRAIN.CHECKPOINT_FREQ
        for done in epochs_in(folder):
            if file_name != BEST_FILE and done < epoch and (every <= 0 or done % every):
                os.remove(f"{folder}/{epoch_name(done)}")

    def resume(self, directory: str) -> TrainingState | None:
        """Takes back the newest checkpoint below ``directory``; None where there is none.

        Raises:
            UserError: it is another run's, can't be read, or ``RESUME`` names a folder without one.
        """
        folder = f"{directory}/{MODEL_NAME}"
        target = f"{self.cfg.OUTPUT_DIR}/{MODEL_NAME}"
        remove_leftovers(target)
        file_name = newest(folder)
        if file_name is None:
            if self.cfg.RESUME:
                raise UserError(f"RESUME is {directory}: there is no checkpoint in {folder}")
            return None
        state = load(f"{folder}/{file_name}")
        self.check_same_run(state, folder)
        other = newest(target)
        if self.cfg.RESUME and other is not None:  # its checkpoints will be replaced
            self.check_same_run(load(f"{target}/{other}"), target)
        load_prompts(self.method, state, folder, self.cfg)
        try:
            self.restore(state)
        except Exception as error:  # a whole file may still be of another kind
            raise_machines(error)
            raise UserError(
                f"{folder}/{file_name} cannot be resumed ({type(error).__name__}): delete {folder} "
                "to start over"
            ) from error
        best = Path(folder, BEST_FILE)
        if self.cfg.RESUME and best.is_file():
            # the best epoch so far may stay the best: it has to be found in this run's folder
            write_bytes(f"{target}/{BEST_FILE}", best.read_bytes())
        done = counted(state["epoch"], "epoch")
        log.info("Resuming from %s/%s: %s done", folder, file_name, done)
        return state

    def restore(self, state: TrainingState) -> None:
        """Give a checkpoint's states to the optimiser and the other parts, and to the generators.

        Raises:
            Exception: of any kind; the checkpoint lacks a part of a training's state.
        """
        for name, part in self.parts.items():
            if state[name]:  # a scaler's is empty where the run's device needed none
                part.load_state_dict(state[name])
        self.method.memory.update(state["training_state"])
        restore_rng_state(state["rng"])
        state["best_result"] = float(state["best_result"])
        state["train_seconds"] = float(state["train_seconds"])
        epochs = self.cfg.OPTIM.MAX_EPOCH
        if not (0 <= state["train_seconds"] < math.inf and 0 < state["epoch"] <= epochs):
            raise ValueError("no training has these epochs or seconds")

    def check_same_run(self, state: TrainingState, folder: str) -> None:
        """Check that a run is continued as it was started.

        Raises:
            UserError: settings, class list or images differ; the message names them.
        """
        now = config_of_run(self.cfg)
        then = state["config"]
        self.check_same(differing(now, then, {*now, *then}), state, folder)

    def check_same_record(self) -> None:
        """Check that the record of a run without checkpoints is only replaced by the same run's.

        Raises:
            UserError: settings, class list or images differ; the message names them.
        """
        output = self.cfg.OUTPUT_DIR
        try:
            record = read_record(f"{output}/{RECORD_FILE}")
        except UserError:
            return  # there is none, or a damaged one, which is made again
        self.check_same(changes(self.cfg, record, NOT_PART_OF_A_RUN), record, output)

    def check_same(self, changed: list[str], known: Mapping[str, Stored], folder: str) -> None:
        """Check that a folder belongs to this run.

        Args:
            changed: settings that differ from the run in ``folder``; known: its
                ``classnames`` and ``split_hash``.

        Raises:
            UserError: it is another run.
        """
        if not changed and known["classnames"] != self.method.classnames:
            changed = ["the class list"]
        if not changed and self.differs(known["split_hash"]):
            changed = [OTHER_IMAGES]
        if changed:
            raise UserError(
                f"{folder} belongs to another run ({first_few(changed)}): give another output folder, "
                "or delete that folder to start over"
            )

    def differs(self, known: str) -> bool:
        """Whether a run's ``split_hash`` is another than this one's.

        Few-shot samples without a seed may differ.
        """
        is_drawn_anew = self.cfg.SEED < 0 and self.cfg.DATASET.NUM_SHOTS >= 1
        return not is_drawn_anew and known != self.images.split_hash

    def save_prompts_again(self) -> None:
        """Write the present prompts into the checkpoint of the final ones."""
        folder = f"{self.cfg.OUTPUT_DIR}/{MODEL_NAME}"
        file_name = final(folder, self.cfg)
        state = load(f"{folder}/{file_name}")
        write({**state, "state_dict": self.method.learned.state_dict()}, folder, file_name)

    def is_done(self, splits: Sequence[str]) -> bool:
        """Whether the run's folder holds all that it would leave, made with the same settings from
        the same images; splits: those whose answers it keeps."""
        output = self.cfg.OUTPUT_DIR
        folder = f"{self.cfg.OUTPUT_DIR}/{MODEL_NAME}"
        learns = self.method.learner is not None
        try:
            record = read_record(f"{output}/{RECORD_FILE}")
            if changes(self.cfg, record) or self.differs(record["split_hash"]):
                return False
            if record["classnames"] != self.method.classnames:
                return False
            for split in splits:
                read_answers(output, split, record)
            kept = load(f"{folder}/{final(folder, self.cfg)}")["state_dict"] if learns else None
            made = self.method.towers.backbone_hash, self.method.prompts_hash(kept)
        except Exception as error:  # there is none, or damaged bytes, which can raise anything
            raise_machines(error, output)
            return False
        return (record["backbone_hash"], record["prompts_hash"]) == made


def check_test_folder(trained: str, output: str) -> None:
    """Refuse a test in the folder of a training: the prompts and promises there rest on the training's
    record.

    Args:
        trained: the folder whose prompts are tested, "" for none; output: where the test goes.

    Raises:
        UserError: that folder holds a training.
    """
    is_same = bool(trained) and os.path.realpath(trained) == os.path.realpath(output)
    if is_same or os.path.isdir(f"{output}/{MODEL_NAME}"):
        raise UserError(
            f"--output-dir {output} holds a training, whose record the test would replace: give --eval-only "
            "another --output-dir"
        )


def load_trained(
    method: Method, directory: str, cfg: CfgNode, epoch: int | None = None
) -> Training:
    """Load a run's prompts of ``epoch`` (from 1) for evaluation; without it the final ones.

    The run may be one of the method's authors' code (``official``).

    Returns:
        the checkpoint's facts of their training; the method's own classes where it names none.

    Raises:
        UserError: no such checkpoint, or as ``load_prompts`` and ``official.prompts_in``.
    """
    layout = LAYOUTS.get(method.name())
    folder = f"{directory}/{MODEL_NAME}"
    if layout and not os.path.isdir(folder) and os.path.isdir(f"{directory}/{layout.folder}"):
        folder = f"{directory}/{layout.folder}"
    path = f"{folder}/{final(folder, cfg) if epoch is None else epoch_name(epoch)}"
    content = read(path)
    if is_official(content, method):
        official = content["state_dict"]
        check_state(official, method, path)
        names = trained_names(official, method, path)
        prompts = prompts_in(official, method, path)
        load_state(method, prompts, names, folder)
        log.info("Loading the authors' weights from %s (epoch = %s)", path, content["epoch"])
        return Training(names, {})
    state = checked(content, path)
    load_prompts(method, state, folder, cfg)
    log.info("Loading weights to %s from %s (epoch = %d)", MODEL_NAME, path, state["epoch"])
    images = TrainedOn(frozenset(state["trained_on"].tolist()), state["thumbnails"].numpy())
    return Training(state["classnames"], state["config"], images)


def load_prompts(method: Method, state: TrainingState, folder: str, cfg: CfgNode) -> None:
    """Loads a checkpoint's prompts into a method.

    Raises:
        UserError: they are of another trainer, CLIP or shape, or, if they are per class, lack a class.
    """
    if state["trainer"] != cfg.TRAINER.NAME:
        raise UserError(f"{folder} was trained by {state['trainer']}, this is {cfg.TRAINER.NAME}")
    if state["backbone_hash"] != method.towers.backbone_hash:
        raise UserError(
            f"{folder} was trained for the backbone {state['config'].get('MODEL.BACKBONE.NAME')}, "
            "this run's MODEL.BACKBONE.NAME has other weights"
        )
    if not method.can_answer(method.classnames, state["classnames"]):
        raise UserError(
            f"{folder} was trained for {len(state['classnames'])} other classes: it can only be tested on those, since "
            f"{method.why_trained_alone()}"
        )
    load_state(method, state["state_dict"], state["classnames"], folder)


def load_state(
    method: Method, state: Mapping[str, Tensor], classnames: Sequence[str], folder: str
) -> None:
    """Load a folder's state by ``Method.load``.

    Raises:
        UserError: it has another shape.
    """
    try:
        method.load(state, classnames)
    except (RuntimeError, LookupError) as error:
        raise UserError(
            f"{folder} holds prompts of another shape: use the config, the protocol and the version "
            "that they were trained with (git_commit in results.json), or train again. "
            f"{' '.join(str(error).split())}"
        ) from error


def final(folder: str, cfg: CfgNode) -> str:
    """Name of the file with a training's final prompts: the best ones under ``best_val``."""
    return BEST_FILE if cfg.TEST.FINAL_MODEL == "best_val" else newest(folder) or BEST_FILE


def newest(folder: str) -> str | None:
    """Name of the file to resume from, or None."""
    epochs = epochs_in(folder)
    return epoch_name(max(epochs)) if epochs else None


def write(state: Mapping[str, object], folder: str, file_name: str) -> None:
    """Write a checkpoint; if that fails, the former file is still there."""
    content = io.BytesIO()  # torch's own writing to a file has no error that names the cause
    torch.save(state, content)
    write_bytes(f"{folder}/{file_name}", content.getbuffer())


def load(path: str) -> TrainingState:
    """The dict that ``write`` wrote, on the CPU.

    Raises:
        UserError: as ``read``, or another program wrote it.
    """
    return checked(read(path), path)


def read(path: str) -> Stored:
    """Read a checkpoint's file, on the CPU.

    Raises:
        UserError: there is no such file (the message lists the epochs that there are), or it can't
            be read.
    """
    if not os.path.isfile(path):
        epochs = epochs_in(os.path.dirname(path))
        raise UserError(
            f"no checkpoint at {path} (epochs that are there: {epochs or 'none'}): check the "
            "folder and the epoch"
        )
    try:
        check_archive(path)
        if zipfile.is_zipfile(path):  # torch itself doesn't look for bits that have changed
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise zipfile.BadZipFile("a part is not what was written")
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes a reader fail in any way
        raise_machines(error, path)
        raise UserError(
            f"checkpoint {path} can't be read: it is cut, or another toolbox wrote it: delete "
            f"{os.path.dirname(path)} to start over"
        ) from error


def checked(state: object, path: str) -> TrainingState:
    """Check the content of a file that ``write`` has written.

    Raises:
        UserError: it is something else.
    """
    if (
        not isinstance(state, dict)
        or not all(isinstance(state.get(key), type_) for key, type_ in STATE_TYPES.items())
        or not all(map(torch.is_tensor, state["state_dict"].values()))
        or not all(isinstance(name, str) for name in state["classnames"] or [None])
    ):
        raise UserError(f"checkpoint {path} was not written by this toolbox")
    return state
