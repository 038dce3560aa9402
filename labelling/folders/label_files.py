"""Files that name images and their labels: Label Studio's JSON export, and a CSV file with the columns
``image`` and ``label``, such as ``predict.py --csv`` writes.

Paths are taken from the file's own folder or, if there is no such file, from the working folder.
"""

import csv
import io
import logging
import os
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.readers import Stored, parse_json, read_text

log = logging.getLogger(__name__)
LOCAL = "/data/local-files/"  # of the addresses that Label Studio gives to files of its own machine
UPLOADED = "/data/upload/"  # of those that were uploaded, whose names it has put a mark before

Named = tuple[str, str]  # an image, as the file has it, and its label, "" for none


def read_labels(path: str) -> tuple[list[str], list[str]]:
    """Paths of N images, and their N labels; images without a label are left out.

    Raises:
        UserError: it is neither kind of file, no image is labelled, or an image is not there.
    """
    content = read_text(path)
    is_json = content.lstrip().startswith(("[", "{"))
    try:
        pairs = list(in_export(parse_json(content)) if is_json else in_table(content))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no folder, and names no labelled images ({error}): give a folder of class "
            "folders, a CSV file with the columns image and label, or Label Studio's JSON export"
        ) from error
    labelled = [(find(image, os.path.dirname(path), path), name) for image, name in pairs if name]
    if not labelled:
        raise UserError(f"{path} has no labelled image: label some first")
    if without := len(pairs) - len(labelled):
        log.info("Left out of %s: %s without a label", path, counted(without, "image"))
    return [image for image, _ in labelled], [name for _, name in labelled]


def in_table(content: str) -> Iterator[Named]:
    """The images of a CSV file, and their labels.

    Raises:
        ValueError: it lacks a column.
    """
    rows = csv.DictReader(io.StringIO(content))
    if missing := {"image", "label"} - {*(rows.fieldnames or ())}:
        raise ValueError(f"it has no column {min(missing)}")
    for row in rows:
        yield row["image"], (row["label"] or "").strip()


def in_export(tasks: Stored) -> Iterator[Named]:
    """The images of an export of Label Studio's, and the choice of each one's newest annotation.

    Raises:
        ValueError: an image has more than one choice, or no address; LookupError, TypeError,
            AttributeError: it is no such export.
    """
    for task in tasks:
        data = task["data"]
        addresses = [data["image"]] if "image" in data else [*filter(is_address, data.values())]
        if len(addresses) != 1:
            raise ValueError(f"task {task.get('id')} has {counted(len(addresses), 'image')}")
        made = [note for note in task["annotations"] if not note.get("was_cancelled")]
        choices: list[str] = []
        for result in made[-1]["result"] if made else []:
            if result["type"] == "choices":
                choices += result["value"]["choices"]
        if len(choices) > 1:
            raise ValueError(f"task {task.get('id')} has {counted(len(choices), 'choice')}")
        yield addresses[0], choices[0].strip() if choices else ""


def is_address(value: object) -> bool:
    """Whether a task's value can be an image's address: others are texts and numbers about it."""
    return isinstance(value, str) and ("/" in value or "." in value)


def find(image: str, folder: str, path: str) -> str:
    """The file that an image's name or address in a file means; folder, path: of that file.

    Raises:
        UserError: there is none.
    """
    address = urlsplit(image)
    name = image
    if address.path.startswith(LOCAL):
        name = parse_qs(address.query).get("d", [""])[0]
    elif image.startswith(UPLOADED):
        name = os.path.basename(address.path)
    # an uploaded file's mark ends at the first hyphen
    places = [os.path.join(folder, name), name, os.path.join(folder, name.partition("-")[2])]
    if not image.startswith(UPLOADED):
        places.pop()
    for place in places:
        if os.path.isfile(place):
            return os.path.abspath(place)
    raise UserError(
        f"{path} names {image!r}, and there is no file {places[0]}: put the image there, or write "
        "its path"
    )
