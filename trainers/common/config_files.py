"""Merges config files and KEY VALUE pairs into a config, with every mistake named.

Checks what yacs does not: missing values, elements of lists, infinite or NaN numbers, text that is not UTF-8.
"""

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from .errors import UserError, nearest
from .readers import read_yaml

log = logging.getLogger(__name__)

ONE = {
    bool: "True or False",
    int: "a whole number of at most 64 bits",
    float: "a finite number",
    str: "text in UTF-8",
}
NAMES = {
    bool: "True and False",
    int: "whole numbers",
    float: "finite numbers",
    str: "texts in UTF-8",
}
ONE_BY_NAME = {kind.__name__: words for kind, words in ONE.items()}
# what yacs says of a value of another type
MISMATCH = re.compile(r"\(<class '(\w+)'> vs.* with values \(.* vs. (.*)\) for config key: (\S+)$")
OPTIONAL = ("AUGMENTATION",)  # may be None, whichever the node
# of earlier versions; they changed no figure
REMOVED = ("TEST.FEATURE_CACHE", "TRAIN.CHECKPOINT_MINUTES", "TRAIN.CHECKPOINT_STEPS")


def merge(cfg: CfgNode, source: str | list[Any], what: str, leave_out: str = "") -> None:
    """Merges a file, except its key ``leave_out``, or a list of pairs; every mistake is a ``UserError``.

    Raises:
        UserError: file missing or not YAML, unknown key (the nearest known one is named), value of another type.
    """
    where = f"{what} {source}" if isinstance(source, str) else what
    if isinstance(source, str) and not os.path.isfile(source):
        folder, name = os.path.split(source)
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        raise UserError(f"{where} is missing{nearest(name, beside)}")
    if isinstance(source, list) and len(source) % 2:
        raise UserError(f"{what} must come in pairs, KEY VALUE: {' '.join(map(str, source))}")
    try:
        if isinstance(source, str):
            content = read_yaml(source)
            if not isinstance(content, dict):
                raise UserError(f"{where}: it must hold lines KEY: value")
            check_keys(content, where)
            content = {key: value for key, value in content.items() if key != leave_out}
            removed = [
                (node, key)
                for node, key in (name.split(".") for name in REMOVED)
                if key in (content.get(node) or {})
            ]
            warn_of_removed([".".join(names) for names in removed], where)
            for node, key in removed:
                content[node] = {
                    name: value for name, value in content[node].items() if name != key
                }
            cfg.merge_from_other_cfg(CfgNode(content))
        else:
            pairs = list(zip(source[::2], source[1::2]))
            warn_of_removed([name for name, _ in pairs if name in REMOVED], where)
            kept = [part for pair in pairs if pair[0] not in REMOVED for part in pair]
            cfg.merge_from_list(kept)
    except UserError:
        raise
    except (KeyError, AttributeError) as error:
        raise unknown_key(
            cfg, source, where, str(error.args[0] if error.args else error)
        ) from error
    except AssertionError as error:
        if str(error).startswith("Non-existent key"):
            raise unknown_key(cfg, source, where, str(error)) from error
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error
    except (RecursionError, MemoryError) as error:  # of Python's parser, which reads the values
        raise UserError(f"{where}: it is nested too deeply") from error
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        if mismatch := MISMATCH.search(text):
            kind, value, key = mismatch.groups()
            text = f"{key} is {value!r}, it takes {ONE_BY_NAME.get(kind, 'a list')}"
        raise UserError(f"{where}: {text}") from error


def warn_of_removed(names: Sequence[str], where: str) -> None:
    if names:
        log.warning("%s: %s has no effect any more, leave it out", where, ", ".join(names))


def check_keys(content: Mapping[object, object], where: str) -> None:
    """
    Raises:
        UserError: a key of a YAML file is no text.
    """
    for key, value in content.items():
        if not isinstance(key, str):
            raise UserError(f"{where}: {key!r} is not a config key")
        if isinstance(value, dict):
            check_keys(value, where)


def unknown_key(cfg: CfgNode, source: str | list[Any], where: str, message: str) -> UserError:
    """The ``UserError`` for a key that yacs doesn't know; message: yacs', which ends with it."""
    key = message.rsplit(": ", 1)[-1].strip("'\"")
    full = (
        key
        if isinstance(source, str)
        else next((name for name in source[::2] if name.endswith(key)), key)
    )
    return UserError(f"{where}: unknown config key {full}{nearest(full, flatten(cfg))}")


def check_types(cfg: CfgNode, defaults: CfgNode, path: str = "") -> None:
    """Each value must be of its default's kind.

    Args:
        cfg, defaults: config nodes, of which ``cfg`` may have more keys; path: name of the node with a full stop, for messages.

    Raises:
        UserError: the key, its value, and what it takes.
    """
    for key, default in defaults.items():
        value, name = cfg[key], path + key
        if hasattr(default, "items"):
            if not hasattr(value, "items"):
                raise UserError(
                    f"{name} is {value!r}, it takes settings of its own: {', '.join(default)}"
                )
            check_types(value, default, f"{name}.")
        elif isinstance(default, (list, tuple)):
            check_elements(name, value, default)
        else:
            check_value(name, value, default)


def check_elements(name: str, value: Any, default: Sequence[Any]) -> None:
    """Checks a list: all elements of one kind, and as many numbers as the default if that has several."""
    kind = type(default[0]) if default else str
    several = len(default) > 1 and kind is not str
    if (
        not isinstance(value, (list, tuple))
        or several
        and len(value) != len(default)
        or not all(is_of(kind, element) for element in value)
    ):
        count = f"{len(default)} " if several else ""
        raise UserError(
            f"{name} is {value!r}, it takes a list of {count}{NAMES[kind]}, such as {list(default)!r}"
        )


def check_value(name: str, value: object, default: object) -> None:
    if (
        default is not None
        and not (value is None and name.rpartition(".")[2] in OPTIONAL)
        and not is_of(type(default), value)
    ):
        raise UserError(f"{name} is {value!r}, it takes {ONE[type(default)]}, such as {default!r}")


def is_of(kind: type, value: Any) -> bool:
    """Whether a value is of a kind: of ``float`` are all finite numbers, of ``str`` what can be written as UTF-8."""
    if isinstance(value, bool) and kind is not bool:
        return False
    if isinstance(value, int) and abs(value) >= 2**63:  # torch has no larger ones
        return False
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if isinstance(value, str) and kind is str:
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, kind)


def plain(config: Any) -> Any:
    """A config node as plain dicts and lists, for JSON."""
    if hasattr(config, "items"):
        return {key: plain(value) for key, value in config.items()}
    return [plain(item) for item in config] if isinstance(config, (list, tuple)) else config


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """A config node as a flat dict, ``A.B`` → repr of its value."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        flat.update(
            flatten(value, f"{prefix}{key}.")
            if hasattr(value, "items")
            else {prefix + key: repr(value)}
        )
    return flat
