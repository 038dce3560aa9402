"""Files that name images and their labels: Label Studio's JSON export, and a CSV file with the columns
``image`` and ``label``, and perhaps ``group``: whose it is, which film or which day, where pictures are
not independent of one another.

Paths are taken from the file's own folder or, if there is no such file, from the working folder. They
may lead out of it.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import parse_qs

from trainers.common.console import counted, printable
from trainers.common.errors import UserError
from trainers.common.fingerprints import listed_path
from trainers.common.readers import Stored, parse_json, read_text

LOCAL = "/data/local-files/"  # of the addresses that Label Studio gives to files of its own machine
UPLOADED = "/data/upload/"  # of those that were uploaded, whose names it has put a mark before
DELIMITERS = ",;\t"  # Excel's, in different countries, and of its Unicode text
ANSWERED = {"doubtful", "uncertainty"}  # columns that no table of predict.py --csv lacks
GROUP = "group"
NOT_CONFIRMED = "has predictions only, which are no labels: confirm or correct them in Label Studio, then export annotations (JSON)"
CORRECTED = "corrected"  # column of what a person says of such an answer


class Entry(NamedTuple):
    """An image and its label in a file.

    Attributes:
        where: in the file, as in ``line 3``.
        image: its path or address; label: "" for none.
        group: of the images that it belongs to; "": none.
    """

    where: str
    image: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class LabelFile:
    """The N images that a file names, without those that have no label.

    Attributes:
        paths: N paths, each once, marked by ``fingerprints.LISTED``.
        labels: N names.
        groups: path → the name of its group, of images that have one.
        notes: what a reader of a run's numbers has to know of the file.
    """

    paths: list[str]
    labels: list[str]
    groups: dict[str, str]
    notes: list[str]


def read_labels(path: str) -> LabelFile:
    """The images that a file names, and their labels.

    Raises:
        UserError: it is neither kind of file, or holds a run's own answers; no image is labelled; or
            an image is not there, or has two labels.
    """
    try:
        content = read_text(path)
        is_export = content.lstrip().startswith(("[", "{"))
        notes: list[str] = []
        entries = in_export(parse_json(content), notes) if is_export else in_table(content)
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is no folder, and names no labelled images ({error}): give a folder of class folders (unpack an "
            "archive first), a CSV file with the columns image and label, saved as UTF-8 (in Excel: CSV UTF-8), or "
            "Label Studio's JSON export"
        ) from error
    named = [entry for entry in entries if entry.label]
    if not named:
        raise UserError(f"{path} has no labelled image: label some first")
    folder = os.path.dirname(os.path.abspath(path))
    first: dict[str, Entry] = {}
    for entry in named:
        place = find(entry, folder, path)
        known = first.setdefault(place, entry)
        if known.label != entry.label:
            raise UserError(
                f"{path}, {entry.where}: {entry.image!r} is {entry.label}, and {known.label} in {known.where}: keep one, or say --several if it has both"
            )
    if without := len(entries) - len(named):
        notes.append(f"Left out of {path}: {counted(without, 'image')} without a label")
    if more := len(named) - len(first):
        notes.append(f"Named more than once in {path}, and taken once: {counted(more, 'image')}")
    inside = os.path.join(folder, "")
    if outside := sum(not os.path.abspath(place).startswith(inside) for place in first):
        notes.append(f"{outside} of {len(first)} images lie outside of the folder of {path}")
    groups = {place: entry.group for place, entry in first.items() if entry.group}
    return LabelFile([*first], [entry.label for entry in first.values()], groups, notes)


# ---- tables ----


def in_table(content: str) -> list[Entry]:
    """The rows of a CSV file.

    Raises:
        ValueError, csv.Error: it lacks a column, or is damaged; UserError: it holds a run's answers.
    """
    lines = io.StringIO(content, newline="")  # a line may end in \r alone
    head = lines.readline()
    lines.seek(0)
    rows = csv.DictReader(lines, delimiter=max(DELIMITERS, key=head.count))
    columns = [name.strip().lower() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    if missing := {"image", "label"} - {*columns}:
        raise ValueError(f"it has no column {min(missing)}")
    label = label_column(columns)
    entries = []
    try:
        for row in rows:
            name = (row[label] or "").strip()
            if row["image"] or name:
                group = (row.get(GROUP) or "").strip()
                entries.append(Entry(f"line {rows.line_num}", row["image"] or "", name, group))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1}: {error}") from error
    return entries


def label_column(columns: Sequence[str]) -> str:
    """The column of the labels; in a table of answers, the one that a person fills in.

    Raises:
        UserError: it has nothing but answers.
    """
    if not {*columns} >= ANSWERED:
        return "label"
    if CORRECTED not in columns:
        raise UserError(
            f"holds a run's own answers (columns {' and '.join(sorted(ANSWERED))}), which are no labels: look at them, and "
            f"write the right label of each image that you have seen into a column {CORRECTED}, or keep only the columns "
            "image and label of these"
        )
    return CORRECTED


# ---- Label Studio ----


def in_export(tasks: Stored, notes: list[str]) -> list[Entry]:
    """The images of an export of Label Studio's, with the choice of each one's newest annotation.

    notes: gets a line where annotations differ.

    Raises:
        ValueError: it is no such export, or an image has more than one choice; UserError: it has
            predictions only.
    """
    if not isinstance(tasks, list):
        raise ValueError("it is no list of tasks")
    entries = []
    annotated = []
    predicted = []
    differing = []
    for number, task in enumerate(tasks, 1):
        where = f"task {number}"
        try:
            where = f"task {task.get('id', number)}"
            given = task.get("annotations") or ()
            made = [note for note in given if not note.get("was_cancelled")]
            choices = [choices_of(note) for note in made]
            chosen = choices[newest(made)] if made else ()
            if len(chosen) > 1:
                raise ValueError(counted(len(chosen), "choice"))
            name = chosen[0].strip() if chosen else ""
            entries.append(Entry(where, address_of(task["data"]), name))
            if made:
                annotated.append(where)
            if task.get("predictions"):
                predicted.append(where)
            if len({*choices}) > 1:
                differing.append(where)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} is of another form: {error!r}") from error
        except ValueError as error:
            raise ValueError(f"{where} has {error}") from error
    if predicted and not annotated:
        raise UserError(NOT_CONFIRMED)
    if differing:
        notes.append(
            f"The annotations of {counted(len(differing), 'task')} differ, such as {differing[0]}: of each the newest "
            "is taken"
        )
    return entries


def address_of(data: Stored) -> str:
    """The address of a task's image.

    Raises:
        ValueError: it has none, or several.
    """
    if "image" not in data:
        addresses: list[str] = [value for value in data.values() if is_address(value)]
        if len(addresses) != 1:
            raise ValueError(counted(len(addresses), "image"))
        return addresses[0]
    image = data["image"]
    if not isinstance(image, str):
        raise ValueError(f"the image {image!r}, which is no path")
    return image


def is_address(value: object) -> bool:
    """Whether a task's value can be an image's address: others are texts and numbers about it."""
    return isinstance(value, str) and ("/" in value or "." in value)


def choices_of(annotation: Stored) -> tuple[str, ...]:
    """The choices of an annotation."""
    choices: list[str] = []
    for result in annotation["result"]:
        if result["type"] == "choices":
            choices += result["value"]["choices"]
    return tuple(choices)


def newest(annotations: Sequence[Stored]) -> int:
    """The place of the annotation that was changed, or else made, last; the last one where that is not
    known of each."""
    last = len(annotations) - 1
    times = [time_of(annotation) for annotation in annotations]
    known = [(time, place) for place, time in enumerate(times) if time is not None]
    return max(known)[1] if len(known) == len(times) else last


def time_of(annotation: Stored) -> datetime | None:
    """When an annotation was changed, or else made; None where it doesn't say."""
    text = annotation.get("updated_at") or annotation.get("created_at")
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


# ---- files ----


def find(entry: Entry, folder: str, path: str) -> str:
    """The file that an entry means, marked as ``listed_path`` does; folder, path: of the file that has
    the entry.

    Raises:
        UserError: there is none, or the entry has no name.
    """
    where = f"{path}, {entry.where},"
    if printable(entry.label) != entry.label:
        raise UserError(f"{where} has the label {entry.label!a}: give a text of one line")
    if not entry.image:
        raise UserError(f"{where} names no image ({entry.label}): write its path")
    names = names_of(entry.image)
    places = [listed_path(place, name) for place in (folder, os.getcwd()) for name in names]
    for place in places:
        if os.path.isfile(place):
            return place
    raise UserError(
        f"{where} names {entry.image!r} ({entry.label}), and there is no file {os.path.abspath(places[0])}: put the image "
        "there, or write its path"
    )


def names_of(image: str) -> list[str]:
    """The names that a file can have that an image's path, or an address of Label Studio's, means."""
    if image.startswith(UPLOADED):
        name = image.partition("?")[0].rpartition("/")[2]
        return [name, name.partition("-")[2]]  # an uploaded file's mark ends at the first hyphen
    if LOCAL in image:
        return parse_qs(image.partition("?")[2]).get("d", [""])
    return [image]
