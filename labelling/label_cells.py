"""Pictures and labels as Python holds them: lists of both, tables, torch data sets; and as a file that names
them."""

import csv
import filecmp
import operator
import os
import reprlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, cast

from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from trainers.common.console import first_few, printable
from trainers.common.errors import UserError
from trainers.common.image_files import decoded, is_image

from .pictures import Picture, Pictures, array_picture, is_path, one_by_one
from .readers.rows import BETWEEN
from .request import Text, root_of
from .table import check_name, means_multi_label


class LabelledTable(Protocol):
    """A pandas ``DataFrame``, as far as it is used here."""

    columns: Iterable[str]

    def __getitem__(self, name: str) -> Iterable[Any]: ...


Sources = Text | Sequence[Text]  # a folder or a file that names images, or several
# images with their labels' names or numbers
LabelledDataSet = Dataset[tuple[Picture, str | SupportsIndex]]
# images without their labels, a table with the columns path and label, or a torch data set
Labelled = Pictures | LabelledTable | LabelledDataSet


def wants_multi_label(
    images: Sources | Labelled,
    labels: Sequence[object] | None,
    told: bool | None,
    boxes: bool,
) -> bool:
    """Return whether a picture may have several labels: by the file (``means_multi_label``), or by labels
    that are collections of names."""
    if are_sources(images, labels):
        return means_multi_label(root_of(cast(Sources, images)), told, boxes)
    if told is not None:
        return told
    if labels is None:
        labels = list(images["label"]) if "label" in getattr(images, "columns", ()) else []  # type: ignore[index, call-overload]
    return any(is_collection(label) for label in labels)


def are_sources(images: object, labels: Sequence[object] | None) -> bool:
    """Return whether images are a folder or a file that names them, or several of these, and not pictures."""
    if is_path(images):
        return True
    if labels is not None or not isinstance(images, (list, tuple)) or not images:
        return False
    return all(is_path(one) and not is_image(os.fspath(one)) for one in images)


def is_collection(label: object) -> bool:
    return isinstance(label, (set, frozenset, list, tuple))


def names_of(label: object, number: int, multi_label: bool) -> tuple[str, ...]:
    """Return the names of the labels of the image of that number, sorted.

    Raises:
        UserError: it is not a name or, in a multi-label run, not a set of names.
    """
    if not multi_label:
        return (check_label(label),)
    if not is_collection(label):
        raise UserError(f"the labels of image {number} are {label!r}: give a set of names")
    names = sorted({str(name).strip() for name in label})  # type: ignore[attr-defined]
    for name in names:
        check_name(name, f"image {number}", multi_label=True)
    return tuple(names)


def labelled_pictures(
    images: Labelled, labels: Sequence[object] | None, multi_label: bool
) -> tuple[list[Picture], list[tuple[str, ...]]]:
    """Return N pictures and the names of each one's labels.

    Raises:
        UserError: there are no labels, more of one than of the other, or a label is not a name or, in a
            multi-label run, not a set of names.
    """
    pictures, given = pictures_and_labels(images, labels)
    if len(pictures) != len(given):
        raise UserError(
            f"there are {len(pictures)} images and {len(given)} labels: give one for each"
        )
    names = [names_of(label, number, multi_label) for number, label in enumerate(given)]
    return pictures, names


def pictures_and_labels(
    images: Labelled, labels: Sequence[object] | None
) -> tuple[list[Picture], list[object]]:
    """Return N images and N labels of a source that has both.

    Args:
        images: images in any form, with ``labels``; a ``DataFrame`` with the columns ``path`` and
            ``label``; or a torch data set (``of_data_set``).

    Raises:
        UserError: there are no labels, or as ``of_data_set``.
    """
    if labels is not None:
        return list(one_by_one(cast(Pictures, images))), list(labels)
    if {"path", "label"} <= {*getattr(images, "columns", ())}:
        table = cast(LabelledTable, images)
        return list(table["path"]), list(table["label"])
    if isinstance(images, Dataset):
        return of_data_set(images)
    raise UserError(
        "the images have no labels: give labels, a name for each, a DataFrame with the columns path and label, a torch "
        "data set of (image, label), or a folder of class folders"
    )


def of_data_set(images: LabelledDataSet) -> tuple[list[Picture], list[object]]:
    """N images and N labels of a torch data set of (image, label).

    A label is a name, or a whole number: a place among the data set's ``classes``, of a ``Subset``
    those of the whole, or where there are none itself the name.

    Raises:
        UserError: an item is no such pair, a label is neither, or two classes have one name.
    """
    whole: Any = images
    while isinstance(whole, Subset):
        whole = whole.dataset
    names: Sequence[object] | None = getattr(whole, "classes", None)
    if names is not None:
        taken = Counter(check_label(name) for name in names)
        if repeated := [name for name, count in taken.items() if count > 1]:
            raise UserError(
                f"the data set's classes have a name twice ({first_few(repeated)}): give each class "
                "a name of its own"
            )
    if isinstance(images, IterableDataset):
        items = list(images)
    else:
        items = [images[number] for number in range(len(cast(Sized, images)))]
    pictures: list[Picture] = []
    labels: list[object] = []
    for number, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise UserError(
                f"item {number} of the data set is {reprlib.repr(item)}: each must be a pair of image and label"
            )
        pictures.append(item[0])
        labels.append(name_of(item[1], names, number))
    return pictures, labels


def name_of(label: object, names: Sequence[object] | None, number: int) -> object:
    """The name of a label of the image of that number (``of_data_set``)."""
    if isinstance(label, str):
        return label
    try:
        place = operator.index(cast(SupportsIndex, label))
    except TypeError:  # a fraction, nothing, or numbers of all classes
        place = None
    if place is None or place < 0 or (names is not None and place >= len(names)):
        known = (
            "a whole number, 0 or more" if names is None else f"a number from 0 to {len(names) - 1}"
        )
        raise UserError(
            f"the label of image {number} is {reprlib.repr(label)}: give a name or {known}; leave out "
            "images without a label, as by torch.utils.data.Subset"
        )
    return str(place) if names is None else names[place]


def write_images(
    images: Labelled, labels: Sequence[object] | None, folder: str, multi_label: bool
) -> str:
    """Write a table of images and their labels, ``<folder>/<name of the folder>.csv``; return its path.

    Files are named where they are; all other images are written beside it, as PNG. The folder is whole
    or not there; one that holds just these is taken as it is.

    Raises:
        UserError: there is no image, one can't be read, or the folder exists already and holds something
            else; or as ``labelled_pictures``.
    """
    pictures, names = labelled_pictures(images, labels, multi_label)
    if not pictures:
        raise UserError("there are 0 images and 0 labels: give one for each")
    parent, own = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".images-", dir=parent) as temporary:
        new = f"{temporary}/images"
        os.makedirs(new)
        rows = [("image", "label")]
        for number, (image, of_image) in enumerate(zip(pictures, names)):
            cell = BETWEEN.join(of_image) or BETWEEN  # alone, for a picture with no label
            rows.append((place_of(image, f"{number:06d}.png", new), cell))
        with open(f"{new}/{own}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        if not os.path.lexists(folder):
            os.rename(new, folder)
        elif not are_equal(new, folder):
            raise UserError(
                f"{folder} exists already, where the images would go, and holds others: give fit that "
                "folder, or another one for the run"
            )
    return os.path.join(folder, f"{own}.csv")


def place_of(image: Picture, name: str, folder: str) -> str:
    """The path of an image that is a file; any other is written into a folder, under a name, which is
    returned.

    Raises:
        UserError: it can't be read, or its path can't be written.
    """
    if is_path(image):
        path = os.path.abspath(image)
        if not os.path.isfile(path):
            raise UserError(
                f"image {os.fspath(image)!r} is not a file: give another, or leave it out"
            )
        try:
            path.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that are no UTF-8
            raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
        return path
    if not isinstance(image, Image.Image):
        image = array_picture(image)
    with decoded(image, background=None) as picture:
        picture.save(f"{folder}/{name}")
    return name


def are_equal(first: str, second: str) -> bool:
    """Whether two folders hold the same files, byte by byte, and no others."""
    files = []
    for folder in (first, second):
        paths = [path for path in Path(folder).rglob("*") if not path.is_dir()]
        files.append(sorted(path.relative_to(folder).as_posix() for path in paths))
    if files[0] != files[1]:
        return False
    _, *differences = filecmp.cmpfiles(first, second, files[0], shallow=False)
    return not any(differences)


def check_label(label: object) -> str:
    """Return a label without the space around it.

    Raises:
        UserError: it is not a text of one line.
    """
    if not isinstance(label, str) or not label.strip() or printable(label) != label:
        raise UserError(f"the label {reprlib.repr(label)} is not a name: give a text of one line")
    return label.strip()
