"""Writes and reads ``metrics.jsonl``: how a training goes, for curves and progress.

Each line is a JSON object: ``epoch`` of ``epochs`` and ``batch`` of ``batches`` (both from 1), the means of ``loss``, ``acc`` (in percent) and a
method's further figures since the epoch started or was resumed, the learning rate ``lr``, and ``eta``, the seconds that are left. There is a line
every TRAIN.PRINT_FREQ batches and one at the end of each epoch. A resumed training appends; where lines repeat an epoch the later ones count.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .readers import parse_json

FILE_NAME = "metrics.jsonl"
TYPES = {
    "epoch": int,
    "epochs": int,
    "loss": float,
    "acc": float,
    "eta": float,
}  # of what every line has


def start_metrics(folder: str) -> None:
    """Removes the lines of an earlier training, which this one does not continue."""
    Path(folder, FILE_NAME).unlink(missing_ok=True)


def write_metrics(folder: str, line: Mapping[str, float]) -> None:
    """Appends a line; one that a killed process left half written is ended first."""
    path = f"{folder}/{FILE_NAME}"
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
            text = ("" if file.read(1) in (b"", b"\n") else "\n") + json.dumps(line) + "\n"
            file.write(text.encode())
    except OSError as error:
        error.filename = path  # a full disk names no file
        raise


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines in their order, without those that are cut or damaged; empty where nothing was trained."""
    try:
        lines = Path(folder, FILE_NAME).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line for line in map(parsed, lines) if line]


def parsed(text: bytes) -> dict[str, Any] | None:
    """A line's content; None where it is damaged."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or any(
        type(line.get(name)) is not type_ for name, type_ in TYPES.items()
    ):
        return None
    return (
        line if 1 <= line["epoch"] <= line["epochs"] < 10**9 and 0 <= line["eta"] < 10**9 else None
    )
