"""The base of all forms of the answers, and the forms that are text."""

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from textwrap import indent
from typing import TYPE_CHECKING, Any

from trainers.common.console import csv_lines, printable
from trainers.common.files import check_output, write_lines
from trainers.common.record_file import UNFAMILIAR
from trainers.evaluation.figures import decimal

from .rows import Row, columns_of, rows_of, rows_with_votes

if TYPE_CHECKING:
    from trainers.method import Method

    from ..answer import Answers

NO_LABELS = "none of them"  # in a line of text, of a multi-label picture


def version_of(method: "Method") -> str:
    """The trainer, and the start of its prompts' hash: another training has another version."""
    return f"{method.name()} {(method.prompts_hash() or '')[:8]}".strip()


class Writer(ABC):
    """Writes answers in one form; a file is written whole or not at all.

    Attributes:
        option: that names the file.
        mark: what a file in this form begins with (``check_output``).
        path: of the file, as it was given; "": standard output.
        inputs: paths of files that are read.
    """

    option: str
    mark: str

    def __init__(self, path: str = "", inputs: Sequence[str] = ()) -> None:
        self.path = path
        self.inputs = inputs

    def check(self) -> None:
        """Checks, before anything is computed, that ``write`` can work.

        Raises:
            UserError: somebody's file would be replaced, or a package is not installed.
        """
        if self.path:
            check_output(self.option, self.path, self.mark, self.inputs)

    def checked(self, images: Iterable[str]) -> Iterable[str]:
        """The paths of the images one by one.

        Raises:
            UserError: the form can't name one.
        """
        return images

    def rows(self, answers: "Answers", topk: int) -> Sequence[Mapping[str, object]]:
        """Return rows of answers, kept until they are written (``rows.rows_of``)."""
        return rows_of(answers, topk)

    @abstractmethod
    def write(self, rows: Iterator[Any], model: str) -> None:
        """Writes at least one row.

        Args:
            rows: of the method ``rows``, in the order in which they are to be written.
            model: name and version of the model that has answered.
        """


class TextWriter(Writer):
    """Prints a line per image."""

    def write(self, rows: Iterator[Row], model: str) -> None:
        sys.stdout.writelines(map(text_line, rows))


class JsonWriter(Writer):
    """Prints a JSON list, with the votes."""

    def rows(self, answers: "Answers", topk: int) -> Sequence[Mapping[str, object]]:
        return rows_with_votes(answers, topk)

    def write(self, rows: Iterator[Row], model: str) -> None:
        # in ASCII, which every output takes
        items = (json.dumps(row, indent=2, allow_nan=False) for row in rows)
        sys.stdout.writelines(json_list(indent(item, "  ") for item in items))


class TableWriter(Writer):
    """Writes a table.

    Args:
        probabilities: whether there is a column per class, instead of the most probable classes.
    """

    def __init__(self, path: str, probabilities: bool = False) -> None:
        super().__init__(path)
        self.probabilities = probabilities

    def rows(self, answers: "Answers", topk: int) -> Sequence[Mapping[str, object]]:
        return columns_of(answers, topk, self.probabilities)


class CsvWriter(TableWriter):
    """Writes a CSV file (``csv_lines``)."""

    option = "--csv"
    mark = "\ufeffimage,label,doubtful,uncertainty"

    def write(self, rows: Iterator[dict[str, object]], model: str) -> None:
        write_lines(os.path.abspath(self.path), table_lines(rows))


def text_line(row: Row) -> str:
    """A line for an image, with tabs in between: image, label, ``?`` for a doubtful one or ``NO_LABELS``, the top
    classes, the uncertainty, and whether the picture is unlike the run's."""
    label = row["label"] or ("?" if row["label"] is None else NO_LABELS)
    verdicts = {True: ", not sure", False: ", within the limit", None: ""}
    top = ", ".join(f"{of['class']} {100 * of['probability']:.1f} %" for of in row["top"])
    uncertainty = f"uncertainty {decimal(row['uncertainty'])}{verdicts[row['doubtful']]}"
    if row.get("unfamiliar", 1.0) <= UNFAMILIAR:
        uncertainty += ", unlike the run's pictures"
    cells = row["image"] or "", label, top, uncertainty
    return "\t".join(map(printable, cells)) + "\n"


def json_list(items: Iterable[str]) -> Iterator[str]:
    """The lines of a JSON list of at least one item, each of which is JSON already."""
    before = "[\n"
    for item in items:
        yield before + item
        before = ",\n"
    yield "\n]\n"


def table_lines(table: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The lines of a CSV file of at least one row of columns (``csv_lines``)."""
    rows = iter(table)
    first = next(rows)
    return csv_lines(first, (row.values() for row in chain([first], rows)))
