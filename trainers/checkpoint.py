"""Checkpoints that hold prompts only, load without executing anything, and resume to the same numbers.

Files lie where Dassl puts them: ``<output>/<model name>/model.pth.tar-<epoch>``, ``model-best.pth.tar``, and ``checkpoint``,
which names the file to resume from.
"""
import os
import pickle
import random
import zipfile

import numpy
import torch

from .errors import UserError

BEST = "model-best.pth.tar"
POINTER = "checkpoint"

# What may differ between the run that wrote a checkpoint and the run that resumes it.
NOT_PART_OF_A_RUN = ("OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.BROKEN_IMAGES",
                     "DATALOADER.TEST", "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TEST")


def write_atomically(path, write):
    """Calls ``write(temporary path)`` and renames: the file at ``path`` is always whole, old or new."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = path  # a full disk names no file
        raise
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_text(path, text):
    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
    write_atomically(path, write)


def save(state, folder, file_name):
    """Writes a checkpoint and, unless it is the best one, points the next resume to it."""
    write_atomically(os.path.join(folder, file_name), lambda path: torch.save(state, path))
    if file_name != BEST:
        write_text(os.path.join(folder, POINTER), file_name + "\n")


def newest(folder):
    """Name of the file to resume from, or None."""
    path = os.path.join(folder, POINTER)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.readline().strip()


def load(path):
    """The dict that ``save`` wrote, on the CPU.

    Raises:
        UserError: there is no such file (the message lists those that exist), or it can't be read.
    """
    if not os.path.isfile(path):
        folder = os.path.dirname(path)
        found = sorted(name for name in os.listdir(folder) if ".pth.tar" in name) if os.path.isdir(folder) else []
        raise UserError(f"no checkpoint at {path}; there is {', '.join(found) or 'none in that folder'}: check --model-dir and "
                        "--load-epoch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint {path} can't be read: it is cut, or another toolbox wrote it") from error
    if not isinstance(state, dict) or not {"state_dict", "epoch", "trainer", "classnames", "config", "backbone_hash"} <= set(state):
        raise UserError(f"checkpoint {path} is none of this toolbox's")
    return state


def flatten(config, prefix=""):
    """A config node as a flat dict, ``A.B`` → repr of its value."""
    flat = {}
    for key, value in config.items():
        flat.update(flatten(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: repr(value)})
    return flat


def config_of_run(cfg, left_out=NOT_PART_OF_A_RUN):
    """The part of a config, node or plain dict, that decides a run's numbers, flat: without other trainers' nodes and ``left_out``."""
    own = f"TRAINER.{cfg['TRAINER']['NAME'].upper()}."
    return {key: value for key, value in flatten(cfg).items()
            if not any(key == other or key.startswith(other + ".") for other in left_out)
            and (not key.startswith("TRAINER.") or key.startswith(own) or key == "TRAINER.NAME")}


def check_same_run(state, cfg, classnames, path):
    """A run may only be continued as it was begun.

    Raises:
        UserError: settings or class list differ; the message names them.
    """
    now, then = config_of_run(cfg), state["config"]
    changed = [f"{key} {then.get(key, 'absent')} → {now.get(key, 'absent')}" for key in sorted({*now, *then})
               if now.get(key) != then.get(key)]
    if not changed and state["classnames"] != classnames:
        changed = ["the class list"]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(f"{path} belongs to another run ({'; '.join(changed[:3])}{more}): give another --output-dir, or delete "
                        "that folder to start over")


def rng_state():
    """States of all random generators, in types that load without executing anything."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_rng_state(state):
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
