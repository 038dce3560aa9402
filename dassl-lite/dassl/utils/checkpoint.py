"""Checkpoints: plain values only, written whole or not at all; a resume never starts from the best model.

Layout of a model's folder: `model.pth.tar-<epoch>`, perhaps `model-best.pth.tar`, and the text file `checkpoint`,
which holds the file name of the latest *step* (not of the best model).
"""

import os
import pickle
import re
import shutil
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn as nn

from dassl.utils.random_state import set_random_state
from dassl.utils.tools import mkdir_if_missing

BEST = "model-best.pth.tar"
STEP = "model.pth.tar-"
POINTER = "checkpoint"

_PLAIN = (
    torch.Tensor,
    str,
    bytes,
    bool,
    int,
    float,
    complex,
    type(None),
    torch.dtype,
    torch.device,
)


def _plain(value: Any, where: str) -> Any:
    """`value` with numpy's scalars and arrays turned into Python's and torch's; a warning for what stays an object."""
    if isinstance(value, np.generic):  # first: numpy.float64 is a float
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, _PLAIN):
        return value
    if type(value) is Counter:  # the milestones of MultiStepLR, which works with a dict as well
        return dict(value)
    if type(value) in (dict, OrderedDict):
        return type(value)((k, _plain(v, f"{where}.{k}")) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    warnings.warn(
        f"The checkpoint's entry {where} is a {type(value).__name__}: only plain values and tensors load with weights_only=True",
        stacklevel=3,
    )
    return value


def _write_whole(fpath: str, write: Callable[[BinaryIO], object]) -> None:
    """Let `write(file)` fill a temporary file, then give it its name."""
    temporary = f"{fpath}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, fpath)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


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
    state = {key: _plain(value, key) for key, value in state.items()}

    name = model_name or f"{STEP}{state['epoch']}"
    fpath = os.path.join(save_dir, name)
    _write_whole(fpath, lambda f: torch.save(state, f))
    print(f"Checkpoint saved to {fpath}")

    if not name.startswith("model-best"):
        _write_whole(os.path.join(save_dir, POINTER), lambda f: f.write(f"{name}\n".encode()))
    if is_best and name != BEST:
        best = os.path.join(save_dir, BEST)
        _write_whole(best, lambda f: torch.save(state, f))
        print(f'Best checkpoint saved to "{best}"')


def copy_checkpoint(source: str, target: str) -> None:
    """Copy a checkpoint file, making the folder; nothing if both are the same file."""
    if os.path.abspath(source) == os.path.abspath(target):
        return
    mkdir_if_missing(os.path.dirname(target))
    with open(source, "rb") as f:
        _write_whole(target, lambda out: shutil.copyfileobj(f, out))


def _plain_dict(default_factory: object) -> dict[Any, Any]:
    return {}


_plain_dict.__module__ = "collections"  # stands for this class while loading
_plain_dict.__name__ = _plain_dict.__qualname__ = "defaultdict"


@contextmanager
def _schedulers_allowed() -> Iterator[None]:
    """Let `weights_only` loading build torch's optimisers and schedulers: Dassl pickles those after a warm-up."""
    schedulers = [
        torch.optim.lr_scheduler.StepLR,
        torch.optim.lr_scheduler.MultiStepLR,
        torch.optim.lr_scheduler.CosineAnnealingLR,
    ]
    optimizers = [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.SGD,
        torch.optim.RMSprop,
        torch.optim.RAdam,
    ]
    allowed: list[Any] = [*schedulers, *optimizers, _plain_dict, dict, Counter]
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals(allowed):
            yield
    else:  # torch 2.4
        torch.serialization.add_safe_globals(allowed)
        yield


def _load(fpath: str, map_location: str | None) -> Any:
    try:
        return torch.load(fpath, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        with _schedulers_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(fpath, map_location=map_location, weights_only=True)


def load_checkpoint(fpath: str) -> Any:
    """The checkpoint in `fpath`, by `weights_only` loading; schedulers that Dassl pickled become plain states."""
    if fpath is None:
        raise ValueError("File path is None")
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    try:
        checkpoint = _load(fpath, None if torch.cuda.is_available() else "cpu")
    except Exception:
        print(f'Unable to load checkpoint from "{fpath}"')
        raise
    scheduler = checkpoint.get("scheduler") if isinstance(checkpoint, dict) else None
    if isinstance(scheduler, dict) and hasattr(scheduler.get("successor"), "state_dict"):
        scheduler["successor"] = scheduler["successor"].state_dict()
    return checkpoint


def step_files(fdir: str) -> dict[int, str]:
    """The files `model.pth.tar-<epoch>` of a folder as {epoch: name}, in order of epochs."""
    if not os.path.isdir(fdir):
        return {}
    found = [re.fullmatch(re.escape(STEP) + r"(\d+)", name) for name in os.listdir(fdir)]
    return dict(sorted((int(m[1]), m[0]) for m in found if m))


def last_checkpoint(fdir: str) -> str | None:
    """The name of the file to resume from: what `checkpoint` names, else the newest step; None if there is none."""
    pointer = os.path.join(fdir, POINTER)
    if os.path.isfile(pointer):
        with open(pointer, encoding="utf-8") as f:
            name = f.readline().strip()
        if name and not name.startswith("model-best") and os.path.isfile(os.path.join(fdir, name)):
            return name
    steps = step_files(fdir)
    return steps[max(steps)] if steps else None


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    name: str | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Load model, optimiser, scheduler and random state from `fdir` (from file `name` if given); returns the epochs done.

    A gradient scaler, if given, goes on from its saved scale.
    """
    name = name or last_checkpoint(fdir)
    if name is None:
        raise FileNotFoundError(f'No checkpoint to resume from in "{fdir}" ({describe(fdir)})')
    fpath = os.path.join(fdir, name)
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    unwrapped(model).load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")
    # from here on: absent in Dassl's files
    if scaler is not None and scaler.is_enabled() and checkpoint.get("scaler"):
        scaler.load_state_dict(checkpoint["scaler"])
    if checkpoint.get("random_state") is not None:
        set_random_state(checkpoint["random_state"])
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def describe(fdir: str) -> str:
    """In words, which checkpoints a folder holds."""
    if not os.path.isdir(fdir):
        return "there is no such folder"
    names = list(step_files(fdir).values())
    if os.path.isfile(os.path.join(fdir, BEST)):
        names.append(BEST)
    return f"it holds {', '.join(names)}" if names else "it holds no checkpoint"


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load what fits by name and size from a checkpoint or a bare state dict."""
    checkpoint = load_checkpoint(weight_path)
    state_dict = checkpoint.get("state_dict", checkpoint)
    own = model.state_dict()
    matched, discarded = OrderedDict(), []
    for key, value in _without_module(state_dict).items():
        if key in own and own[key].size() == value.size():
            matched[key] = value
        else:
            discarded.append(key)
    if not matched:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    own.update(matched)
    model.load_state_dict(own)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")
