"""Merges config files and KEY VALUE pairs into a config, and checks the values of its keys; every
mistake is named.

A config file may name files of ``configs/bases`` that it builds on, and then has only the
differences; of several the later one wins, and the file itself over all of them::

    BASE: [vit_b16, sgd]

Checks beyond yacs: missing values, elements of lists, infinite or NaN numbers, text that is not
UTF-8, and the values that a ``Setting`` takes.
"""

import math
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode

from .errors import UserError, nearest, raise_machines
from .readers import Stored, read_yaml
from .setting import Setting, Settings, Takes

PACKAGE = Path(__file__).resolve().parents[1]
# of recipes, bases and data sets: a wheel has them in the package, a checkout beside it
CONFIGS = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
BASE = "BASE"  # in a file: the files that it builds on
HOLDS = {"at least": operator.ge, "at most": operator.le, "above": operator.gt}
WHOLE_NUMBER = re.compile(r"[+-]?\d+")
WORDS_OF_TYPES = {bool: "a truth value", int: "a whole number", float: "a number", str: "a text"}


def settings_in(words: Sequence[str], what: str) -> dict[str, str]:
    """KEY → value of words KEY VALUE KEY …; of a key that comes twice the last value.

    Raises:
        UserError: one has no value; what: their name in the message.
    """
    if len(words) % 2:
        raise UserError(f"{what} must come in pairs, KEY VALUE: {' '.join(words)}")
    return dict(zip(words[::2], words[1::2]))


def merge(cfg: CfgNode, source: str | Mapping[str, object], what: str) -> None:
    """Merges a file, or KEY → value; every mistake is a ``UserError``.

    Raises:
        UserError: file missing or not YAML, unknown key (the nearest known one is named), value of
            another type.
    """
    if isinstance(source, str):
        where = f"{what} {source}"
        settings = dict(leaves(read_config(source, where)))
    else:
        where = what
        settings = dict(source)
    known = dict(leaves(cfg))
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"{where}: unknown config key {key}{nearest(key, known)}")
        if isinstance(known[key], float) and WHOLE_NUMBER.fullmatch(str(value)):
            value = float(str(value))  # which yacs asks to be written 0.0
        try:
            cfg.merge_from_list([key, value])
        except (RecursionError, MemoryError) as error:  # of Python's parser, which reads it
            raise UserError(f"{where}: {key} is nested too deeply") from error
        except (ValueError, TypeError) as error:
            raise mismatch(f"{where}: {key}", value, known[key]) from error


def read_config(path: str | Path, where: str) -> dict[str, Stored]:
    """Read a config file as nested dicts, with the further values of its bases; where: its name in
    messages.

    Raises:
        UserError: it is missing, can't be read, is not YAML with keys, or a base of it is unknown.
    """
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        raise UserError(f"{where} is missing{nearest(name, beside)}")
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(f"{where}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: it must hold lines KEY: value")
    names = content.get(BASE, [])
    known = sorted(file.stem for file in (CONFIGS / "bases").glob("*.yaml"))
    config: dict[str, Stored] = {}
    for name in names if isinstance(names, list) else [names]:
        if name not in known:
            raise UserError(f"{where}: {BASE} can't be {name!r}{nearest(name, known)}")
        base = CONFIGS / f"bases/{name}.yaml"
        config = overlaid(config, read_config(base, f"config file {base}"))
    return overlaid(config, {key: value for key, value in content.items() if key != BASE})


def overlaid(below: Mapping[str, Stored], above: Mapping[str, Stored]) -> dict[str, Stored]:
    """Merge nested dicts; where both have a value, the one of ``above`` counts."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = overlaid(known, value)
        else:
            merged[key] = value
    return merged


def check_values(values: Mapping[str, object], settings: Settings, path: str = "") -> None:
    """Check that each setting has a value of its default's type, among the ones that it takes.

    Args:
        values: a config node, or a record's as plain dicts; it may have more keys, which are
            not looked at.
        path: name of the node with a full stop, for messages.

    Raises:
        UserError: the key, its value, and the values that it takes.
    """
    given = dict(leaves(values))
    for key, setting in settings.items():
        if key not in given:
            raise UserError(f"{path}{key} has no value: give one such as {setting.default!r}")
        check_value(f"{path}{key}", given[key], setting)


def check_value(key: str, value: object, setting: Setting) -> None:
    """Checks the value of one setting: a list has elements of one type, and as many numbers as its
    default if that has several.

    Raises:
        UserError: as ``check_values``.
    """
    if value is None and isinstance(setting.takes, list) and None in setting.takes:
        return
    default = setting.default
    elements = elements_of(value)
    known = elements_of(default)
    type_ = type(known[0]) if known else str
    if (
        (elements is value) != (known is default)
        or (len(elements) != len(known) > 1 and type_ is not str)
        or not all(is_of(type_, element) for element in elements)
    ):
        raise mismatch(key, value, default)
    check_range(key, value, setting.takes)


def check_range(key: str, value: object, takes: Takes) -> None:
    """Check that a value, or each element of a list, is among the ones that a setting takes.

    Raises:
        UserError: as ``check_values``.
    """
    for element in elements_of(value):
        if isinstance(takes, list):
            if element not in takes:
                choices = ", ".join(str(choice) or "''" for choice in takes)
                raise UserError(
                    f"{key} is {element!r}, it takes {'one of' if len(takes) > 1 else 'only'} "
                    f"{choices}{nearest(element, takes)}"
                )
        elif isinstance(element, (int, float)):
            for bound, number in takes.items():
                if not HOLDS[bound](element, number):
                    raise UserError(f"{key} is {value}, it must be {bound} {number}")


def elements_of(value: object) -> Sequence[object]:
    """A list or a tuple as it is, any other value as a list of itself."""
    return value if isinstance(value, (list, tuple)) else [value]


def mismatch(key: str, value: object, default: object) -> UserError:
    """The error for a value of another type than its default."""
    taken = WORDS_OF_TYPES.get(type(default), "a list")
    return UserError(f"{key} is {value!r}, it takes {taken} such as {default!r}")


def is_of(type_: type, value: object) -> bool:
    """Whether a value is of a type.

    Integers pass as ``float``; a ``str`` must be writable as UTF-8; numbers are
    finite, and whole ones below 2⁶³, as torch has no larger ones.
    """
    if type(value) is not type_ and (type_, type(value)) != (float, int):
        return False
    if isinstance(value, str):
        return value == value.encode(errors="ignore").decode()
    limit = math.inf if type_ is type(value) is float else 2**63
    return not isinstance(value, (int, float)) or abs(value) < limit


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
