"""Files, seeds and names."""

import difflib
import json
import os
import random
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Any, BinaryIO, TypeVar

import numpy as np
import PIL
import torch
from PIL import Image

Item = TypeVar("Item")
# The content of a file of JSON or a checkpoint. Like the result of `json.loads` it is not checked by
# types: its reader looks at it.
Stored = Any
# Pillow would start a PostScript interpreter for others
FORMATS = "JPEG PNG WEBP BMP GIF TIFF PPM".split()


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """The string of `b` most similar to `a` (the later one of equals), None if `b` is empty."""
    return max(
        reversed(list(b)),
        key=lambda one: difflib.SequenceMatcher(None, a, one).ratio(),
        default=None,
    )


def check_availability(requested: str, available: Collection[str], key: str = "") -> None:
    """ValueError with the nearest name if `requested` is not in `available`; `key` says where in
    the config it stands."""
    if requested not in available:
        nearest = get_most_similar_str_to_a_from_b(requested, available)
        raise ValueError(
            f"{key + ': ' if key else ''}The requested one is expected to belong to {available}, but got [{requested}] (do you mean [{nearest}]?)"
        )


def set_random_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators (every device's); any seed from 0 to 2**32 - 1."""
    np.random.seed(seed)  # first, as it refuses other numbers
    random.seed(seed)
    torch.manual_seed(seed)


def mkdir_if_missing(dirname: str) -> None:
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Whether `fpath` is a file; a warning if not."""
    is_file = os.path.isfile(fpath)
    if not is_file:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return is_file


def read_json(fpath: str) -> Stored:
    with open(fpath, encoding="utf-8") as f:
        return json.load(f)


def write_whole(fpath: str, write: Callable[[BinaryIO], object]) -> None:
    """Let `write(file)` fill a temporary file, then give it its name: the file is there complete or
    not at all."""
    temporary = f"{fpath}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, fpath)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_json(obj: object, fpath: str) -> None:
    """Write `obj` with indent 4, making the folder."""
    mkdir_if_missing(os.path.dirname(fpath))
    text = json.dumps(obj, indent=4)
    write_whole(fpath, lambda f: f.write(text.encode()))


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """The names in a folder that do not start with a dot, in the file system's order unless `sort`."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def read_image(path: str) -> Image.Image:
    """The image as PIL RGB; an error names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            picture: Image.Image = image.convert("RGB")
            return picture
    except (OSError, SyntaxError, ValueError) as err:  # what Pillow raises for broken files
        raise OSError(f'Cannot read image "{path}": {err}') from err


def tolist_if_not(x: Item | list[Item]) -> list[Item]:
    return x if isinstance(x, list) else [x]


def collect_env_info() -> str:
    """Versions of torch, system and Pillow, as text for the log."""
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"
