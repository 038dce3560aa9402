"""What ``python -m analysis.uncertainty`` has left in a run's folder."""

from pathlib import Path
from typing import Any

from trainers.common.record_file import Record

from .kept import file_fingerprint, read_kept

FORMAT = 4  # to be raised when a field changes its meaning or one is added that tables show
SCALED = "scaled_max_probability"
MEASURES = (
    "max_probability",
    SCALED,
    "energy",
    "vacuity",
    "conflict",
)  # in the order of the tables
FIGURES, IMAGES = "uncertainty.json", "uncertainty.npz"
Figures = dict[str, Any]  # uncertainty.json


def origin(record: Record) -> dict[str, Any]:
    """What a run's figures depend on: where it has changed, they are computed again."""
    return {
        name: record.get(name)
        for name in ("prompts_hash", "backbone_hash", "split_hash", "finished")
    }


def read_figures(folder: str | Path, record: Record) -> Figures | None:
    """``uncertainty.json`` of a run's folder, or None where it or ``uncertainty.npz`` is missing, damaged, or another run's or version's.

    Args:
        record: the run's ``results.json``.
    """
    found = read_kept(Path(folder) / FIGURES, FORMAT, origin(record))
    return (
        found
        if found and found["images_sha256"] == file_fingerprint(Path(folder) / IMAGES)
        else None
    )
