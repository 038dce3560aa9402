"""``PromptedClassifier.fit`` where pictures have several labels."""

import csv
import io
import os
from collections.abc import Mapping, Sequence

from trainers.common.errors import UserError
from trainers.common.files import write_text
from trainers.data.random_state import restore_rng_state, rng_state

from ..folders.label_sets import BETWEEN, check_name, means_several
from ..folders.pictures import Labelled, Picture, is_path, pictures_and_labels, place_of
from ..request import Text, ask, text
from .classifier import SeveralClassifier
from .fit import fit_several

TABLE = "labels.csv"  # in a folder of pictures that came without files


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


def fit_in_python(
    images: Text | Labelled,
    labels: Sequence[object] | None,
    *,
    trainer: str | None,
    backbone: Text | None,
    folder: Text | None,
    recipe: Text | None,
    shots: int,
    seed: int,
    settings: Mapping[str, object] | None,
) -> SeveralClassifier:
    """The classifier that is trained; arguments: see ``PromptedClassifier.fit``.

    Raises:
        UserError: the input can't work.
    """
    state = rng_state()
    try:
        if is_path(images):
            file = os.fspath(images)
            place = text("the output folder", folder)
        else:
            place = text("the output folder", folder) or os.path.join("output", "fit")
            file = write_table(
                *pictures_and_labels(images, labels), f"{os.path.normpath(place)}-images"
            )
        asked = ask(
            file,
            trainer=trainer,
            backbone=backbone,
            recipe=recipe,
            folder=place,
            shots=shots,
            seed=seed,
            settings=settings,
        )
        fit_several(asked)
        return SeveralClassifier.load(asked.folder)
    finally:
        restore_rng_state(state)


def write_table(pictures: Sequence[Picture], labels: Sequence[object], folder: str) -> str:
    """Writes a CSV file that names pictures and their sets of labels, and pictures that are no files
    beside it; returns its path.

    Raises:
        UserError: there are not as many labels as pictures, or a label is no set of names.
    """
    if len(pictures) != len(labels):
        raise UserError(
            f"there are {len(pictures)} images and {len(labels)} labels: give a set of names for each"
        )
    rows = []
    os.makedirs(folder, exist_ok=True)
    for number, (picture, names) in enumerate(zip(pictures, labels)):
        if isinstance(names, str) or not isinstance(names, (set, frozenset, list, tuple)):
            raise UserError(f"the labels of image {number} are {names!r}: give a set of names")
        for name in names:
            check_name(str(name), f"image {number}")
        path = place_of(picture, f"{number:06d}.png", folder)
        rows.append((path, BETWEEN.join(sorted(map(str, names)))))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("image", "label"), *rows])
    write_text(f"{folder}/{TABLE}", table.getvalue())
    return f"{folder}/{TABLE}"
