"""One's own pictures and their labels as a table, read from a folder or a file before any picture is opened.

- A folder of class folders, or of ``train``, ``test`` and perhaps ``val`` with class folders, see
  ``readers.class_folders``; where a picture may have several labels, it lies in the folder of each, as the
  same file, byte by byte.
- A CSV file (``readers.csv_table``); Label Studio's JSON export; COCO's ``instances_*.json``.
- Several of these: what a file says of a picture corrects what class folders and earlier files say.

Two rows of one picture become one here.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy

from trainers.common.boxes import box_of, file_of, real_path
from trainers.common.console import counted, first_few, printable
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name, roots_in
from trainers.common.image_files import is_image, left_out
from trainers.common.readers import parse_json, read_text

from .readers import coco, csv_table, label_studio
from .readers.class_folders import read_class_folders
from .readers.rows import BETWEEN, WHOLE, Find, Row, Source, find, labels_in_words, with_paths
from .readers.sources import in_one

MOST_LABELS = (
    1000  # of multi-label pictures: time and memory grow with them, and each needs pictures
)


@dataclass(frozen=True)
class Table:
    """N pictures and which of K labels each has.

    Attributes:
        place: the folder or the file that was read; the first of several.
        paths: N, each once, in an order that does not depend on the order of a file's rows.
        labels: N tuples of indices of ``classnames``, ascending; with one label per picture each has one.
        classnames: K names, in the order of the labels.
        folders: K names of class folders; the same as ``classnames`` where nothing renames them.
        parts: N, ``train``, ``val`` or ``test`` if the user has divided the pictures, else ``WHOLE``.
        groups: path → name of the group of pictures that are not independent, where it is said.
        notes: remarks for a reader of a run's numbers; warnings: likewise, on possible mistakes.
        asked_with: path → probability with which a program asked for the picture, where it is known.
        is_chosen: whether a test shows that these pictures were chosen by how certain their answers were.
    """

    place: str
    paths: list[str]
    labels: list[tuple[int, ...]]
    classnames: list[str]
    folders: list[str]
    parts: list[str]
    groups: Mapping[str, str]
    notes: list[str]
    warnings: list[str]
    asked_with: Mapping[str, float] = field(default_factory=dict)
    is_chosen: bool = False

    @property
    def truth(self) -> numpy.ndarray:
        """The labels (N, K) of the pictures, bool."""
        truth = numpy.zeros((len(self.paths), len(self.classnames)), bool)
        for row, own in zip(truth, self.labels):
            row[[*own]] = True
        return truth

    @property
    def is_divided(self) -> bool:
        """Whether the user has divided the pictures."""
        return any(part != WHOLE for part in self.parts)

    def having(self, places: Sequence[int]) -> "Table":
        """Return the table of some of the pictures, which are given by their places."""
        return replace(
            self,
            paths=[self.paths[place] for place in places],
            labels=[self.labels[place] for place in places],
            parts=[self.parts[place] for place in places],
        )

    def without(self, left_out: Sequence[int]) -> "Table":
        """Return the table without some of the labels, which are given by their places; pictures stay."""
        kept = [label for label in range(len(self.classnames)) if label not in {*left_out}]
        place = {label: number for number, label in enumerate(kept)}
        labels = []
        for own in self.labels:
            labels.append(tuple(place[one] for one in own if one in place))
        return replace(
            self,
            labels=labels,
            classnames=[self.classnames[label] for label in kept],
            folders=[self.folders[label] for label in kept],
        )


def means_multi_label(path: str, told: bool | None = None, boxes: bool = False) -> bool:
    """Return whether pictures may have several labels, as one of the folders and files of a root says.

    Args:
        boxes: whether each box is a picture, which has one label unless something else is told.
        told: what ``--multi-label`` (True) or ``--single-label`` (False) says; None: nothing. Then a file
            decides by its form; a folder, and what can't be read, means one label.
    """
    if told is not None or boxes:
        return bool(told)
    return any(file_means_multi_label(one) for one in roots_in(path))


def file_means_multi_label(path: str) -> bool:
    """Return whether a file gives a picture several labels (``means_multi_label``)."""
    if not os.path.isfile(path):
        return False
    try:
        content = read_text(path)
        if not is_json(content):
            return csv_table.looks_multi_label(content)
        stored = parse_json(content)
        return isinstance(stored, dict) or label_studio.looks_multi_label(stored)
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error):
        return False  # its reader names the mistake


def is_json(content: str) -> bool:
    return content.lstrip().startswith(("[", "{"))


def read_table(root: str, multi_label: bool, boxes: bool = False) -> Table:
    """Return the pictures of a folder or a file, or of several, and their labels.

    Args:
        root: as in ``joined_roots``.
        boxes: whether each box of a file is a picture; the boxes of a photograph are a group.

    Raises:
        UserError: it is none of the forms at the head of this module, an image is not there, rows of
            one folder or file contradict each other, a name can't be one, or no picture has a label.
    """
    places = roots_in(root)
    sources = []
    names: Mapping[str, str] = {}
    for place in places:
        source, names = read_source(place, multi_label, boxes)
        check_labels(source, place, multi_label)
        sources.append(source)
        if len(places) > 1:
            sources[-1] = in_class_names(source, names)
    if len(places) > 1:
        names = {}
    source = in_one(sources, places)
    check_labels(source, places[0], multi_label)
    return table_of(source, places[0], names)


def read_source(place: str, multi_label: bool, boxes: bool) -> tuple[Source, Mapping[str, str]]:
    """Read a folder or a file, each picture once, and class folder → class name where they may
    differ."""
    if not os.path.isfile(place):
        source, names = read_class_folders(place, multi_label)
        return settle(source, place, multi_label), names
    source = settle(read_file(place, multi_label, boxes), place, multi_label)
    source.notes.extend(notes_on_places(source, place))
    return source, {}


def in_class_names(source: Source, names: Mapping[str, str]) -> Source:
    """Return a source whose labels are class names, and not those of class folders."""
    rows = []
    for row in source.rows:
        own = tuple(names.get(name, name) for name in row.names or ())
        rows.append(row._replace(names=own))
    return replace(source, rows=rows)


def read_file(path: str, multi_label: bool, boxes: bool) -> Source:
    """Read a file, with the paths of its images.

    Raises:
        UserError: as ``read_table``.
    """
    source, locate = parse_file(path, multi_label, boxes)
    seen = [row for row in source.rows if row.names or (multi_label and row.names is not None)]
    for row in seen:
        if not multi_label and len(row.names or ()) > 1:
            raise UserError(
                f"{path}, {row.where} has {counted(len(row.names or ()), 'label')}: keep one, or say --multi-label"
            )
    if unseen := len(source.rows) - len(seen):
        source.notes.append(f"Left out of {path}: {counted(unseen, 'image')} without a label")
    return replace(source, rows=[*with_paths(seen, path, locate)])


def boxes_in(path: str) -> Source:
    """Return the boxes of a file, whether they have labels or not: a row for each, as the file has them.

    Raises:
        UserError: it has none, or as ``read_table``.
    """
    source, locate = parse_file(path, multi_label=True, boxes=True)
    rows = []
    for row in with_paths(source.rows, path, locate):
        if box_of(row.image) is not None:
            rows.append(row._replace(image=os.path.normpath(row.image)))
    if not rows:
        raise UserError(f"{path} has no boxes: leave out --boxes")
    return replace(source, rows=rows)


def parse_file(path: str, multi_label: bool, boxes: bool) -> tuple[Source, Find]:
    """Read a file, and choose how its images are found.

    Raises:
        UserError: it has none of the forms at the head of this module.
    """
    try:
        content = read_text(path)
        if not is_json(content):
            return csv_table.read_csv(content, multi_label), find
        stored = parse_json(content)
        if boxes and isinstance(stored, list) and any("bbox" in entry for entry in stored):
            raise UserError(
                "is a list of COCO's results, which name no files: write it as the annotations of a file with images "
                "and categories"
            )
        if isinstance(stored, dict) and (multi_label or boxes):
            source = coco.read_coco_boxes(stored) if boxes else coco.read_coco(stored)
            return source, coco.find_coco
        read = label_studio.read_rectangles if boxes else label_studio.read_tasks
        return read(stored), find
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{path} is no folder, and names no labelled images ({error}): give a folder of class folders (unpack an "
            "archive first), a CSV file with the columns image and label (dog;ball where there are several), or image "
            "and a column of 0 and 1 per label, saved as UTF-8 (in Excel: CSV UTF-8), Label Studio's JSON export, or "
            "COCO's instances JSON"
        ) from error


# ---- several rows of one picture ----


def settle(source: Source, place: str, multi_label: bool) -> Source:
    """Join the rows of a folder or a file, so that each picture is there once.

    Raises:
        UserError: as ``read_table``.
    """
    for name in source.labels:
        check_name(name, f"{place}, line 1", multi_label)
    first: dict[str, Row] = {}
    is_file = os.path.isfile(place)
    for row in source.rows:
        for name in row.names or ():
            check_name(name, f"{place}, {row.where}", multi_label)
        file = real_path(row.image) if is_file else row.image
        known = first.get(file)
        first[file] = row if known is None else join_rows(known, row, source, place, multi_label)
    rows = [*first.values()]
    if is_file:
        rows.sort(key=lambda row: row.image)
    notes = [*source.notes]
    more = len(source.rows) - len(rows)
    if is_file and more and not (multi_label and source.is_row_per_label):
        notes.append(f"Named more than once in {place}, and taken once: {counted(more, 'image')}")
    return replace(source, rows=rows, notes=notes)


def table_of(source: Source, place: str, names: Mapping[str, str]) -> Table:
    """Return the pictures of a source, each of which it has once; names: class folder → class name, where
    they differ."""
    folders = labels_in(source)
    number = {name: label for label, name in enumerate(folders)}
    labels = []
    for row in source.rows:
        labels.append(tuple(sorted(number[name] for name in row.names or ())))
    return Table(
        place=place,
        paths=[row.image for row in source.rows],
        labels=labels,
        classnames=[names.get(name, name) for name in folders],
        folders=folders,
        parts=[row.part for row in source.rows],
        groups=groups_in(source.rows, place),
        notes=source.notes,
        warnings=source.warnings,
        asked_with={row.image: row.asked_with for row in source.rows if row.asked_with is not None},
        is_chosen=source.is_chosen,
    )


def groups_in(rows: Sequence[Row], place: str) -> dict[str, str]:
    """Return path → name of its group, where one is said; the boxes of a photograph are one group.

    Raises:
        UserError: boxes of one photograph have different groups.
    """
    groups = {row.image: row.group for row in rows if row.group}
    of_photograph: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: not row.group):
        if box_of(row.image) is None:
            continue
        file = file_of(row.image)
        group = row.group or image_name(file)
        known = of_photograph.setdefault(os.path.realpath(file), group)
        if row.group and row.group != known:
            raise UserError(
                f"{place}, {row.where}: {image_name(row.image)!r} is of the group {row.group}, and another box of "
                f"its photograph of {known}: give all boxes of a photograph one group"
            )
        groups[row.image] = known
    for row in rows if of_photograph else ():
        whole = of_photograph.get(os.path.realpath(row.image))
        if whole is not None:
            groups.setdefault(row.image, whole)
    return groups


def labels_in(source: Source) -> list[str]:
    """Return the labels of a source, sorted."""
    return sorted({*source.labels}.union(*(row.names or () for row in source.rows)))


def join_rows(known: Row, row: Row, source: Source, place: str, multi_label: bool) -> Row:
    """Join two rows of one picture.

    Raises:
        UserError: they contradict each other.
    """
    both = f"{image_name(row.image)!r}"
    if known.group and row.group and known.group != row.group:
        raise UserError(
            f"{place}, {row.where}: {both} is of the group {row.group}, and of {known.group} in {known.where}: keep one"
        )
    group = known.group or row.group
    names = {*known.names} if known.names else set()
    others = {*row.names} if row.names else set()
    if names == others:
        return known._replace(group=group)
    if not multi_label:
        raise UserError(
            f"{place}, {row.where}: {both} is {labels_in_words(row)}, and {labels_in_words(known)} in {known.where}: keep one, "
            "or say --multi-label if it has both"
        )
    if not source.is_row_per_label or not names or not others:
        raise UserError(
            f"{place}, {row.where}: {both} has {labels_in_words(row)}, and {labels_in_words(known)} in {known.where}: keep one of "
            "these rows"
        )
    return known._replace(names=tuple(sorted(names | others)), group=group)


def check_name(name: str, where: str, multi_label: bool) -> None:
    """Refuse a name that a label can't have.

    Raises:
        UserError: it is empty, no text of one line, or has the mark that stands between names.
    """
    if multi_label and BETWEEN in name:
        raise UserError(
            f"{where}: the label {name!r} has a {BETWEEN}, which stands between names: rename it"
        )
    if not name.strip() or printable(name) != name:
        raise UserError(f"{where}: the label {name!a} is not a name: give a text of one line")


def check_labels(source: Source, place: str, multi_label: bool) -> None:
    """Refuse pictures that tell no labels apart.

    Raises:
        UserError: there is no picture or label, or there are too many labels.
    """
    labels = labels_in(source)
    if not source.rows:
        raise UserError(f"{place} has no labelled image: label some first")
    if not labels:
        raise UserError(f"{place} gives no picture a label: label some first")
    if multi_label and len(labels) > MOST_LABELS:
        raise UserError(
            f"{place} has {len(labels)} labels, such as {first_few(labels)}: give at most {MOST_LABELS}"
        )


def check_occurring(truth: numpy.ndarray, classnames: Sequence[str], place: str) -> None:
    """Refuse labels that there is nothing to learn of.

    Args:
        truth: (N, K) bool; classnames: K names; place: where they are from.

    Raises:
        UserError: no picture has a label, or every picture has it.
    """
    for count, what in ((0, "no picture has"), (len(truth), "every picture has")):
        odd = [name for name, number in zip(classnames, truth.sum(axis=0)) if number == count]
        if odd:
            raise UserError(
                f"{place}: {what} the label {first_few(odd)}: add others, or leave the label out"
            )


# ---- remarks on a file for a reader ----


def notes_on_places(source: Source, place: str) -> list[str]:
    """Return notes on pictures of a file that lie outside of its folder, or move."""
    paths = [row.image for row in source.rows]
    notes = []
    inside = os.path.join(os.path.dirname(os.path.abspath(place)), "")
    if outside := sum(not os.path.abspath(path).startswith(inside) for path in paths):
        notes.append(f"{outside} of {len(paths)} images lie outside of the folder of {place}")
    if moving := left_out(filter(is_image, paths)):
        notes.append(moving)
    return notes
