"""Answers as tasks with predictions, which Label Studio imports: a person corrects instead of typing."""

import json
import os
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from trainers.common.errors import UserError
from trainers.common.files import write_lines

from ..readers.csv_table import ASKED_WITH
from ..readers.rows import LOCAL
from .rows import Row
from .writers import Writer, json_list


class LabelStudioWriter(Writer):
    """Writes a JSON list of tasks: an image, its most probable class, and the probability as the score; of a
    multi-label run all its labels, as choices of which several may be taken, and one minus the
    uncertainty as the score. Where that is known, the image's data say how ``unfamiliar`` it is, too, by which
    tasks can be sorted.

    An uncertain image has its prediction, too, to be confirmed by a person.

    Label Studio is told to show the files of the folder in which the tasks are written: the images lie
    in it.
    """

    option = "--label-studio"
    mark = '[\n{"data": {"image": '

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.folder = os.path.dirname(os.path.abspath(path))

    def checked(self, images: Iterable[str]) -> Iterator[str]:
        """The paths of the images one by one.

        Raises:
            UserError: as ``address``.
        """
        for image in images:
            address(image, self.folder)
            yield image

    def write(self, rows: Iterator[Row], model: str) -> None:
        tasks = (json.dumps(task(row, model, self.folder)) for row in rows)
        write_lines(os.path.abspath(self.path), json_list(tasks))


def task(row: Row, model: str, folder: str) -> dict[str, object]:
    """The task of a row; model: what has answered; folder: as in ``address``."""
    image = row["image"] or ""
    data: dict[str, object] = {"image": address(image, folder)}
    if "unfamiliar" in row:
        data["unfamiliar"] = row["unfamiliar"]
    if "asked_with" in row:
        data[ASKED_WITH] = row["asked_with"]
    return {"data": data, "predictions": [prediction_of(row, model)]}


def prediction_of(
    row: Row, model: str, from_name: str = "choice", to_name: str = "image"
) -> dict[str, object]:
    """Return the prediction of a row: its labels as choices.

    from_name, to_name: of the choices and of the picture in the labelling interface.
    """
    first = row["top"][0]
    choices = row.get("labels", [first["class"]])
    choice = {
        "from_name": from_name,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": choices},
    }
    score = 1 - row["uncertainty"] if "labels" in row else first["probability"]
    return {"model_version": model, "score": score, "result": [choice]}


def address(image: str, folder: str) -> str:
    """Return Label Studio's address of an image below a folder, which is an absolute path.

    Raises:
        UserError: it does not lie in the folder, or its name is not UTF-8.
    """
    place = os.path.relpath(os.path.abspath(image), folder).replace(os.sep, "/")
    if place.startswith("../"):
        raise UserError(
            f"--label-studio: {image} is not below {folder}, and Label Studio shows what is below one "
            "folder: give a FILE in a folder that holds all images"
        )
    try:
        return f"{LOCAL}?d={quote(place)}"
    except UnicodeEncodeError as error:  # bytes that are not text
        raise UserError(
            f"--label-studio: the name {image} is not UTF-8, and Label Studio reads no other: rename the file"
        ) from error
