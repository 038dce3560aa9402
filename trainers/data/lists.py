"""Lists of images: an image of a list, and the choice of classes."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..common.errors import UserError, raise_machines
from ..common.readers import read_text

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
    """Name a file that lists images or classes, and the next step, if it can't be read in the
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


def read_lines(path: str) -> list[str]:
    """Lines of a text file without the blank ones, and without space around them; raises what
    ``read_text`` does."""
    return [line for line in map(str.strip, read_text(path).splitlines()) if line]


def subsample_classes(*sources: list[Image], subsample: str) -> tuple[list[Image], ...]:
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
    chosen = []
    for source in sources:
        of_kept = [item for item in source if item.label in new]
        chosen.append([item._replace(label=new[item.label]) for item in of_kept])
    return tuple(chosen)


def classnames_of(images: Sequence[Image]) -> list[str]:
    """The names of the classes in the order of their labels."""
    names = {image.label: image.classname for image in images}
    return [names[label] for label in sorted(names)]
