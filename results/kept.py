"""Results that are slow to compute, cached in the run's folder until the run changes: what ``analysis.uncertainty`` leaves there."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.common.files import file_hash, write_text
from trainers.common.readers import read_json
from trainers.common.record_file import Record

from .runs import Arrays, Run, read_arrays

FORMAT = 4  # to be raised when a field changes its meaning or one is added that tables show
SCALED = "scaled_max_probability"
MEASURES = ("max_probability", SCALED, "energy", "vacuity", "conflict")  # in the tables' order
FIGURES, IMAGES = "uncertainty.json", "uncertainty.npz"
Figures = dict[str, Any]  # uncertainty.json


def read_kept(
    path: str | Path, version: int, made_from: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Content of a file that ``write_kept`` wrote; None where it is missing or damaged, or its
    version or what it was made from is another.

    Args:
        version: number of the content's format; made_from: dict of what the content follows from,
        such as hashes.
    """
    try:
        content = read_json(path)
        is_sound = content.pop("sha256") == fingerprint(content)
        is_current = (content["format"], content["made_from"]) == (version, made_from)
        return content if is_sound and is_current else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_kept(
    path: str | Path, version: int, made_from: Mapping[str, Any], content: Mapping[str, Any]
) -> None:
    """Writes a dict as JSON, with ``format`` and ``made_from`` for ``read_kept``, and ``sha256`` of
    the rest, which tells damage.
    """
    content = {**content, "format": version, "made_from": made_from}
    write_text(str(path), json.dumps({**content, "sha256": fingerprint(content)}, indent=2) + "\n")


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON holds of a dict."""
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def origin(record: Record) -> dict[str, Any]:
    """What a run's figures depend on: where it has changed, they are computed again."""
    names = ("prompts_hash", "backbone_hash", "split_hash", "finished")
    return {name: record.get(name) for name in names}


def read_figures(folder: Path, record: Record) -> Figures | None:
    """``uncertainty.json`` of a run's folder, or None where it or ``uncertainty.npz`` is missing,
    damaged, or another run's or version's.

    Args:
        record: the run's ``results.json``.
    """
    content, images = read_kept(folder / FIGURES, FORMAT, origin(record)), folder / IMAGES
    is_whole = content and images.is_file() and content["images_sha256"] == file_hash(images)
    return content if is_whole else None


def read_doubts(run: Run) -> Arrays:
    """Arrays of the run's ``uncertainty.npz``, see ``analysis.uncertainty``; empty where there is
    none, or it is older than the run.

    Raises:
        UserError: it can't be read.
    """
    is_kept = read_figures(run.folder, run.record)
    return read_arrays(run.folder / IMAGES) if is_kept else {}
