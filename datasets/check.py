"""Lists the data sets that are there, whether they are whole, and the protocols of each.

    python -m datasets.check --root data
    python -m datasets.check EuroSAT DescribableTextures --root data

For every data set that is there, or every named one: present (all images of its lists, as many
as papers report), incomplete (something is missing or differs; the last column says what), another
split (its split file is not CoOp's), or missing; the numbers of images found, with the expected number where it differs; the fingerprint of
the split; and the protocols that need it. Nothing is written, drawn or downloaded, and the images
are counted, not opened. The exit code is 0 whatever is found. ImageFolder is not listed: it is any
folder.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from datasets.base import ImageDataset
from datasets.every import data_set
from datasets.sources import SPLITS
from trainers.common.errors import nearest
from trainers.common.files import file_hash
from trainers.common.fingerprints import split_hash
from trainers.common.readers import read_yaml

# name → numbers of classes and of the parts' images, protocols, source
EXPECTED = read_yaml(Path(__file__).with_suffix(".yaml"))
CHECK_HEADERS = (
    "data set|state|classes|train|val|test|split|needed by|where to get it, or what is wrong"
).split("|")
OTHER_SPLIT = "another split"
OTHER_SIZE = "complete by its own lists, but of another size than papers report"


def check(cls: type[ImageDataset], root: str) -> list[str]:
    """Return one row of the table, with the columns HEADERS.

    Args:
        cls: the data set's class.
        root: folder of the data sets.
    """
    reported, protocols, source = EXPECTED[cls.__name__]
    expected = [number or 0 for number in reported]
    numbers = [0] * len(expected)
    state = "incomplete"
    split = "–"
    remark = source
    folder = cls.place(root)
    try:
        if not os.path.isdir(folder):
            state = "missing"
        else:
            train, val, test = cls.list_images(folder)
            split = split_hash(train, val, test)
            numbers = [len({image.label for image in test})]
            missing = []
            for part in (train, [] if val is test else val, test):
                absent = [image.impath for image in part if not os.path.isfile(image.impath)]
                numbers.append(len(part) - len(absent))
                missing += absent
            if missing:
                remark = f"{min(missing)} is missing"
            elif numbers != expected:
                remark = OTHER_SIZE
            elif foreign := foreign_split(cls, folder):
                state = OTHER_SPLIT
                remark = f"{foreign} is not CoOp's: numbers on it belong to another table; get CoOp's, see docs/reproduce.md"
            else:
                state = "present"
    except Exception as error:  # whatever is wrong with one set, the others are to be reported
        remark = " ".join(str(error).split()) or type(error).__name__
    cells = map(with_expected, numbers, expected)
    return [cls.__name__, state, *cells, split, protocols, remark]


def foreign_split(cls: type[ImageDataset], folder: str) -> str:
    """Return the name of a data set's split file that differs from CoOp's; empty without one,
    or where CoOp's is not known."""
    for name in cls.lists:
        if name in SPLITS and file_hash(f"{folder}/{name}") != SPLITS[name]:
            return name
    return ""


def with_expected(number: int, expected: int) -> str:
    """A cell's text: the number, and the expected one where it differs."""
    text = f"{number:,}" if number else "–"
    return text if number == expected else f"{text} of {expected:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets to print (those that are there)"
    )
    parser.add_argument("--root", default="data", help="folder of the data sets (data)")
    args = parser.parse_args(arguments)
    for name in args.names:
        if name not in EXPECTED:
            parser.error(f"there is no data set {name}{nearest(name, EXPECTED)}")
    rows = [check(data_set(name), args.root) for name in args.names or EXPECTED]
    missing = [row[0] for row in rows if row[1] == "missing" and not args.names]
    shown = [row for row in rows if row[0] not in missing]
    print(tabulate(shown, CHECK_HEADERS, disable_numparse=True))
    if missing:
        print(f"Not there: {', '.join(missing)}; given by name, it says where to get it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
