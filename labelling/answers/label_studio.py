"""Answers as tasks with predictions, which Label Studio imports: a person corrects instead of typing."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from trainers.common.boxes import box_of, file_of
from trainers.common.errors import UserError
from trainers.common.files import write_lines
from trainers.common.image_files import upright_size

from ..readers.csv_table import ASKED_WITH
from ..readers.rows import LOCAL
from .rows import Row
from .writers import Writer, json_list


class LabelStudioWriter(Writer):
    """Writes a JSON list of tasks: an image, its most probable class, and the probability as the score; of a
    multi-label run all its labels, as choices of which several may be taken, and one minus the
    uncertainty as the score. The boxes of a photograph are rectangles of one task, each with its label and score;
    the least score is the task's. Where that is known, the image's data say how ``unfamiliar`` it is, too, by which
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
            address(file_of(image), self.folder)
            yield image

    def write(self, rows: Iterator[Row], model: str) -> None:
        tasks = (json.dumps(task(own, model, self.folder)) for own in by_photograph(rows))
        write_lines(os.path.abspath(self.path), json_list(tasks))


def by_photograph(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the row of each whole picture, then the rows of each photograph's boxes, in the order of their first."""
    boxes: dict[str, list[Row]] = {}
    for row in rows:
        image = row["image"] or ""
        if box_of(image) is None:
            yield [row]
        else:
            boxes.setdefault(file_of(image), []).append(row)
    yield from boxes.values()


def task(rows: Sequence[Row], model: str, folder: str) -> dict[str, object]:
    """Return the task of a picture, or of a photograph's boxes; model: what has answered; folder: as in ``address``."""
    image = rows[0]["image"] or ""
    data: dict[str, object] = {"image": address(file_of(image), folder)}
    if "unfamiliar" in rows[0]:
        data["unfamiliar"] = min(row["unfamiliar"] for row in rows)
    if "asked_with" in rows[0]:
        data[ASKED_WITH] = rows[0]["asked_with"]
    predict = prediction_of(rows[0], model) if box_of(image) is None else rectangles_of(rows, model)
    return {"data": data, "predictions": [predict]}


def rectangles_of(rows: Sequence[Row], model: str) -> dict[str, object]:
    """Return the prediction of the boxes of a photograph: a rectangle with its labels for each."""
    width, height = upright_size(rows[0]["image"] or "")
    results = []
    for row in rows:
        box = box_of(row["image"] or "")
        assert box is not None
        value = {
            "x": 100 * box.left / width,
            "y": 100 * box.top / height,
            "width": 100 * box.width / width,
            "height": 100 * box.height / height,
            "rotation": 0,
            "rectanglelabels": labels_in(row),
        }
        rectangle = {
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value,
            "score": score_of(row),
        }
        results.append(rectangle)
    return {"model_version": model, "score": min(map(score_of, rows)), "result": results}


def prediction_of(
    row: Row, model: str, from_name: str = "choice", to_name: str = "image"
) -> dict[str, object]:
    """Return the prediction of a row: its labels as choices.

    from_name, to_name: of the choices and of the picture in the labelling interface.
    """
    choice = {
        "from_name": from_name,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": labels_in(row)},
    }
    return {"model_version": model, "score": score_of(row), "result": [choice]}


def labels_in(row: Row) -> list[str]:
    """Return the labels of a row, of an uncertain one too: of a multi-label run those it gives."""
    return row.get("labels", [row["top"][0]["class"]])


def score_of(row: Row) -> float:
    """Return the score of a row in [0, 1]."""
    return 1 - row["uncertainty"] if "labels" in row else row["top"][0]["probability"]


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
