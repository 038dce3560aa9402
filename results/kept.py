"""Results that are slow to compute, cached in the run's folder until the run changes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.common.files import file_hash, write_text
from trainers.common.readers import read_json


def read_kept(
    path: str | Path, version: int, made_from: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Content of a file that ``write_kept`` wrote; None where it is missing or damaged, or its version or what it was made from is another.

    Args:
        version: number of the content's format; made_from: dict of what the content follows from, such as hashes.
    """
    try:
        found = read_json(path)
        sound = found.pop("sha256") == fingerprint(found) and (
            found["format"],
            found["made_from"],
        ) == (version, made_from)
        return found if sound else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_kept(
    path: str | Path, version: int, made_from: Mapping[str, Any], content: Mapping[str, Any]
) -> None:
    """Writes a dict as JSON, with ``format`` and ``made_from`` for ``read_kept``, and ``sha256`` of the rest, which tells damage."""
    content = {**content, "format": version, "made_from": made_from}
    write_text(str(path), json.dumps({**content, "sha256": fingerprint(content)}, indent=2) + "\n")


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON holds of a dict."""
    return hashlib.sha256(
        json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()
    ).hexdigest()


def file_fingerprint(path: str | Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    return file_hash(path) if Path(path).is_file() else None
