"""What took time to find out about a run and is kept in its folder, until the run is another."""
import json
from pathlib import Path

from trainers.files import write_text


def read_kept(path, version, made_from):
    """Content of a file that ``write_kept`` wrote; None where it is missing or cut, or its version or what it was made from is another.

    Args:
        version: number of the content's format; made_from: dict of what the content follows from, such as hashes.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return found if (found["format"], found["made_from"]) == (version, made_from) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_kept(path, version, made_from, content):
    """Writes a dict as JSON, with ``format`` and ``made_from`` for ``read_kept``."""
    write_text(str(path), json.dumps({**content, "format": version, "made_from": made_from}, indent=2) + "\n")
