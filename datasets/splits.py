"""What every data set of the field shares: its folder, split files and the base/new halves.

The rules are CoOp's (Zhou et al., 2022, "Learning to Prompt for Vision-Language Models" and "Conditional Prompt
Learning for Vision-Language Models"), so that a split file on a user's disk means here what it means there.
"""

import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import Datum

from trainers.common.errors import UserError
from trainers.common.readers import read_json, read_text

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")  # of a data set
SUBSAMPLES = ("all", "base", "new")
COOPS_LAYOUT = (
    "lay the data out as CoOp's DATASETS.md describes and give its parent as --root (or $DATA to the "
    "scripts); the data set openmoji needs no download"
)


class Image(NamedTuple):
    """An image of a list. Dassl's ``Datum`` looks for its file when it is made, which takes minutes for all of ImageNet."""

    impath: str
    label: int
    classname: str

    @property
    def domain(self) -> int:
        """As in Dassl's ``Datum``, which an image with a missing file replaces."""
        return 0


Lists = tuple[list[Image], ...]  # of a data set: train, val, test


def read_split(path: str, image_dir: str) -> Lists:
    """Reads a ``split_zhou_*.json`` file.

    Args:
        path: the JSON file, ``{"train": [[relative path, label, class name], ...], "val": ..., "test": ...}``.
        image_dir: the folder that the relative paths start from.

    Returns:
        three lists of ``Image`` (train, val, test) in the order of the file.

    Raises:
        UserError: the file is missing or malformed, its labels have gaps, or it lists an image outside ``image_dir``.
    """
    if not os.path.isfile(path):
        raise UserError(f"split file {path} is missing: docs/reproduce.md says where to get it")
    try:
        parts = read_json(path)
        lists = tuple([image_of(entry, image_dir) for entry in parts[part]] for part in PARTS)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"split file {path} is malformed or cut ({type(error).__name__}: {error}): get it again"
        ) from error
    check_labels(path, *lists)
    check_places(path, image_dir, *lists)
    log.info("Reading split from %s", path)
    return lists


def image_of(entry: Any, folder: str) -> Image:
    """The image of an entry ``[path below the folder, label, class name]``; TypeError, ValueError: it is none."""
    name, label, classname = entry
    is_label = isinstance(label, (int, str)) and not isinstance(label, bool)
    if not (isinstance(name, str) and isinstance(classname, str) and is_label):
        raise TypeError(f"the entry {entry!r:.80} is not a path, a label and a class name")
    return Image(os.path.join(folder, name), int(label), classname)


def check_labels(path: str, train: list[Image], *others: list[Image]) -> None:
    """
    Raises:
        UserError: the labels of the training images are not 0 … K−1, or another part has one that they don't have.
    """
    labels = {image.label for image in train}
    odd = next((label for number, label in enumerate(sorted(labels)) if label != number), None)
    if odd is not None:
        raise UserError(
            f"split file {path} has the label {odd} among {len(labels)} classes: labels must be 0 … K−1 without gaps"
        )
    strange = next(
        (image for images in others for image in images if image.label not in labels), None
    )
    if strange is not None:
        raise UserError(
            f"split file {path} has the label {strange.label} ({strange.impath}), of which there is no training image"
        )


def check_places(source: str, folder: str, *lists: list[Image]) -> None:
    """Refuses images outside their folder: a list of images comes from somewhere else than the person who runs it.

    Links in the folder may lead anywhere, such as to another drive: the user has made them.

    Args:
        source: file that lists the images; lists: their paths start with ``folder``, unless they lead out.

    Raises:
        UserError: a path leads out of the folder.
    """
    inside = os.path.join(folder, "")
    for path in (image.impath for images in lists for image in images):
        if (
            not path.startswith(inside)
            or os.pardir in path[len(inside) :].split(os.sep)
            or os.path.normpath(path) == os.path.normpath(folder)
        ):
            raise UserError(
                f"{source} lists {path}, which lies outside {folder}: it is refused; put the image into the folder, or a link to it"
            )


def read_lines(path: str, source: str) -> list[str]:
    """Lines of a text file without the blank ones, and without space around them.

    Raises:
        UserError: it is missing, and the message says where it is from, ``source``; or it can't be read.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: {source}")
    try:
        lines = map(str.strip, read_text(path).splitlines())
    except ValueError as error:
        raise UserError(f"{path} can't be read: {error}") from error
    return [line for line in lines if line]


def make_data(images: Iterable[Image]) -> list[Datum]:
    """A list of ``Image`` as Dassl's ``Datum``.

    Raises:
        UserError: there is no file at an ``impath``.
    """
    images = list(images)
    missing = next((image.impath for image in images if not os.path.isfile(image.impath)), None)
    if missing:
        raise UserError(
            f"image {missing} is missing: the data set is incomplete, get its images again"
        )
    return [Datum(image.impath, image.label, classname=image.classname) for image in images]


def subsample_classes(*sources: list[Image], subsample: str = "all") -> tuple[list[Image], ...]:
    """Keeps the first half (base) or the second half (new) of the classes and numbers them from 0.

    Args:
        *sources: lists of ``Image``; the classes are the labels of the *first* list, in ascending order, and its first
            ``ceil(n / 2)`` are base.
        subsample: ``all``, ``base`` or ``new``.

    Returns:
        the lists (a tuple), each item in its old order; ``all`` returns them unchanged.

    Raises:
        UserError: another value of ``subsample``, or no class is left.
    """
    if subsample not in SUBSAMPLES:
        raise UserError(
            f"DATASET.SUBSAMPLE_CLASSES is {subsample!r}, it takes one of {', '.join(SUBSAMPLES)}"
        )
    if subsample == "all":
        return sources
    labels = sorted({item.label for item in sources[0]})
    middle = math.ceil(len(labels) / 2)
    kept = labels[:middle] if subsample == "base" else labels[middle:]
    if not kept:
        raise UserError(
            f"DATASET.SUBSAMPLE_CLASSES {subsample} leaves no class of {len(labels)}: give all"
        )
    log.info("Subsampling the %s classes: %d of %d", subsample, len(kept), len(labels))
    new = {label: position for position, label in enumerate(kept)}
    return tuple(
        [item._replace(label=new[item.label]) for item in source if item.label in new]
        for source in sources
    )


def find_folder(root: str, *parts: str, advice: str = COOPS_LAYOUT) -> str:
    """Path of a data set's folder.

    Raises:
        UserError: it is not there; the message has the ``advice``.
    """
    path = os.path.join(os.path.abspath(os.path.expanduser(root or ".")), *parts)
    if not os.path.isdir(path):
        raise UserError(f"data folder {path} is missing: {advice}")
    return path


def subfolders(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones; none where it is no folder."""
    return [path.name for path in sorted(Path(folder).glob("[!.]*")) if path.is_dir()]
