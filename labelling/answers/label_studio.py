"""Answers as tasks with predictions, which Label Studio imports: a person corrects instead of typing."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from trainers.common.boxes import box_of, file_of
from trainers.common.errors import UserError
from trainers.common.files import write_lines
from trainers.common.image_files import upright_size

from ..readers.csv_table import ASKED_WITH
from ..readers.label_studio import LABELLED, Rectangle
from ..readers.rows import LOCAL, Source
from .rows import Row
from .writers import Writer, json_list

# a row, and the rectangle that it answers, where its box is one of Label Studio's
Answered = tuple[Row, Rectangle | None]


class LabelStudioWriter(Writer):
    """Writes a JSON list of tasks: an image, its most probable class, and the probability as the score; of a
    multi-label run all its labels, as choices of which several may be taken, and one minus the
    uncertainty as the score. The boxes of a photograph are rectangles of one task, each with its label and score;
    the least score is the task's. Rectangles of a file of Label Studio's are answered in their own tasks, under
    their own ids. Where that is known, the image's data say how ``unfamiliar`` it is, too, by which tasks can be sorted.

    An uncertain image has its prediction, too, to be confirmed by a person.

    Label Studio is told to show the files of the folder in which the tasks are written: the images lie
    in it.

    Args:
        boxes: file → its boxes.
    """

    option = "--label-studio"
    mark = '[\n{"predictions": [{"model_version": '

    def __init__(self, path: str, boxes: Mapping[str, Source]) -> None:
        super().__init__(path, [*boxes])
        self.folder = os.path.dirname(os.path.abspath(path))
        self.rectangles = defaultdict(list)  # path of a box → Label Studio's own
        for source in boxes.values():
            for row in source.rows:
                if isinstance(row.entry, Rectangle):
                    self.rectangles[row.image].append(row.entry)

    def checked(self, images: Iterable[str]) -> Iterator[str]:
        """The paths of the images one by one.

        Raises:
            UserError: as ``address``.
        """
        for image in images:
            if image not in self.rectangles:
                address(file_of(image), self.folder)
            yield image

    def write(self, rows: Iterator[Row], model: str) -> None:
        tasks = (json.dumps(task(own, model, self.folder)) for own in self.by_task(rows))
        write_lines(os.path.abspath(self.path), json_list(tasks))

    def by_task(self, rows: Iterable[Row]) -> Iterator[list[Answered]]:
        """Yield the row of each whole picture, then the rows of each photograph's boxes, and of each task of Label
        Studio's, in the order of their first."""
        boxes: dict[object, list[Answered]] = {}
        for row in rows:
            image = row["image"] or ""
            if box_of(image) is None:
                yield [(row, None)]
                continue
            if image not in self.rectangles:
                boxes.setdefault(file_of(image), []).append((row, None))
            for rectangle in self.rectangles.get(image, ()):
                boxes.setdefault(id(rectangle.task), []).append((row, rectangle))
        yield from boxes.values()


def task(answered: Sequence[Answered], model: str, folder: str) -> dict[str, object]:
    """Return the task of a picture, or of a photograph's boxes; model: what has answered; folder: as in ``address``."""
    rows = [row for row, _ in answered]
    image = rows[0]["image"] or ""
    rectangle = answered[0][1]
    own = {} if rectangle is None else rectangle.task
    data = own.get("data") or {"image": address(file_of(image), folder)}
    data = {**data}
    if "unfamiliar" in rows[0]:
        data["unfamiliar"] = min(row["unfamiliar"] for row in rows)
    if "asked_with" in rows[0]:
        data[ASKED_WITH] = rows[0]["asked_with"]
    if box_of(image) is None:
        prediction = prediction_of(rows[0], model)
    else:
        prediction = rectangles_of([label_rectangle(*one) for one in answered], model)
    kept = {"id": own["id"]} if "id" in own else {}
    return {"predictions": [prediction], "data": data, **kept}


def rectangles_of(results: Sequence[Mapping[str, Any]], model: str) -> dict[str, object]:
    """Return the prediction of a photograph's boxes, whose rectangles (``label_rectangle``) are given."""
    score = min((result["score"] for result in results), default=0.0)
    return {"model_version": model, "score": score, "result": [*results]}


def label_rectangle(
    row: Row, rectangle: Rectangle | None, from_name: str = "label", to_name: str = "image"
) -> dict[str, Any]:
    """Return the rectangle of a box with its labels and score; rectangle: Label Studio's, None: a new one;
    from_name, to_name: of the labels and of the picture in the labelling interface."""
    known = new_rectangle(row) if rectangle is None else rectangle.result
    if known["type"] == LABELLED:
        from_name = known.get("from_name", from_name)
    return {
        **known,
        "from_name": from_name,
        "to_name": known.get("to_name", to_name),
        "type": LABELLED,
        "value": {**known["value"], LABELLED: labels_in(row)},
        "score": score_of(row),
    }


def new_rectangle(row: Row) -> dict[str, Any]:
    """Return the rectangle of a row's box, in percent of its photograph."""
    image = row["image"] or ""
    width, height = upright_size(image)
    box = box_of(image)
    assert box is not None
    value = {
        "x": 100 * box.left / width,
        "y": 100 * box.top / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
        "rotation": 0,
    }
    return {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "type": "rectangle",
        "value": value,
    }


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
