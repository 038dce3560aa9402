"""Answers to the boxes of COCO's file, as the same file."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from trainers.common.errors import UserError
from trainers.common.files import write_text
from trainers.common.readers import Stored, parse_json, read_text

from ..readers.rows import Source
from .label_studio import score_of
from .rows import Row
from .writers import Writer

DETECTOR_SCORE = "detector_score"


class CocoWriter(Writer):
    """Writes COCO's file again, with the annotations that were answered, each under its own id: ``category_id`` is
    the label's, null where the run gives none, and ``score`` the probability of the most probable class. A detector's
    own score is kept as ``detector_score``. Classes that the file lacks become categories with new ids.

    Args:
        boxes: file → its boxes.
    """

    option = "--coco"
    mark = '{"answered_by": '

    def __init__(self, path: str, boxes: Mapping[str, Source]) -> None:
        super().__init__(path, [*boxes])
        self.sources = [*boxes.values()]
        self.content: Stored = {}

    def check(self) -> None:
        super().check()
        if len(self.inputs) != 1:
            raise UserError(
                "--coco answers the boxes of one file: give --boxes and that file alone"
            )
        self.content = parse_json(read_text(self.inputs[0]))
        if not isinstance(self.content, dict):
            raise UserError(f"--coco: {self.inputs[0]} is not COCO's: give --label-studio FILE")

    def write(self, rows: Iterator[Row], model: str) -> None:
        notes = defaultdict(list)  # path of a box → its annotations
        for row in self.sources[0].rows:
            notes[row.image].append(row.entry)
        answered = [(note, row) for row in rows for note in notes[row["image"] or ""]]
        labels = sorted({row["label"] for _, row in answered if row["label"] is not None})
        categories = with_names(self.content["categories"], labels)
        numbers = {category["name"].strip(): category["id"] for category in reversed(categories)}
        own = {key: value for key, value in self.content.items() if key != "answered_by"}
        content = {"answered_by": model, **own, "categories": categories}
        content["annotations"] = [answer_in(note, row, numbers) for note, row in answered]
        write_text(os.path.abspath(self.path), json.dumps(content) + "\n")


def with_names(categories: list[Stored], names: Iterable[str]) -> list[Stored]:
    """Return categories, with new ones for names that these lack."""
    known = {category["name"].strip() for category in categories}
    taken = {category["id"] for category in categories}
    free = (number for number in count(1) if number not in taken)
    return [*categories, *({"id": next(free), "name": name} for name in names if name not in known)]


def answer_in(note: Stored, row: Row, numbers: Mapping[str, object]) -> Stored:
    """Return an annotation with the answer to its box; numbers: name of a category → its id."""
    answer = {**note, "score": score_of(row)}
    if "score" in note:
        answer[DETECTOR_SCORE] = note.get(DETECTOR_SCORE, note["score"])
    label = row["label"]
    answer["category_id"] = None if label is None else numbers[label]
    return answer
