"""Results that are slow to compute, cached in the run's folder until the run changes: what
``experiments.lab.uncertainty`` leaves there."""

import hashlib
import json
from pathlib import Path
from typing import Any

from trainers.common.errors import raise_machines
from trainers.common.files import check_folder, file_hash, mark_folder, write_arrays, write_text
from trainers.common.readers import read_arrays, read_json
from trainers.common.record_file import OWNER, Record

from .runs import Arrays, FinishedRun

KEPT_FORMAT = 4  # to be raised when a field changes its meaning or one is added that tables show
SCALED = "scaled_max_probability"
KEPT_MEASURES = ("max_probability", SCALED, "energy", "vacuity", "conflict")  # in the tables' order
KEPT_FILE = "uncertainty.json"
UNCERTAINTY_FILE = "uncertainty.npz"
UncertaintyRecord = dict[str, Any]  # uncertainty.json
CALIBRATION = {
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
    "nll": "NLL",
    "brier": "Brier",
}  # figure → column of a table


def write_kept(folder: Path, record: Record, numbers: UncertaintyRecord, arrays: Arrays) -> None:
    """Writes both files into a run's folder; the JSON, which says that they are there, last.

    Args:
        record: the run's ``results.json``.

    Raises:
        UserError: somebody's files of these names are there.
    """
    check_folder("the run's folder", str(folder), OWNER, (KEPT_FILE, UNCERTAINTY_FILE))
    mark_folder(str(folder), OWNER)
    write_arrays(str(folder / UNCERTAINTY_FILE), arrays)
    content = {**facts(folder, record), **numbers}
    text = json.dumps({**content, "sha256": fingerprint(content)}, indent=2)
    write_text(str(folder / KEPT_FILE), text + "\n")


def read_kept(folder: Path, record: Record) -> UncertaintyRecord | None:
    """``uncertainty.json`` of a run's folder, or None where it or ``uncertainty.npz`` is missing,
    damaged, or another run's or version's.

    Args:
        record: the run's ``results.json``.
    """
    try:
        numbers = read_json(folder / KEPT_FILE)
        is_sound = numbers.pop("sha256") == fingerprint(numbers)
        return numbers if is_sound and facts(folder, record).items() <= numbers.items() else None
    except Exception as error:  # damaged files can raise anything
        raise_machines(error, folder)
        return None


def facts(folder: Path, record: Record) -> dict[str, object]:
    """Return the facts that the numbers depend on: if one has changed, they are computed again."""
    made_from = ("prompts_hash", "backbone_hash", "split_hash", "finished")
    return {
        "format": KEPT_FORMAT,
        "made_from": {name: record[name] for name in made_from},
        "images_sha256": file_hash(folder / UNCERTAINTY_FILE),
    }


def fingerprint(content: UncertaintyRecord) -> str:
    """Return the SHA-256 of a dict as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_uncertainties(run: FinishedRun) -> Arrays:
    """Return the arrays of ``uncertainty.npz`` (``experiments.lab.image_groups``); empty where there is
    none, or it is older than the run."""
    is_kept = read_kept(run.folder, run.record)
    return read_arrays(run.folder / UNCERTAINTY_FILE) if is_kept else {}
