"""How a folder of one's own images is laid out: which of its folders are parts, and which are classes."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from trainers.common.console import first_few
from trainers.common.errors import UserError
from trainers.common.fingerprints import BELOW
from trainers.data.class_folders import class_folders
from trainers.data.lists import Image

WITHOUT_TEST = 0.8, 0.2  # shares of train and val where other images are for testing
# what folders of parts are called, by whom: torchvision and Kaggle, Roboflow, and others
PART_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class Layout(NamedTuple):
    """How a folder of images is laid out.

    Attributes:
        whole: the folder whose class folders are to be divided; "" where there are parts.
        parts: part → its folder; without ``whole`` it has ``train`` and ``test``, or ``val``, which is
            tested on then.
        beside: names of the folders beside the parts, which are no class.
    """

    whole: str
    parts: dict[str, str]
    beside: list[str]


def part_named(name: str) -> str:
    """The part that a folder is called by, as in ``valid``, ``seg_train`` or ``test1``; "" where it is
    called otherwise."""
    words = [word for word in re.split(r"[\W_\d]+", name.lower()) if word]
    return next((PART_OF[word] for word in (*words[-1:], *words[:1]) if word in PART_OF), "")


def layout_of(folder: str) -> Layout:
    """How a folder is laid out, decided by what is there: a part holds class folders, at once or in its
    only folder, so that a class may be called train, too. A single part is one only where no other
    class lies beside it.

    Raises:
        UserError: there is nothing but folders that are called by parts, and they hold no class
            folders.
    """
    parts: dict[str, str] = {}
    beside = []
    names = class_folders(folder)
    for name in names:
        part = part_named(name)
        place = f"{folder}/{name}"
        inner = class_folders(place)
        if len(inner) == 1 and class_folders(f"{place}/{inner[0]}"):
            place = f"{place}/{inner[0]}"
        if part and part not in parts and inner:
            parts[part] = place
        else:
            beside.append(name)
    classes = [name for name in beside if not part_named(name)]
    if ("train" in parts and len(parts) > 1) or ("test" in parts and not classes):
        return Layout("", parts, beside)
    if "train" in parts and not classes:
        return Layout(parts["train"], {}, beside)
    if len({part_named(name) for name in names}) > 1 and not classes:
        raise UserError(
            f"{folder} has {first_few(names)}, which hold no class folders: put the images of each class into a "
            "folder of their own in each of them, or, if these are the classes, call them otherwise"
        )
    return Layout(folder, {}, [])


def deeper(images: Iterable[Image]) -> str:
    """A warning where class folders hold nothing but folders, several each, which may be the classes
    that are meant; "" where one does not."""
    below = defaultdict(set)
    for image in images:
        _, is_below, rest = image.impath.partition(BELOW)
        below[image.classname].add(rest.split(os.sep)[0] if is_below else "")
    if any("" in folders or len(folders) < 2 for folders in below.values()):
        return ""
    inner = sorted(set().union(*below.values()))
    return (
        f"The classes are {first_few(sorted(below))}, whose folders hold nothing but folders "
        f"({first_few(inner)}): if these are the classes, give a folder that holds them directly"
    )
