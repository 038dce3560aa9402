"""The table of ``demo_app.py``'s page: many pictures, which are answered batch by batch, and what a
person corrects of the answers."""

import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import IO, TYPE_CHECKING

from PIL import Image

from trainers.common.console import printable
from trainers.common.errors import UserError
from trainers.common.image_files import read_picture

from ..answers.rows import Row, in_columns, rows_of
from ..answers.writers import table_lines
from ..threshold import Threshold

if TYPE_CHECKING:
    from ..classifier import PromptedClassifier

BATCH = 8  # pictures that are answered, and held in memory as they are, at a time
PIXELS = 160  # of the longer side of a picture in the table
ROWS = 50  # of a page
TOP = 5  # classes of an answer
MAX_LABEL = 200  # characters of a correction
log = logging.getLogger("demo_app")
Picture = tuple[str, str | IO[bytes]]  # its name, and a path or an open file


class CorrectedRow(Row, total=False):
    """corrected: whether its label is a person's."""

    corrected: bool


@dataclass
class Entry:
    """A picture that was answered.

    Attributes:
        row: see ``rows.rows_of``.
        small: a JPEG of at most ``PIXELS`` pixels a side.
        correction: the label that a person has given it; "" where the answer stands.
    """

    row: Row
    small: bytes
    correction: str = ""

    @property
    def label(self) -> str:
        """What it is called in the table that is saved; "" where the answer is unsure."""
        return self.correction or self.row["label"] or ""


class AnsweredPictures:
    """Pictures with answers among the run's own classes.

    Args:
        classifier: a ``PromptedClassifier``; threshold: of its answers.
        lock: is held while the classifier computes.

    Attributes:
        entries: of the pictures that were answered, in their order.
        broken: names of those that can't be read.
        expected: how many pictures there are in all.
    """

    def __init__(self, classifier: "PromptedClassifier", threshold: Threshold, lock: Lock) -> None:
        self.classifier = classifier
        self.threshold = threshold
        self.lock = lock
        self.entries: list[Entry] = []
        self.broken: list[str] = []
        self.expected = 0

    @property
    def done(self) -> int:
        """How many pictures were looked at."""
        return len(self.entries) + len(self.broken)

    @property
    def pages(self) -> int:
        return max(1, math.ceil(len(self.entries) / ROWS))

    def page(self, number: int) -> list[tuple[int, Entry]]:
        """The entries of a page, from 1, with their places in ``entries``; the least certain ones
        come first."""
        places = sorted(
            range(len(self.entries)), key=lambda place: -self.entries[place].row["uncertainty"]
        )
        first = ROWS * (number - 1)
        return [(place, self.entries[place]) for place in places[first : first + ROWS]]

    def answer(self, pictures: Sequence[Picture]) -> None:
        """Answers pictures, one batch after the other; those that can't be read are left out."""
        self.expected += len(pictures)
        remaining = iter(pictures)
        while batch := list(islice(remaining, BATCH)):
            self.answer_batch(batch)

    def answer_batch(self, batch: Iterable[Picture]) -> None:
        names = []
        images = []
        for given, file in batch:
            name = printable(given)
            try:
                images.append(read_picture(file, self.classifier.background))
                names.append(name)
            except UserError as error:
                log.warning("%s: %s", name, error)
                self.broken.append(name)
        if not images:
            return
        with self.lock:
            answers = self.classifier.predict(images)
        answers.images = [*names]
        doubtful = [self.threshold.rejects(each) for each in answers.uncertainty.tolist()]
        for row, image in zip(rows_of(answers, doubtful, TOP), images):
            self.entries.append(Entry(row, jpeg(image)))

    def correct(self, form: Mapping[str, str]) -> None:
        """Takes a form's fields ``label-<place>``; an empty one, or the answer itself, takes a
        correction back.

        Raises:
            UserError: a label is too long.
        """
        for name, value in form.items():
            kind, _, place = name.partition("-")
            # Python refuses to read a number of thousands of digits
            is_number = place.isdecimal() and len(place) < 10
            if kind != "label" or not is_number or int(place) >= len(self.entries):
                continue
            label = " ".join(value.split())
            if len(label) > MAX_LABEL:
                raise UserError(f"a label has {len(label)} characters: give at most {MAX_LABEL}")
            entry = self.entries[int(place)]
            entry.correction = "" if label == entry.row["label"] else label

    def as_csv(self) -> str:
        """The table of ``predict.py --csv`` with the corrections, and a column that says which labels
        are corrected."""
        # in the order of the columns
        first: CorrectedRow = {"image": None, "label": None, "corrected": False}
        table = []
        for entry in self.entries:
            row: CorrectedRow = {**first, **entry.row, "label": entry.label}
            row["corrected"] = bool(entry.correction)
            table.append(row)
        return "".join(table_lines(map(in_columns, table)))


def jpeg(image: Image.Image) -> bytes:
    """A JPEG of a picture, which is made small by it."""
    image.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
