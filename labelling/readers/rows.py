"""Rows of a folder or a file that says which labels pictures have, whatever its form.

Paths are taken from the file's own folder or, if there is no such file, from the working folder. They
may lead out of it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import parse_qs

from trainers.common.boxes import file_of
from trainers.common.console import counted, first_few, printable
from trainers.common.errors import UserError
from trainers.common.fingerprints import listed_path
from trainers.common.readers import Stored

LOCAL = "/data/local-files/"  # of the addresses that Label Studio gives to files of its own machine
UPLOADED = "/data/upload/"  # of those that were uploaded, whose names it has put a mark before
BETWEEN = ";"  # names in a cell
EACH_BOX = "It has boxes: with --boxes each of them is a picture of its own"
NO_PIXEL = "no pixel of the photograph lies in them"
WHOLE = "whole"  # part of pictures that are to be divided


class Row(NamedTuple):
    """One row: a picture and its labels.

    Attributes:
        where: it is said, as in ``line 3``.
        image: its path or address; after ``with_paths`` its path.
        names: of its labels; None: nobody has looked at it.
        group: name of the group of pictures that it belongs to; "": none.
        part: ``train``, ``val`` or ``test`` where the user has divided the pictures, else ``WHOLE``.
        time: when a person said it; None: it is not known.
        asked_with: probability in (0, 1] with which a program asked for the picture; None: it is not known.
        entry: of a box COCO's annotation, or Label Studio's ``Rectangle``, so that an answer can stand in its place.
    """

    where: str
    image: str
    names: tuple[str, ...] | None
    group: str = ""
    part: str = WHOLE
    time: datetime | None = None
    asked_with: float | None = None
    entry: Stored = None


@dataclass
class Source:
    """The content of a folder or a file.

    Attributes:
        rows: one or more per picture.
        labels: names of labels, whether or not a picture has them.
        notes: remarks for a reader of a run's numbers; warnings: likewise, on possible mistakes.
        is_row_per_label: whether rows of one label each may stand for the labels of one picture.
        is_chosen: whether a test shows that the labelled pictures were chosen by how certain their answers were.
    """

    rows: list[Row]
    labels: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_row_per_label: bool = False
    is_chosen: bool = False


Find = Callable[
    [Row, str, str], str
]  # a row, the folder of its file and the file → its image's path


def with_paths(rows: Iterable[Row], path: str, locate: Find) -> Iterator[Row]:
    """Yield the rows of a file with the paths of their images.

    Raises:
        UserError: as ``find``.
    """
    folder = os.path.dirname(os.path.abspath(path))
    for row in rows:
        yield row._replace(image=locate(row, folder, path))


def find(row: Row, folder: str, path: str) -> str:
    """Return the file that a row means, marked as ``listed_path`` does; folder, path: of the file that has
    the row.

    Raises:
        UserError: there is none, or the row has no name, or a label that is no text of one line.
    """
    where = f"{path}, {row.where},"
    named = f" ({labels_in_words(row)})" if row.names is not None else ""
    for name in row.names or ():
        if printable(name) != name:
            raise UserError(f"{where} has the label {name!a}: give a text of one line")
    if not row.image:
        raise UserError(f"{where} names no image{named}: write its path")
    names = names_of(row.image)
    places = [listed_path(place, name) for place in (folder, os.getcwd()) for name in names]
    for place in places:
        if os.path.isfile(file_of(place)):
            return place
    raise UserError(
        f"{where} names {row.image!r}{named}, and there is no file {os.path.abspath(places[0])}: put the image "
        "there, or write its path"
    )


def left_out_because(reason: str, places: Sequence[str]) -> list[str]:
    """Return a note on rectangles that are left out, in a list; none without such rectangles.

    places: where each is said.
    """
    if not places:
        return []
    return [f"Left out, since {reason}: {counted(len(places), 'rectangle')} ({first_few(places)})"]


def labels_in_words(row: Row) -> str:
    """Return the labels of a row in words."""
    return BETWEEN.join(row.names or ()) or "no label"


def names_of(image: str) -> list[str]:
    """Return the names that a file can have that an image's path, or an address of Label Studio's, means."""
    if image.startswith(UPLOADED):
        name = image.partition("?")[0].rpartition("/")[2]
        return [name, name.partition("-")[2]]  # an uploaded file's mark ends at the first hyphen
    if LOCAL in image:
        return parse_qs(image.partition("?")[2]).get("d", [""])
    return [image]
