"""The split files of the field's data sets.

The rules are CoOp's (Zhou et al., 2022, "Learning to Prompt for Vision-Language Models" and
"Conditional Prompt Learning for Vision-Language Models"), so that a split file on a user's disk
means the same here and there.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dassl.data.datasets import Datum

from trainers.common.errors import UserError
from trainers.common.readers import Stored, read_json
from trainers.data.images import Item
from trainers.data.lists import PARTS, Image, Lists, read_lines, reading


def read_split(path: str, image_dir: str, advice: str = "get it again") -> Lists:
    """Reads a ``split_zhou_*.json`` file.

    Args:
        path: the JSON file, ``{"train": [[relative path, label, class name], ...], "val": ...,
            "test": ...}``.
        image_dir: the folder that the relative paths start from.
        advice: the next step where the file is missing.

    Returns:
        three lists of ``Image`` (train, val, test) in the order of the file.

    Raises:
        UserError: the file is missing or malformed, its labels have gaps, or it lists an image
            outside ``image_dir``.
    """
    with reading(path, advice):
        parts = read_json(path)
        lists: Lists = ()
        for part in PARTS:
            lists = *lists, [image_of(image_dir, entry) for entry in parts[part]]
        check_labels(lists)
        return lists


def read_lists(folder: str, path: str, entry: Callable[[str], Stored], advice: str) -> Lists:
    """Reads three lists of images, which have a line for each.

    Args:
        folder: that the images lie in; path: of the lists, with ``{}`` for the part's name.
        entry: makes an entry for ``image_of`` of a line.

    Raises:
        UserError: as ``read_split``.
    """
    lists: Lists = ()
    for source in map(path.format, PARTS):
        with reading(source, advice):
            images = [image_of(folder, entry(line)) for line in read_lines(source)]
            lists = *lists, images
            check_labels(lists)
    return lists


def image_of(folder: str, entry: Stored) -> Image:
    """The image of an entry of a list: path below the folder, label, class name.

    A list comes from somewhere else than the person who runs it, so its images lie in the folder.
    Links there may lead anywhere, such as to another drive: the user has made them.

    Raises:
        TypeError, ValueError: it is not such an entry; UserError: its path leads out of the folder.
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
    """Checks that the lists have labels of the same classes.

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


def make_data(images: Sequence[Item]) -> list[Datum]:
    """Images as Dassl's ``Datum``.

    Raises:
        UserError: the file of an ``impath`` is missing.
    """
    missing = next((image.impath for image in images if not os.path.isfile(image.impath)), None)
    if missing:
        raise UserError(
            f"image {missing} is missing: the data set is incomplete, get its images again"
        )
    return [Datum(image.impath, image.label, classname=image.classname) for image in images]
