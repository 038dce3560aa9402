"""Files and folders that name several labels per picture: which of K labels each of N pictures has.

- A CSV file with the columns ``image`` and ``label``, whose cells hold names with ``;`` between them,
  ``dog;ball``, and nothing, or ``;`` alone, for "none of them"; or with ``image`` and a column of 0 and 1 per label. A
  column ``group`` may say which pictures belong together. A picture may have several rows.
- Label Studio's JSON export of choices of which several may be taken.
- COCO's ``instances_*.json``: a picture has the categories that occur in it.
- A folder of class folders, where a picture lies in the folder of each of its labels, as the same file,
  byte by byte.

Paths are taken as ``label_files`` takes them.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy

from trainers.common.console import first_few, printable
from trainers.common.errors import UserError
from trainers.common.files import file_hash
from trainers.common.fingerprints import listed_path
from trainers.common.readers import Stored, parse_json, read_text
from trainers.data.class_folders import image_files

from .label_files import (
    ANSWERED,
    CORRECTED,
    DELIMITERS,
    GROUP,
    NOT_CONFIRMED,
    Entry,
    address_of,
    choices_of,
    find,
    label_column,
    newest,
)
from .layouts import layout_of

BETWEEN = ";"  # names in a cell
MOST = 1000  # labels: time and memory grow with their number, and each needs pictures
YES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
NONE = BETWEEN  # a cell that says: none of them
IMAGE = "image"
LABEL = "label"
KNOWN = {
    IMAGE,
    LABEL,
    GROUP,
    CORRECTED,
    *ANSWERED,
}  # columns, in capitals or not; others are labels


class Row(NamedTuple):
    """What a file says of a picture.

    Attributes:
        where: in the file, for messages; image: its path or address, as the file has it.
        names: of its labels.
        group: of the pictures that it belongs to; "": none.
    """

    where: str
    image: str
    names: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class LabelSets:
    """Which labels pictures have.

    Attributes:
        paths: N absolute paths; classnames: the K names, sorted.
        truth: (N, K), bool.
        groups: N names of groups of pictures that belong together; "": a picture is alone.
    """

    paths: list[str]
    classnames: list[str]
    truth: numpy.ndarray
    groups: list[str]


def means_several(path: str, told: bool | None = None) -> bool:
    """Whether several labels per picture are meant.

    Args:
        told: what ``--several`` (True) or ``--one`` (False) says; None: nothing. Then a file decides by
            its form; a folder, and what can't be read, means one.
    """
    if told is not None:
        return told
    if not os.path.isfile(path):
        return False
    try:
        content = read_text(path)
        if is_json(content):
            tasks = parse_json(content)
            if isinstance(tasks, dict) or any(len(row.names) > 1 for row in in_tasks(tasks)):
                return True
            return any(map(predicts_several, tasks))
        table = table_of(content)
        labels = labels_of(table)
        if labels:
            first = next(table, {})
            return IMAGE in first and any(first[name].strip().lower() in YES for name in labels)
        # of answers also what a person has corrected: one label each may be left
        return any(BETWEEN in (row.get(name) or "") for row in table for name in (LABEL, CORRECTED))
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error):
        return False  # who reads it for one label says what is wrong


def predicts_several(task: Stored) -> bool:
    """Whether a run has predicted several labels of a task of Label Studio's, of which a person may have left
    one."""
    made = task.get("predictions") or ()
    return any(isinstance(note, dict) and len(choices_of(note)) > 1 for note in made)


def read_label_sets(path: str) -> LabelSets:
    """What a file, or a folder of class folders, says of its pictures, see the head of this file.

    Raises:
        UserError: it is none of these, an image is not there, a name can't be one, no picture or
            every picture has a label, or there are more than ``MOST`` labels.
    """
    if os.path.isdir(path):
        return gathered(in_folders(path), [], path)
    try:
        content = read_text(path)
        if not is_json(content):
            labels = labels_of(table_of(content))
            return gathered(located(in_table(content), path), labels, path)
        stored = parse_json(content)
        if isinstance(stored, dict):
            return gathered(located(in_coco(stored), path, find_coco), [], path)
        are_annotated = any(task.get("annotations") for task in stored)
        if not are_annotated and any(task.get("predictions") for task in stored):
            raise UserError(f"{path} {NOT_CONFIRMED}")
        return gathered(located(in_tasks(stored), path), [], path)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{path} does not say which labels its pictures have ({error}): give a CSV file with the columns image and "
            "label (dog;ball), or image and a column of 0 and 1 per label, Label Studio's JSON export, or COCO's "
            "instances JSON"
        ) from error


def is_json(content: str) -> bool:
    return content.lstrip().startswith(("[", "{"))


# ---- what each form says ----


def table_of(content: str) -> "csv.DictReader[str]":
    """The rows of a CSV file; columns that are known have small letters."""
    lines = io.StringIO(content, newline="")  # a line may end in \r alone
    head = lines.readline()
    lines.seek(0)
    rows = csv.DictReader(lines, delimiter=max(DELIMITERS, key=head.count))
    names = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = [name.lower() if name.lower() in KNOWN else name for name in names]
    return rows


def labels_of(table: "csv.DictReader[str]") -> list[str]:
    """The columns of 0 and 1 of a table; none where it has a column ``label``."""
    columns = table.fieldnames or ()
    return [] if LABEL in columns else [name for name in columns if name not in KNOWN]


def in_table(content: str) -> Iterator[Row]:
    """The rows of a CSV file.

    Raises:
        ValueError: it lacks a column, or a cell holds something else; UserError: it holds a run's
            answers.
    """
    table = table_of(content)
    columns = table.fieldnames or ()
    labels = labels_of(table)
    if IMAGE not in columns or not (LABEL in columns or labels):
        raise ValueError("it has no column image, or none of labels")
    column = label_column(columns)
    for row in table:
        where = f"line {table.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{where} has more or fewer cells than the first")
        group = row.get(GROUP, "").strip()
        if labels:
            for name in labels:
                if row[name].strip().lower() not in YES:
                    raise ValueError(f"{where} has {row[name]!r} for {name!r}, which is 0 or 1")
            names = [name for name in labels if YES[row[name].strip().lower()]]
            yield Row(where, row[IMAGE], tuple(names), group)
            continue
        cell = row[column].strip()
        if column == CORRECTED and not cell:
            continue  # nobody has looked at it
        names = [] if cell in ("", NONE) else [name.strip() for name in cell.split(BETWEEN)]
        if "" in names:
            raise ValueError(f"{where} has {cell!r}, in which a name is missing beside a ;")
        yield Row(where, row[IMAGE], tuple(names), group)


def in_tasks(tasks: Stored) -> Iterator[Row]:
    """The images of an export of Label Studio's that somebody has looked at, and the choices of each
    one's newest annotation.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no such export.
    """
    for number, task in enumerate(tasks, 1):
        where = f"task {task.get('id', number)}"
        made = [note for note in task.get("annotations") or () if not note.get("was_cancelled")]
        if not made:
            continue
        try:
            image = address_of(task["data"])
        except ValueError as error:
            raise ValueError(f"{where} has {error}") from error
        chosen = choices_of(made[newest(made)])
        yield Row(where, image, tuple(name.strip() for name in chosen))


def in_coco(content: Mapping[str, Stored]) -> Iterator[Row]:
    """The images of COCO's JSON, with the categories that occur in each.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no such file.
    """
    names = {category["id"]: category["name"].strip() for category in content["categories"]}
    found: dict[object, list[str]] = {image["id"]: [] for image in content["images"]}
    for note in content["annotations"]:
        for key, known in (("category_id", names), ("image_id", found)):
            if note[key] not in known:
                raise ValueError(f"annotation {note.get('id')} has an unknown {key}")
        found[note["image_id"]].append(names[note["category_id"]])
    for image in content["images"]:
        yield Row(f"image {image['id']}", image["file_name"], tuple(found[image["id"]]))


def in_folders(folder: str) -> Iterator[Row]:
    """The pictures of class folders, each as often as there is a file of its bytes.

    Raises:
        UserError: there are no class folders, or they are divided into parts.
    """
    layout = layout_of(folder)
    if not layout.whole:
        raise UserError(
            f"{folder} is divided into {first_few(sorted(layout.parts))}: give the folder of class folders itself, all "
            "pictures of several labels are trained on, and tested in folds"
        )
    first: dict[str, str] = {}
    for name, paths in image_files(layout.whole, may_be_empty=True).items():
        for path in paths:
            same = first.setdefault(file_hash(path), os.path.abspath(path))
            yield Row(path, same, (name,))


# ---- what they have in common ----


def located(
    rows: Iterable[Row], path: str, locate: Callable[[Entry, str, str], str] = find
) -> Iterator[Row]:
    """The rows of a file with the paths of their images; locate: see ``label_files.find``.

    Raises:
        UserError: there is no such image.
    """
    folder = os.path.dirname(os.path.abspath(path))
    for row in rows:
        names = BETWEEN.join(row.names) or "none of the labels"
        yield row._replace(image=locate(Entry(row.where, row.image, names), folder, path))


def find_coco(entry: Entry, folder: str, path: str) -> str:
    """See ``label_files.find``; COCO's images lie in a folder beside that of the file, too, which is
    called by its part: ``annotations/instances_val2017.json`` and ``val2017/``."""
    part = Path(path).stem.removeprefix("instances_")
    for beside in (part, f"../{part}", "images", "../images"):
        name = os.path.join(beside, entry.image)
        if os.path.isfile(os.path.join(folder, name)):
            return listed_path(folder, name)
    return find(entry, folder, path)


def gathered(rows: Iterable[Row], labels: Sequence[str], path: str) -> LabelSets:
    """The pictures of all rows, each with all labels that a row gives it.

    labels: that are there by name, whether or not a row has them.

    Raises:
        UserError: see ``read_label_sets``.
    """
    for name in labels:
        check_name(name, f"{path}, line 1")
    names: dict[str, set[str]] = {}
    groups: dict[str, str] = {}
    for row in rows:
        for name in row.names:
            check_name(name, f"{path}, {row.where}")
        names.setdefault(row.image, set()).update(row.names)
        groups[row.image] = row.group or groups.get(row.image, "")
    classnames = sorted({*labels}.union(*names.values()))
    if not names:
        raise UserError(f"{path} has no labelled picture: label some first")
    if not classnames:
        raise UserError(f"{path} gives no picture a label: label some first")
    if len(classnames) > MOST:
        raise UserError(
            f"{path} has {len(classnames)} labels, such as {first_few(classnames)}: give at most {MOST}"
        )
    truth = numpy.array([[name in own for name in classnames] for own in names.values()])
    check_occurring(truth, classnames, path)
    return LabelSets([*names], classnames, truth, [*groups.values()])


def check_name(name: str, where: str) -> None:
    """
    Raises:
        UserError: it can't be the name of a label.
    """
    if BETWEEN in name:
        raise UserError(
            f"{where}: the label {name!r} has a ;, which stands between names: rename it"
        )
    if not name.strip() or printable(name) != name:
        raise UserError(f"{where}: the label {name!r} is not a name: give a text of one line")


def check_occurring(truth: numpy.ndarray, classnames: Sequence[str], path: str) -> None:
    """
    Raises:
        UserError: no picture has a label, or every picture has it.
    """
    for count, what in ((0, "no picture has"), (len(truth), "every picture has")):
        odd = [name for name, number in zip(classnames, truth.sum(axis=0)) if number == count]
        if odd:
            raise UserError(
                f"{path}: {what} the label {first_few(odd)}: add others, or leave the label out"
            )
