"""Checkpoints: written whole or not at all; a resume never starts from the best model.

Layout of a model's folder: `model.pth.tar-<epoch>`, perhaps `model-best.pth.tar`, and the text file
`checkpoint`, which holds the file name of the latest *step* (not of the best model).
"""

import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from dassl.utils.tools import Stored, mkdir_if_missing, write_whole

Value = TypeVar("Value")
BEST = "model-best.pth.tar"
STEP = "model.pth.tar-"


def _plain_dict(default_factory: object) -> dict[object, object]:
    return {}


_plain_dict.__module__ = "collections"  # stands for this class while loading
_plain_dict.__name__ = _plain_dict.__qualname__ = "defaultdict"
# what Dassl's files hold beside plain values: after a warm-up it pickles torch's schedulers and
# their optimisers
DASSLS: list[Any] = [
    *(lr_scheduler.StepLR, lr_scheduler.MultiStepLR, lr_scheduler.CosineAnnealingLR),
    *(optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop, optim.RAdam),
    *(_plain_dict, dict, Counter),
]


def _without_module(state_dict: Mapping[str, Value]) -> OrderedDict[str, Value]:
    """Names as they are without nn.DataParallel around the model."""
    return OrderedDict((k.removeprefix("module."), v) for k, v in state_dict.items())


def save_checkpoint(
    state: Mapping[str, Stored],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write `state` as `model_name`, by default `model.pth.tar-<epoch>`; `is_best` also writes
    model-best.pth.tar."""
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state = {**state, "state_dict": _without_module(state["state_dict"])}
    name = model_name or f"{STEP}{state['epoch']}"
    for fpath in [f"{save_dir}/{name}"] + [f"{save_dir}/{BEST}"] * is_best:
        write_whole(fpath, lambda f: torch.save(state, f))
        print(f"Checkpoint saved to {fpath}")
    if name != BEST:
        write_whole(f"{save_dir}/checkpoint", lambda f: f.write(f"{name}\n".encode()))


def load_checkpoint(fpath: str) -> Stored:
    """The checkpoint in `fpath`, one of Dassl's own too, by `weights_only` loading."""
    where = None if torch.cuda.is_available() else "cpu"
    try:
        with torch.serialization.safe_globals(DASSLS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(fpath, map_location=where, weights_only=True)
    except Exception:
        print(f'Unable to load checkpoint from "{fpath}"')
        raise


def newest_step(*folders: str) -> str | None:
    """The name of the newest `model.pth.tar-<epoch>` that every folder has; None where there is none.

    So a run that stopped between two models' files of an epoch goes on from the epoch before.
    """
    first, *others = map(Path, folders)
    names = [path.name for path in first.glob(f"{STEP}*")]
    common = [name for name in names if all((folder / name).exists() for folder in others)]
    epochs = [name.removeprefix(STEP) for name in common]
    newest = max((int(epoch) for epoch in epochs if epoch.isdecimal()), default=None)
    return None if newest is None else f"{STEP}{newest}"


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: optim.Optimizer | None = None,
    scheduler: lr_scheduler.LRScheduler | None = None,
    name: str | None = None,
) -> int:
    """Load model, optimiser and scheduler from the newest step in `fdir`, or its file `name`;
    returns the epochs done."""
    name = name or newest_step(fdir)
    if name is None:
        raise FileNotFoundError(f'No checkpoint to resume from in "{fdir}"')
    print(f'Loading checkpoint from "{fdir}/{name}"')
    checkpoint = load_checkpoint(f"{fdir}/{name}")
    target = model.module if isinstance(model, nn.DataParallel) else model
    target.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for key, part in (("optimizer", optimizer), ("scheduler", scheduler)):
        if part is not None and checkpoint.get(key) is not None:
            part.load_state_dict(checkpoint[key])
            print(f"Loaded {key}")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return int(checkpoint["epoch"])


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load the weights that fit by name and size from a checkpoint or a bare state dict."""
    checkpoint = load_checkpoint(weight_path)
    state_dict = _without_module(checkpoint.get("state_dict", checkpoint))
    target = model.state_dict()
    matched = {
        key: value
        for key, value in state_dict.items()
        if key in target and target[key].size() == value.size()
    }
    if not matched:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    model.load_state_dict(matched, strict=False)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded := state_dict.keys() - matched:
        print(f"Layers discarded due to unmatched keys or size: {sorted(discarded)}")
