"""Checkpoints: written whole or not at all; a resume never starts from the best model.

Layout of a model's folder: `model.pth.tar-<epoch>`, perhaps `model-best.pth.tar`, and the text file `checkpoint`,
which holds the file name of the latest *step* (not of the best model).
"""

import os
import pickle
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn

from dassl.utils.tools import mkdir_if_missing, write_whole

BEST = "model-best.pth.tar"
STEP = "model.pth.tar-"
POINTER = "checkpoint"


def _without_module(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Names as they are without nn.DataParallel around the model."""
    return OrderedDict((k.removeprefix("module."), v) for k, v in state_dict.items())


def unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.DataParallel) else model


def save_checkpoint(
    state: Mapping[str, Any],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write `state` as `model_name`, by default `model.pth.tar-<epoch>`; `is_best` also writes model-best.pth.tar."""
    mkdir_if_missing(save_dir)
    state = dict(state)
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])
    name = model_name or f"{STEP}{state['epoch']}"
    fpath = os.path.join(save_dir, name)
    write_whole(fpath, lambda f: torch.save(state, f))
    print(f"Checkpoint saved to {fpath}")

    if not name.startswith("model-best"):
        write_whole(os.path.join(save_dir, POINTER), lambda f: f.write(f"{name}\n".encode()))
    if is_best and name != BEST:
        best = os.path.join(save_dir, BEST)
        write_whole(best, lambda f: torch.save(state, f))
        print(f'Best checkpoint saved to "{best}"')


def _plain_dict(default_factory: object) -> dict[Any, Any]:
    return {}


_plain_dict.__module__ = "collections"  # stands for this class while loading
_plain_dict.__name__ = _plain_dict.__qualname__ = "defaultdict"


def _load(fpath: str) -> Any:
    """By `weights_only` loading; Dassl's files may hold torch's schedulers and optimisers too, which it pickles after a warm-up."""
    where = None if torch.cuda.is_available() else "cpu"
    try:
        return torch.load(fpath, map_location=where, weights_only=True)
    except pickle.UnpicklingError:
        optim, schedules = torch.optim, torch.optim.lr_scheduler
        allowed: list[Any] = [
            *(schedules.StepLR, schedules.MultiStepLR, schedules.CosineAnnealingLR),
            *(optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop, optim.RAdam),
            *(_plain_dict, dict, Counter),
        ]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(fpath, map_location=where, weights_only=True)


def load_checkpoint(fpath: str) -> Any:
    """The checkpoint in `fpath`, by `weights_only` loading; schedulers that Dassl pickled become plain states."""
    if fpath is None:
        raise ValueError("File path is None")
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    try:
        checkpoint = _load(fpath)
    except Exception:
        print(f'Unable to load checkpoint from "{fpath}"')
        raise
    scheduler = checkpoint.get("scheduler") if isinstance(checkpoint, dict) else None
    if isinstance(scheduler, dict) and hasattr(scheduler.get("successor"), "state_dict"):
        scheduler["successor"] = scheduler["successor"].state_dict()
    return checkpoint


def step_epochs(fdir: str) -> set[int]:
    """The epochs of the files `model.pth.tar-<epoch>` of a folder."""
    names = os.listdir(fdir) if os.path.isdir(fdir) else []
    matches = [re.fullmatch(re.escape(STEP) + r"(\d+)", name) for name in names]
    return {int(match[1]) for match in matches if match}


def last_checkpoint(fdir: str) -> str | None:
    """The name of the file to resume from: what `checkpoint` names, else the newest step; None if there is none."""
    pointer = f"{fdir}/{POINTER}"
    if os.path.isfile(pointer):
        with open(pointer, encoding="utf-8") as f:
            name = f.readline().strip()
        if name.startswith(STEP) and os.path.isfile(f"{fdir}/{name}"):
            return name
    epochs = step_epochs(fdir)
    return f"{STEP}{max(epochs)}" if epochs else None


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    name: str | None = None,
) -> int:
    """Load model, optimiser and scheduler from `fdir` (from file `name` if given); returns the epochs done."""
    name = name or last_checkpoint(fdir)
    if name is None:
        raise FileNotFoundError(f'No checkpoint to resume from in "{fdir}" ({describe(fdir)})')
    fpath = f"{fdir}/{name}"
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    unwrapped(model).load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for key, part in (("optimizer", optimizer), ("scheduler", scheduler)):
        if part is not None and checkpoint.get(key) is not None:
            part.load_state_dict(checkpoint[key])
            print(f"Loaded {key}")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def describe(fdir: str) -> str:
    """In words, which checkpoints a folder holds."""
    if not os.path.isdir(fdir):
        return "there is no such folder"
    names = [f"{STEP}{epoch}" for epoch in sorted(step_epochs(fdir))]
    names += [BEST] if os.path.isfile(f"{fdir}/{BEST}") else []
    return f"it holds {', '.join(names) or 'no checkpoint'}"


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load what fits by name and size from a checkpoint or a bare state dict."""
    checkpoint = load_checkpoint(weight_path)
    state_dict = checkpoint.get("state_dict", checkpoint)
    state_dict = _without_module(state_dict)
    target = model.state_dict()
    matched = {
        key: value
        for key, value in state_dict.items()
        if key in target and target[key].size() == value.size()
    }
    if not matched:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    model.load_state_dict({**target, **matched})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [key for key in state_dict if key not in matched]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")
