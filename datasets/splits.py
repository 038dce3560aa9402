"""What every data set of the field shares: its folder, lists of images and the base/new halves.

The rules are CoOp's (Zhou et al., 2022, "Learning to Prompt for Vision-Language Models" and
"Conditional Prompt Learning for Vision-Language Models"), so that a split file on a user's disk
means here what it means there.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import Datum

from trainers.common.errors import UserError, raise_machines
from trainers.common.readers import read_json, read_text

PARTS = ("train", "val", "test")  # of a data set


class Image(NamedTuple):
    """An image of a list. Dassl's ``Datum`` looks for its file when it is made, which takes minutes
    for all of ImageNet."""

    impath: str
    label: int
    classname: str


Lists = tuple[list[Image], ...]  # of a data set: train, val, test


@contextlib.contextmanager
def reading(path: str, advice: str) -> Iterator[None]:
    """Names a file that lists images or classes, and says what to do, where it can't be read in the
    block.

    Raises:
        UserError: it is missing, malformed or cut.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise_machines(error, path)
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} can't be read ({reason}): {advice}") from error


def read_split(path: str, image_dir: str) -> Lists:
    """Reads a ``split_zhou_*.json`` file.

    Args:
        path: the JSON file, ``{"train": [[relative path, label, class name], ...], "val": ...,
            "test": ...}``.
        image_dir: the folder that the relative paths start from.

    Returns:
        three lists of ``Image`` (train, val, test) in the order of the file.

    Raises:
        UserError: the file is missing or malformed, its labels have gaps, or it lists an image
            outside ``image_dir``.
    """
    with reading(path, "docs/reproduce.md says where to get it"):
        parts = read_json(path)
        lists = tuple([image_of(image_dir, entry) for entry in parts[part]] for part in PARTS)
        check_labels(lists)
        return lists


def read_lines(path: str) -> list[str]:
    """Lines of a text file without the blank ones, and without space around them; raises what
    ``read_text`` does."""
    return [line for line in map(str.strip, read_text(path).splitlines()) if line]


def read_lists(folder: str, path: str, entry: Callable[[str], Any], advice: str) -> Lists:
    """Reads three lists of images, which have a line for each.

    Args:
        folder: that the images lie in; path: of the lists, with ``{}`` for the part's name.
        entry: makes an entry, see ``image_of``, of a line.

    Raises:
        UserError: see ``read_split``.
    """
    lists: Lists = ()
    for source in map(path.format, PARTS):
        with reading(source, advice):
            images = [image_of(folder, entry(line)) for line in read_lines(source)]
            lists = *lists, images
            check_labels(lists)
    return lists


def image_of(folder: str, entry: Any) -> Image:
    """The image of an entry of a list: path below the folder, label, class name.

    A list comes from somewhere else than the person who runs it, so its images lie in the folder.
    Links there may lead anywhere, such as to another drive: the user has made them.

    Raises:
        TypeError, ValueError: it is no such entry; UserError: its path leads out of the folder.
    """
    name, label, classname = entry
    if not isinstance(classname, str):
        raise TypeError(f"{classname!r:.80} is no class name")
    path = Path(name)
    if path.is_absolute() or os.pardir in path.parts or not path.parts:
        raise UserError(
            f"the image {name} of a list lies outside {folder}: it is refused; put it into the folder, or a link to it"
        )
    return Image(os.path.join(folder, name), int(str(label)), classname)


def check_labels(lists: Lists) -> None:
    """
    Raises:
        ValueError: the labels of the training images are not 0 … K−1, or another part has one that
            they don't have.
    """
    classes = len({image.label for image in lists[0]})
    for image in (image for images in lists for image in images):
        if not 0 <= image.label < classes:
            raise ValueError(
                f"{image.impath} has the label {image.label}, training images have {classes} classes: labels must be "
                "0 … K−1 without gaps"
            )


def make_data(images: Sequence[Image]) -> list[Datum]:
    """A list of ``Image`` as Dassl's ``Datum``.

    Raises:
        UserError: there is no file at an ``impath``.
    """
    missing = next((image.impath for image in images if not os.path.isfile(image.impath)), None)
    if missing:
        raise UserError(
            f"image {missing} is missing: the data set is incomplete, get its images again"
        )
    return [Datum(image.impath, image.label, classname=image.classname) for image in images]


def subsample_classes(*sources: list[Image], subsample: str = "all") -> tuple[list[Image], ...]:
    """Keeps the first half (base) or the second half (new) of the classes and numbers them from 0.

    Args:
        *sources: lists of ``Image``; the classes are the labels of the *first* list, in ascending
            order, and its first ``ceil(n / 2)`` are base.
        subsample: ``all``, ``base`` or ``new``.

    Returns:
        the lists (a tuple), each item in its old order; ``all`` returns them unchanged.

    Raises:
        UserError: no class is left.
    """
    if subsample == "all":
        return sources
    labels = sorted({item.label for item in sources[0]})
    middle = math.ceil(len(labels) / 2)
    kept = labels[:middle] if subsample == "base" else labels[middle:]
    if not kept:
        raise UserError(
            f"DATASET.SUBSAMPLE_CLASSES {subsample} leaves no class of {len(labels)}: give all"
        )
    new = {label: position for position, label in enumerate(kept)}
    return tuple(
        [item._replace(label=new[item.label]) for item in source if item.label in new]
        for source in sources
    )
