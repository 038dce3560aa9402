"""Which data sets are there, whole, and what each is for.

    python tools/check_data.py [NAME …] --root DATA

For every data set that is there, or those that are named: present (all images of its lists, as many as papers report),
incomplete (something is missing or differs; the last column says what), or missing; the numbers of images found, with
the expected number where it differs; the fingerprint of the split; and the protocols that need it. Nothing is written,
drawn or downloaded, and the images are counted, not opened. The exit code is 0 whatever is found. ImageFolder is not
listed: it is any folder.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from dassl.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.base import ImageDataset
from trainers.common.errors import nearest
from trainers.common.fingerprints import split_hash
from trainers.common.readers import read_yaml

# name → numbers of classes and of the parts' images, protocols, source
EXPECTED = read_yaml(Path(__file__).with_suffix(".yaml"))
HEADERS = (
    "data set|state|classes|train|val|test|split|needed by|where to get it, or what is wrong"
).split("|")


@cache
def files_in(folder: str) -> frozenset[str]:
    """Names in a folder; read once, since asking for a million files one by one takes minutes."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def is_there(path: str) -> bool:
    folder, name = os.path.split(path)
    return name in files_in(folder)


def check(cls: type[ImageDataset], root: str) -> list[str]:
    """One row of the table, see HEADERS.

    Args:
        cls: the data set's class.
        root: folder of the data sets.
    """
    expected, protocols, source = EXPECTED[cls.__name__]
    unknown = ["–" if number is None else f"– of {number:,}" for number in expected]
    try:
        folder = os.path.join(os.path.abspath(os.path.expanduser(root)), cls.dataset_dir)
        if not os.path.isdir(folder):
            return [cls.__name__, "missing", *unknown, "–", protocols, source]
        train, val, test = cls.list_images(folder)
        parts = [train, [] if val is test else val, test]
        there = [sum(is_there(image.impath) for image in part) for part in parts]
        numbers = [len({image.label for image in test}), *there]
        wrong = next(
            (f"{i.impath} is missing" for part in parts for i in part if not is_there(i.impath)), ""
        )
        if not wrong and numbers != [number or 0 for number in expected]:
            wrong = "complete by its own lists, but of another size than papers report"
        split = split_hash(SimpleNamespace(train_x=train, val=val, test=test))
        state, cells = "incomplete" if wrong else "present", map(compare, numbers, expected)
        return [cls.__name__, state, *cells, split, protocols, wrong or source]
    except Exception as error:  # whatever is wrong with one set, the others are to be reported
        reason = " ".join(str(error).split()) or type(error).__name__
        return [cls.__name__, "incomplete", *unknown, "–", protocols, reason]


def compare(number: int, expected: int | None) -> str:
    """A cell's text: the number, and the expected one where it differs."""
    if not number and not expected:
        return "–"
    return f"{number:,}" if number == expected else f"{number:,} of {expected or 0:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets to print (those that are there)"
    )
    parser.add_argument("--root", default="data", help="folder of the data sets (data)")
    args = parser.parse_args(arguments)
    for name in args.names:
        if name not in EXPECTED:
            parser.error(f"there is no data set {name}{nearest(name, EXPECTED)}")
    logging.disable(logging.INFO)  # the loaders say which file they read
    try:
        rows = [check(DATASET_REGISTRY.get(name), args.root) for name in args.names or EXPECTED]
    finally:
        logging.disable(logging.NOTSET)
    missing = [row[0] for row in rows if row[1] == "missing" and not args.names]
    shown = [row for row in rows if row[0] not in missing]
    sys.stdout.write(tabulate(shown, HEADERS, disable_numparse=True) + "\n")
    if missing:
        sys.stdout.write(
            f"Not there: {', '.join(missing)}; given by name, it says where to get it\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
