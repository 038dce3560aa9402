"""Labels as Python gives them, names or sets of names, as cells of a file of pictures."""

import os
from collections.abc import Sequence

from trainers.common.errors import UserError

from .pictures import Labelled, Picture, check_label, is_path, pictures_and_labels, write_table
from .readers.rows import BETWEEN
from .table import check_name, means_multi_label


def wants_multi_label(
    images: str | os.PathLike[str] | Labelled, labels: Sequence[object] | None, told: bool | None
) -> bool:
    """Return whether a picture may have several labels: by the file, see ``means_multi_label``, or by labels
    that are collections of names."""
    if is_path(images):
        return means_multi_label(os.fspath(images), told)
    if told is not None:
        return told
    if labels is None:
        labels = list(images["label"]) if "label" in getattr(images, "columns", ()) else []  # type: ignore[index]
    return any(is_collection(label) for label in labels)


def is_collection(label: object) -> bool:
    return isinstance(label, (set, frozenset, list, tuple))


def write_images(
    images: Labelled, labels: Sequence[object] | None, folder: str, multi_label: bool
) -> str:
    """Make a file that names images and their labels, see ``write_table``; return it.

    Raises:
        UserError: there are no labels, or one is no name or, of a multi-label run, no set of names.
    """
    pictures, given = pictures_and_labels(images, labels)
    cells = []
    for number, label in enumerate(given):
        names = names_of(label, number, multi_label)
        cells.append(BETWEEN.join(names) or BETWEEN if multi_label else names[0])
    return write_table(pictures, cells, folder)


def names_of(label: object, number: int, multi_label: bool) -> tuple[str, ...]:
    """Return the names of the labels of the image of that number, sorted.

    Raises:
        UserError: it is no name or, of a multi-label run, no set of names.
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
        UserError: see ``write_images``; or there are more of one than of the other.
    """
    pictures, given = pictures_and_labels(images, labels)
    if len(pictures) != len(given):
        raise UserError(
            f"there are {len(pictures)} images and {len(given)} labels: give one for each"
        )
    names = [names_of(label, number, multi_label) for number, label in enumerate(given)]
    return pictures, names
