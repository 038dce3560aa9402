"""Writes and reads ``metrics.jsonl``: how a training goes, for curves and progress.

Each line is a JSON object: ``epoch`` of ``epochs`` and ``batch`` of ``batches`` (both from 1), the
means of ``loss``, ``acc`` (in percent) and a method's further figures since the epoch started or
was resumed, the learning rate ``lr``, and ``eta``, the seconds that are left. There is a line every
TRAIN.PRINT_FREQ batches and one at the end of each epoch. A resumed training appends; where lines
repeat an epoch the later ones count.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from .readers import parse_json

METRICS_FILE = "metrics.jsonl"
METRIC_TYPES = {"epoch": int, "loss": float, "acc": float}  # the fields that readers need


def start_metrics(folder: str, is_resumed: bool) -> None:
    """Empties the file, or ends a line that a killed process left half written."""
    with open(f"{folder}/{METRICS_FILE}", "a" if is_resumed else "w") as file:
        file.write("\n" * is_resumed)


def write_metrics(folder: str, line: Mapping[str, float]) -> None:
    """Appends a line."""
    path = f"{folder}/{METRICS_FILE}"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        error.filename = path  # a full disk names no file
        raise


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """Return the lines in their order, without cut or damaged ones; empty where nothing was
    trained."""
    path = Path(folder, METRICS_FILE)
    lines = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            line = parse_json(text)
            is_sound = all(type(line[name]) is type_ for name, type_ in METRIC_TYPES.items())
            if is_sound and 1 <= line["epoch"] < 10**9:
                lines.append(line)
    return lines
