"""The choice of a trainer, what it was compared with, and both kept in a run's folder."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from trainers.common.files import write_text
from trainers.common.readers import read_json
from trainers.common.record_file import FILE_NAME, read_record
from trainers.engine.folder import CHOICE


class CandidateRow(TypedDict):
    """How a trainer does, as the record has it.

    Attributes:
        trainer: its name.
        accuracy: in percent; low, high: its 95 % interval (Wilson's); None of what was not trained.
        images: that it answers; seconds: of the fits, or of the training.
        note: what else is to be known, in words.
    """

    trainer: str
    accuracy: float | None
    low: float | None
    high: float | None
    images: int
    seconds: float
    note: str


@dataclass(frozen=True)
class Choice:
    """Which trainer was found to serve one's own images.

    Attributes:
        trainer: its name.
        how: why, or by what it was chosen, in words.
        rows: of those that were compared, if any.
    """

    trainer: str
    how: str
    rows: Sequence[CandidateRow] = ()

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.trainer} was taken, {self.how}"
        figures = []
        for row in self.rows:
            figure = row["trainer"]
            if row["accuracy"] is not None:
                figure += f" {row['accuracy']:.1f} % ({row['low']:.0f} to {row['high']:.0f} %)"
            figures.append(f"{figure}, {row['note']}" if row["note"] else figure)
        start = f"{self.trainer} was chosen by {self.how}; right, with 95 % intervals"
        return f"{start}: {'; '.join(figures)}"

    def keep(self, folder: str) -> None:
        """Writes it into a run's folder."""
        table = {"trainer": self.trainer, "how": self.how, "rows": list(self.rows)}
        write_text(f"{folder}/{CHOICE}", json.dumps(table, indent=2) + "\n")


def noted_choice(choice: Choice | None, folder: str, trainer: str) -> Choice | None:
    """A choice, which is kept in the run's folder; without one that of the run that was begun there."""
    if choice is None:
        return kept_choice(folder, trainer)
    choice.keep(folder)
    return choice


def kept_choice(folder: str, trainer: str) -> Choice | None:
    """The choice of a run that was begun in a folder; None where there was none, it can't be read, or it
    is not what the finished run there was chosen from."""
    path = f"{folder}/{FILE_NAME}"
    try:
        choice = Choice(**read_json(f"{folder}/{CHOICE}"))
        str(choice)
        known = read_record(path).get("candidates") if os.path.isfile(path) else choice.rows
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return choice if choice.trainer == trainer and known == choice.rows else None
