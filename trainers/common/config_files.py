"""Merges config files and KEY VALUE pairs into a config, with every mistake named.

Checks what yacs does not: missing values, elements of lists, infinite or NaN numbers, text that is not UTF-8.
"""

import copy
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from .errors import UserError, nearest
from .readers import read_yaml

log = logging.getLogger(__name__)

TAKEN = {  # type of a default → what one value is called, and what several are
    bool: ("True or False", "True and False"),
    int: ("a whole number of at most 64 bits", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    str: ("text in UTF-8", "texts in UTF-8"),
}
OPTIONAL = ("AUGMENTATION",)  # may be None, whichever the node
# of earlier versions; they changed no figure
REMOVED = ("TEST.FEATURE_CACHE", "TRAIN.CHECKPOINT_MINUTES", "TRAIN.CHECKPOINT_STEPS")


def merge(cfg: CfgNode, source: str | Sequence[object], what: str, leave_out: str = "") -> None:
    """Merges a file, except its key ``leave_out``, or a list of pairs; every mistake is a ``UserError``.

    Raises:
        UserError: file missing or not YAML, unknown key (the nearest known one is named), value of another type.
    """
    if isinstance(source, str):
        where = f"{what} {source}"
        pairs = list(read_settings(source, where, leave_out))
    else:
        where = what
        if len(source) % 2:
            raise UserError(f"{what} must come in pairs, KEY VALUE: {' '.join(map(str, source))}")
        pairs = list(zip(map(str, source[::2]), source[1::2]))
    removed = [key for key, _ in pairs if key in REMOVED]
    if removed:
        names = ", ".join(removed)
        log.warning("%s: %s has no effect any more, leave it out", where, names)
    for key, value in pairs:
        if key in removed:
            continue
        default: object = cfg
        for part in key.split("."):
            if not isinstance(default, Mapping) or part not in default:
                raise UserError(f"{where}: unknown config key {key}{nearest(key, flatten(cfg))}")
            default = default[part]
        try:
            cfg.merge_from_list([key, value])
        except (RecursionError, MemoryError) as error:  # of Python's parser, which reads the values
            raise UserError(f"{where}: it is nested too deeply") from error
        except (ValueError, TypeError, AssertionError, KeyError, AttributeError) as error:
            try:
                check_type(key, value, default)
            except UserError as mismatch:
                raise UserError(f"{where}: {mismatch}") from error
            raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def read_settings(path: str, where: str, leave_out: str) -> Iterator[tuple[str, object]]:
    """``A.B`` and its value of all values of a config file, except its key ``leave_out``.

    Raises:
        UserError: it is missing, or no YAML of keys; see ``where``.
    """
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        raise UserError(f"{where} is missing{nearest(name, beside)}")
    try:
        content = copy.deepcopy(read_yaml(path))
    except (RecursionError, MemoryError) as error:
        raise UserError(f"{where}: it is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: it must hold lines KEY: value")
    content.pop(leave_out, None)
    return leaves(content)


def check_types(cfg: Mapping[str, object], defaults: Mapping[str, object], path: str = "") -> None:
    """Each value must be of its default's type.

    Args:
        cfg, defaults: config nodes, of which ``cfg`` may have more keys; path: name of the node with a full stop, for messages.

    Raises:
        UserError: the key, its value, and what it takes.
    """
    for key, default in defaults.items():
        check_type(path + key, cfg[key], default)


def check_type(name: str, value: object, default: object) -> None:
    """The same for one key: a list has elements of one type, and as many numbers as its default if
    that has several."""
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(
                f"{name} is {value!r}, it takes settings of its own: {', '.join(default)}"
            )
        check_types(value, default, f"{name}.")
        return
    if default is None or value is None and name.rpartition(".")[2] in OPTIONAL:
        return
    if isinstance(default, (list, tuple)):
        type_, default = type(default[0]) if default else str, list(default)
        several = len(default) > 1 and type_ is not str
        is_right = (
            isinstance(value, (list, tuple))
            and not (several and len(value) != len(default))
            and all(is_of(type_, element) for element in value)
        )
        taken = f"a list of {f'{len(default)} ' if several else ''}{TAKEN[type_][1]}"
    else:
        type_ = type(default)
        is_right, taken = is_of(type_, value), TAKEN[type_][0]
    if not is_right:
        raise UserError(f"{name} is {value!r}, it takes {taken}, such as {default!r}")


def is_of(type_: type, value: object) -> bool:
    """Whether a value is of a type: of ``float`` are all finite numbers, of ``str`` what can be written as UTF-8."""
    if isinstance(value, bool) and type_ is not bool:
        return False
    if isinstance(value, int) and abs(value) >= 2**63:  # torch has no larger ones
        return False
    if type_ is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if isinstance(value, str) and type_ is str:
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, type_)


def plain(config: object) -> Any:
    """A config node as plain dicts and lists, for JSON."""
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    return [plain(item) for item in config] if isinstance(config, (list, tuple)) else config


def leaves(config: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    """Yields ``A.B`` and its value for all values of a config node or of nested dicts.

    path: name of the node with a full stop.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def flatten(config: Mapping[str, object]) -> dict[str, str]:
    """A config node as a flat dict, ``A.B`` → repr of its value."""
    return {key: repr(value) for key, value in leaves(config)}
