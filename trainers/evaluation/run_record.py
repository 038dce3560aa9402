"""The run record, ``results.json``: everything a table needs and everything that makes a number traceable.

A run is done when this file exists; it is written last and renamed into place.
"""
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import numpy
import torch
import torchvision
from dassl.data.datasets import DatasetBase
from torch import Tensor
from yacs.config import CfgNode

from ..common.files import write_arrays, write_text

FILE_NAME = "results.json"
BELOW = f"{os.sep}.{os.sep}"  # in the path of an image in a folder below its class folder, after the class folder
FORMAT = 1  # to be raised when a field changes its meaning
Record = dict[str, Any]  # results.json, see ``write_record``


def image_name(path: str) -> str:
    """An image's folder and file name: the same wherever the data lie. Of a path with ``/./`` the name begins with the folder before it."""
    folder, below, name = path.partition(BELOW)
    if below:
        return "/".join([os.path.basename(folder), *os.path.normpath(name).split(os.sep)])
    return "/".join(os.path.normpath(path).split(os.sep)[-2:])


def data_name(name: str, root: str) -> str:
    """What a data set is called: one's own images by their folder, ``root``."""
    return os.path.basename(os.path.abspath(os.path.expanduser(root))) if name == "ImageFolder" else name


def split_hash(dataset: DatasetBase | SimpleNamespace) -> str:
    """Fingerprint (16 hex digits) of what a run trains and tests on.

    It covers, for train, val and test in their order: file name, folder name, label and class name of every image, and the bytes of
    one's own images; not where the data folder lies, so that the same sample on two machines has the same hash.
    """
    digest = hashlib.sha256(getattr(dataset, "content", "").encode())
    for part in ("train_x", "val", "test"):
        for item in getattr(dataset, part) or ():
            digest.update(f"{part}|{image_name(item.impath)}|{item.label}|{item.classname}\n".encode())
    return digest.hexdigest()[:16]


def tensor_hash(tensors: Iterable[Tensor]) -> str:
    """Fingerprint (16 hex digits) of tensors: the same for the same values, wherever they lie."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def git_commit() -> str | None:
    """Commit of the checkout that this code belongs to, with ``-dirty`` where files differ from it; None outside a checkout.

    Installed inside another project's folder, this code is not part of that project's checkout.
    """
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True,
                              text=True, timeout=30, check=True).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", os.path.basename(__file__))
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    import dassl
    distributions = ("cdc-prompt-learning", "dassl-lite", "clip-anytorch", "numpy")
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
             "dassl": getattr(dassl, "__version__", None), "which dassl": "lite" if getattr(dassl, "is_lite", False) else "real"}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def plain(config: Any) -> Any:
    """A config node as plain dicts and lists, for JSON."""
    if hasattr(config, "items"):
        return {key: plain(value) for key, value in config.items()}
    return [plain(item) for item in config] if isinstance(config, (list, tuple)) else config


def write_record(folder: str, cfg: CfgNode, dataset: DatasetBase, metrics: Mapping[str, dict[str, Any]], **facts: Any) -> None:
    """Writes ``results.json``.

    Args:
        folder: the run's output folder.
        cfg: the run's config.
        dataset: what it trained and was tested on.
        metrics: split name → dict, see ``prediction.measure``.
        **facts: parameters, seconds and so on, as JSON takes them. ``seconds_per_step`` is the median over training steps (None where
            nothing was trained), ``test_images_per_second`` the median over test batches (None where nothing was tested); ``learned``
            holds figures of the prompts, for CDC the ``reliability`` of its templates.
    """
    record = {
        "format": FORMAT,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"),
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        "metrics": metrics,
        **facts,
        "split_hash": split_hash(dataset),
        "fewshot_sample": getattr(dataset, "fewshot_sample", None),  # hash and origin; None: all images, or another toolbox's data set
        "git_commit": git_commit(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": plain(cfg),
    }
    write_text(os.path.join(folder, FILE_NAME), json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_predictions(folder: str, split: str, arrays: Mapping[str, numpy.ndarray]) -> None:
    """Writes ``predictions-<split>.npz``, beside the record: what was said of every image, see ``prediction.per_image``."""
    write_arrays(os.path.join(folder, f"predictions-{split}.npz"), arrays)


def remove_record(folder: str) -> None:
    """Marks a run as not done, which it is not from its start to its end."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, FILE_NAME))
