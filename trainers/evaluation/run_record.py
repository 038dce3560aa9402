"""The run record, ``results.json``: everything a table needs and everything that makes a number traceable.

A run is done when this file exists; it is written last and renamed into place.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import numpy
import torch
import torchvision
from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

from ..common.config_files import plain
from ..common.files import write_arrays, write_text
from ..common.fingerprints import split_hash
from ..common.record_file import FILE_NAME, FORMAT, described


def git_commit() -> str | None:
    """Commit of the checkout that this code belongs to, with ``-dirty`` where files differ from it; None outside a checkout.

    Installed inside another project's folder, this code is not part of that project's checkout.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", os.path.basename(__file__))
        return git("rev-parse", "HEAD") + (
            "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    import dassl

    known = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "dassl": getattr(dassl, "__version__", None),
        "which dassl": "lite" if getattr(dassl, "is_lite", False) else "real",
    }
    for name in ("cdc-prompt-learning", "dassl-lite", "clip-anytorch", "numpy"):
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = None
    return known


def write_record(
    folder: str,
    cfg: CfgNode,
    dataset: DatasetBase,
    metrics: Mapping[str, dict[str, Any]],
    run: Mapping[str, Any],
    **facts: Any,
) -> None:
    """Writes ``results.json``.

    Args:
        folder: the run's output folder.
        cfg: the run's config.
        dataset: what it trained and was tested on.
        metrics: split name → dict, see ``prediction.measure``.
        run: what is known of the run beyond its config, see ``record_file.described``.
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
        "fewshot_sample": getattr(
            dataset, "fewshot_sample", None
        ),  # hash and origin; None: all images, or another toolbox's data set
        "git_commit": git_commit(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": plain(cfg),
    }
    record["run"] = described(record, run)
    write_text(
        os.path.join(folder, FILE_NAME),
        json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )


def write_predictions(folder: str, split: str, arrays: Mapping[str, numpy.ndarray]) -> None:
    """Writes ``predictions-<split>.npz``, beside the record: what was said of every image, see ``prediction.per_image``."""
    write_arrays(os.path.join(folder, f"predictions-{split}.npz"), arrays)
