"""What the values of a config's keys take by themselves. Whoever declares a key notes its range in the
node: it is checked whatever the value comes from, see ``config_files.check_values``.

What depends on other settings, the data or the CLIP is checked where it is used.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from yacs.config import CfgNode

Bounds = dict[str, float]  # "at least", "above", "at most" → a number, or each of a list's
Range = Bounds | list[object]  # bounds, or all that may be chosen
NOTED = "__ranges__"  # beside what yacs keeps in a node


def at_least(least: float, most: float | None = None) -> Bounds:
    """Numbers from ``least`` on, up to ``most``."""
    return {"at least": least} if most is None else {"at least": least, "at most": most}


def above(limit: float, most: float | None = None) -> Bounds:
    """Numbers larger than ``limit``, up to ``most``."""
    return {"above": limit} if most is None else {"above": limit, "at most": most}


COUNT = at_least(1, 1000)  # of a prompt's tokens, or of layers


def note_ranges(node: CfgNode, **ranges: Range) -> None:
    """Notes what a node's keys take; a key may be a pattern, and go on below the node, ``A.B``."""
    node.__dict__[NOTED] = {**node.__dict__.get(NOTED, {}), **ranges}


def forget(node: CfgNode, key: str) -> None:
    """Takes a key out of a node, and its range, if it has one."""
    del node[key]
    node.__dict__[NOTED] = {
        other: taken for other, taken in node.__dict__.get(NOTED, {}).items() if other != key
    }


def ranges_in(config: Mapping[str, object], path: str = "") -> dict[str, Range]:
    """The ranges that are noted in a config and the nodes in it.

    path: name of the node with a full stop.
    """
    noted = vars(config).get(NOTED, {}) if isinstance(config, CfgNode) else {}
    found = {f"{path}{key}": taken for key, taken in noted.items()}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= ranges_in(value, f"{path}{key}.")
    return found


def taken_by(key: str, ranges: Mapping[str, Range]) -> Range:
    """What a key takes: its own range, or that of the first pattern which fits; nothing where none
    does."""
    if key in ranges:
        return ranges[key]
    for pattern, taken in ranges.items():
        # most are whole keys, which are no patterns
        if ("*" in pattern or "?" in pattern) and fnmatchcase(key, pattern):
            return taken
    return {}
