"""What ``PromptedClassifier.fit`` takes where pictures have several labels."""

import os
from collections.abc import Sequence

from trainers.common.errors import UserError

from ..folders.label_sets import BETWEEN, check_name, means_several
from ..folders.pictures import Labelled, Picture, is_path, write_table
from ..request import Text


def wants_several(
    images: Text | Labelled, labels: Sequence[object] | None, told: bool | None
) -> bool:
    """Whether several labels per picture are meant: by the file, see ``means_several``, or by labels that
    are collections of names."""
    if is_path(images):
        return means_several(os.fspath(images), told)
    if told is not None:
        return told
    if labels is None:
        labels = list(images["label"]) if "label" in getattr(images, "columns", ()) else []  # type: ignore[index]
    return any(isinstance(label, (set, frozenset, list, tuple)) for label in labels)


def write_sets(images: Sequence[Picture], labels: Sequence[object], folder: str) -> str:
    """Makes a file that names images and their sets of labels, as ``read_label_sets`` reads it; see
    ``write_table``.

    Raises:
        UserError: a label is no set of names, or a name can't be one.
    """
    return write_table(images, cells_of(labels), folder)


def cells_of(labels: Sequence[object]) -> list[str]:
    """What a table has in its column of labels for each set of names.

    Raises:
        UserError: a label is no set of names.
    """
    cells = []
    for number, names in enumerate(labels):
        if isinstance(names, str) or not isinstance(names, (set, frozenset, list, tuple)):
            raise UserError(f"the labels of image {number} are {names!r}: give a set of names")
        for name in names:
            check_name(str(name), f"image {number}")
        cells.append(BETWEEN.join(sorted(map(str, names))))
    return cells
