"""Reads text, JSON, YAML, arrays, archives and pickles that may be somebody else's, in bounded time and memory.

Each raises a ``ValueError`` with the fault of the file; the caller adds the file's name
and the next step.
"""

import codecs
import copy
import functools
import json
import math
import os
import pickle
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import yaml

MAX_TEXT = 2**26  # bytes of a file of text: a split of a million images
MAX_YAML = 2**16  # bytes of a config, whose reader is slow: a second
MAX_DEPTH = 20  # of its nesting: reading time grows with it
UNPACKED = 2**28  # bytes that any archive may unpack to; a larger one to twice its own size
# The content of a file of JSON, of YAML or of a checkpoint. Like the result of ``json.loads``
# it is not checked by types: its reader looks at it.
Stored = Any


def read_text(path: str | Path, most: int = MAX_TEXT) -> str:
    """A file's text, in UTF-8 or, as a mark at its start says, in UTF-16; the mark is left out.

    Raises:
        OSError: it can't be opened; ValueError: it is a pipe, a device or too long, or in another
            encoding.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most // 2**10} kB")
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error


def read_json(path: str | Path) -> Stored:
    """Read a file of JSON, as ``parse_json``; also raises the errors of ``read_text``."""
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Stored:
    """Parse a JSON text: each key stands once, all numbers are finite, all strings can be written as UTF-8.

    Raises:
        ValueError: it is not such JSON.
    """
    try:
        content = json.loads(
            text, parse_constant=finite, parse_float=finite, object_pairs_hook=with_each_key_once
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(text, str) and re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it is not text (a lone surrogate)") from error
    return content


def with_each_key_once(pairs: list[tuple[str, Stored]]) -> dict[str, Stored]:
    """Return an object of JSON as a dict; a second value of a key would count in silence.

    Raises:
        ValueError: a key stands in it twice.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        key = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"the key {key} stands in one object twice: leave one of them out")
    return content


def finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"the number {number[:20]} is not finite")
    return value


class BoundedUnpickler(pickle._Unpickler):
    """Unpickles in Python, since the unpickler in C allocates whatever size an entry claims; without the
    one code that makes room for any number of bytes."""

    dispatch = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]


class PlainLoader(yaml.SafeLoader):
    """Loads YAML without aliases, of which a few lines stand for more than memory holds, and with each key once."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name): write out what it stands for")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in first:
                raise ValueError(
                    f"the key {key} of line {line} stands in line {first[key]} already: leave one of them out"
                )
            first[key] = line
        return mapping


def read_yaml(path: str | Path) -> Stored:
    """Read a YAML file.

    Raises:
        OSError: it can't be opened; ValueError: it is not such YAML, or as ``read_text``.
    """
    return copy.deepcopy(parse_yaml(read_text(path, MAX_YAML)))  # the caller's own, to be changed


@functools.lru_cache(64)  # the plan of a protocol reads the same few files hundreds of times
def parse_yaml(text: str) -> Stored:
    """Parse YAML; returns the same object each time, not to be changed."""
    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def check_archive(path: str | Path) -> None:
    """Check that an archive is readable and does not unpack to too much.

    Raises:
        ValueError: it is a zip archive that unpacks to far more than its own size.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(UNPACKED, 2 * os.path.getsize(path)):
            raise ValueError(f"it unpacks to {unpacked // 2**20} MB")


def read_arrays(path: str | Path) -> dict[str, numpy.ndarray]:
    """Arrays by name of an ``.npz`` file.

    Raises:
        Exception: of any kind, where the file is damaged or hostile; nothing of it has been run.
    """
    check_archive(path)
    with numpy.load(path, allow_pickle=False) as file:
        return dict(file)
