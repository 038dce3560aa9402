"""``PromptedClassifier.fit`` where pictures have several labels."""

import os
from collections.abc import Mapping, Sequence

from trainers.common.errors import UserError
from trainers.data.random_state import restore_rng_state, rng_state

from ..folders.label_sets import BETWEEN, check_name, means_several
from ..folders.pictures import Labelled, is_path, pictures_and_labels, write_table
from ..request import Text, ask, text
from .classifier import SeveralClassifier
from .fit import fit_several


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
            pictures, sets = pictures_and_labels(images, labels)
            file = write_table(pictures, cells_of(sets), f"{os.path.normpath(place)}-images")
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
