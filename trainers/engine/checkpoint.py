"""Checkpoints that hold prompts only, load without executing anything, and resume to the same numbers.

Files lie where Dassl puts them: ``<output>/<model name>/model.pth.tar-<epoch>``, ``model-best.pth.tar``, and ``checkpoint``,
which names the file to resume from. In the middle of an epoch it is ``model-step.pth.tar-<epochs done>-<steps of the next>``; of
these no more than the last two are kept.
"""

import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from yacs.config import CfgNode

from ..common.config_files import flatten, plain
from ..common.errors import UserError
from ..common.files import write_atomically, write_text
from ..common.readers import check_archive

log = logging.getLogger(__name__)

State = dict[str, Any]  # of a training, see ``SavedPrompts.save_state``

BEST = "model-best.pth.tar"
OTHER_IMAGES = (
    "its images are others: some were added, removed or changed, or the folder is another"
)
POINTER = "checkpoint"
KINDS = {
    "state_dict": dict,
    "epoch": int,
    "trainer": str,
    "classnames": list,
    "config": dict,
    "backbone_hash": str,
}  # of what each file has
NAME = re.compile(
    r"model(?:-step)?\.pth\.tar-(\d+)(?:-(\d+))?"
)  # of a file that a run can go on from

# What may differ between the run that wrote a checkpoint and the run that resumes it.
NOT_PART_OF_A_RUN = (
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.BROKEN_IMAGES",
    "DATALOADER.TEST",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.CHECKPOINT_STEPS",
    "TRAIN.CHECKPOINT_MINUTES",
    "TEST",
)
# What may differ between a finished run and the one that is asked for: places and things that change no figure.
NO_MATTER = (
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TEST.BATCH_SIZE",
    "DATALOADER.BROKEN_IMAGES",
    "TEST.FEATURE_CACHE",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.CHECKPOINT_STEPS",
    "TRAIN.CHECKPOINT_MINUTES",
)


def epoch_name(epochs: int) -> str:
    return f"model.pth.tar-{epochs}"


def step_name(epochs: int, steps: int) -> str:
    return f"model-step.pth.tar-{epochs}-{steps}"


def progress(file_name: str) -> tuple[int, int] | None:
    """(epochs, steps of the next one) that are done in a file of this name; None for any other name."""
    match = NAME.fullmatch(file_name)
    return match and (int(match[1]), int(match[2] or 0))


def save(state: State, folder: str, file_name: str) -> None:
    """Writes a checkpoint and, unless it is the best one, points the next resume to it.

    Of the files from the middle of epochs, all but this one and the one before are deleted.

    Raises:
        UserError: it can't be written, because the disk is full or for another reason. What was there before still is.
    """
    content = io.BytesIO()  # torch's own writing to a file has no error that says what is wrong
    torch.save(state, content)
    before = newest(folder)
    path = os.path.join(folder, file_name)

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())

    try:
        write_atomically(path, write)
        if file_name != BEST:
            write_text(os.path.join(folder, POINTER), file_name + "\n")
    except OSError as error:
        raise UserError(
            f"checkpoint {path} can't be written ({error.strerror}): make room there, and the same command goes on from "
            f"{before or 'the start'}"
        ) from error
    if file_name != BEST:
        remove_steps(folder, kept=(file_name, before))


def remove_steps(folder: str, kept: Iterable[str | None] = ()) -> None:
    """Deletes the checkpoints from the middle of epochs, except those of the given names."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith("model-step.") and progress(name) and name not in kept:
            os.remove(os.path.join(folder, name))


def resumable(folder: str) -> list[str]:
    """Names of the files to resume from, the first being the one to take, the others those to fall back on, newest first.

    Without a file ``checkpoint`` there are none: deleting it is how to start over. If it names none of the files, the newest of them
    comes first.
    """
    path = os.path.join(folder, POINTER)
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        named = file.readline().strip()
    done = {name: at for name in os.listdir(folder) if (at := progress(name)) is not None}
    found = sorted(done, key=done.__getitem__, reverse=True)
    if named and os.path.basename(named) == named and os.path.isfile(os.path.join(folder, named)):
        at = progress(named)
        return [
            named,
            *(name for name in found if name != named and (at is None or done[name] < at)),
        ]
    if found:
        log.warning("%s names no checkpoint (%r): taking the newest one, %s", path, named, found[0])
    return found


def newest(folder: str) -> str | None:
    """Name of the file to resume from, or None."""
    return next(iter(resumable(folder)), None)


def load_newest(folder: str) -> tuple[str, State] | tuple[None, None]:
    """Name and content of the newest checkpoint that can be read; None and None where there is none.

    Raises:
        UserError: there are some, and none can be read.
    """
    names = resumable(folder)
    for name in names:
        try:
            return name, load(os.path.join(folder, name))
        except UserError as error:
            log.warning("%s; going back to the checkpoint before", error)
    if names:
        raise UserError(
            f"none of the checkpoints in {folder} can be read ({', '.join(names)}): delete that folder to start over"
        )
    return None, None


def load(path: str) -> State:
    """The dict that ``save`` wrote, on the CPU.

    Raises:
        UserError: there is no such file (the message lists those that exist), or it can't be read.
    """
    if not os.path.isfile(path):
        folder = os.path.dirname(path)
        found = (
            sorted(name for name in os.listdir(folder) if ".pth.tar" in name)
            if os.path.isdir(folder)
            else []
        )
        raise UserError(
            f"no checkpoint at {path}; there is {', '.join(found) or 'none in that folder'}: check --model-dir and "
            "--load-epoch"
        )
    try:
        check_archive(path)
        check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes a reader fail in any way
        raise UserError(
            f"checkpoint {path} can't be read: it is cut, or another toolbox wrote it"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(state.get(key), kind) for key, kind in KINDS.items()
    ):
        raise UserError(f"checkpoint {path} is none of this toolbox's")
    if not (
        all(map(torch.is_tensor, state["state_dict"].values()))
        and all(isinstance(name, str) for name in state["classnames"])
    ):
        raise UserError(
            f"checkpoint {path} is none of this toolbox's: its prompts are no tensors, or its class names no texts"
        )
    return state


def check_sums(path: str) -> None:
    """Raises BadZipFile for a file of torch's in which a bit has changed, which torch itself doesn't look for."""
    if zipfile.is_zipfile(path):  # else torch will say what it is
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise zipfile.BadZipFile(f"{broken} is not what was written")


def config_of_run(cfg: Any, left_out: Iterable[str] = NOT_PART_OF_A_RUN) -> dict[str, str]:
    """The part of a config, node or plain dict, that decides a run's numbers, flat: without other trainers' nodes and ``left_out``."""
    own = f"TRAINER.{cfg['TRAINER']['NAME'].upper()}."
    return {
        key: value
        for key, value in flatten(cfg).items()
        if not any(key == other or key.startswith(other + ".") for other in left_out)
        and (not key.startswith("TRAINER.") or key.startswith(own) or key == "TRAINER.NAME")
    }


def changes(cfg: CfgNode, record: Mapping[str, Any]) -> list[str]:
    """The settings of a finished run that differ from those asked for, as ``KEY old → new``; settings that one of them lacks don't count."""
    now, then = (
        config_of_run(config, NO_MATTER)
        for config in (json.loads(json.dumps(plain(cfg))), record["config"])
    )
    return [
        f"{key} {then[key]} → {now[key]}"
        for key in sorted(now.keys() & then.keys())
        if now[key] != then[key]
    ]


def check_same_run(
    state: State, cfg: CfgNode, classnames: Sequence[str], has_other_images: bool, path: str
) -> None:
    """A run may only be continued as it was started.

    Args:
        has_other_images: whether it is to go on with other images than it was started with.

    Raises:
        UserError: settings, class list or images differ; the message names them.
    """
    now, then = config_of_run(cfg), state["config"]
    changed = [
        f"{key} {then.get(key, 'absent')} → {now.get(key, 'absent')}"
        for key in sorted({*now, *then})
        if now.get(key) != then.get(key)
    ]
    if not changed and state["classnames"] != classnames:
        changed = ["the class list"]
    if not changed and has_other_images:
        changed = [OTHER_IMAGES]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{path} belongs to another run ({'; '.join(changed[:3])}{more}): give another --output-dir, or delete "
            "that folder to start over"
        )
