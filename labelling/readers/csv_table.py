"""CSV files that name pictures and their labels: the columns ``image`` and ``label``, whose cells hold one
name, or several with ``;`` between them, ``dog;ball``, and nothing, or ``;`` alone, for "none of them"; or
``image`` and a column of 0 and 1 per label. A column ``group`` may say which pictures belong together: a
patient, a film, a day; a column ``asked_with``, of ``predict.py --label-next N --at-random``, with which
probability each was asked for."""

import csv
import io
from collections.abc import Sequence

import numpy

from trainers.common.errors import UserError

from ..corrections import chosen
from .rows import BETWEEN, Row, Source

DELIMITERS = ",;\t"  # Excel's, in different countries, and of its Unicode text
IMAGE = "image"
LABEL = "label"
GROUP = "group"
CORRECTED = "corrected"  # column of what a person says of a run's answer
UNCERTAINTY_COLUMN = "uncertainty"
ASKED_WITH = "asked_with"  # column: with which probability a program asked for the picture
ANSWERED = {"doubtful", UNCERTAINTY_COLUMN}  # columns that no table of predict.py --csv lacks
# columns, in capitals or not; others are labels
KNOWN = {IMAGE, LABEL, GROUP, CORRECTED, ASKED_WITH, *ANSWERED}
YES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
FORMULA = (
    "=",
    "+",
    "-",
    "@",
)  # a cell that starts so has an apostrophe before it in our own tables


def read_csv(content: str, multi_label: bool) -> Source:
    """Return what a CSV file says.

    multi_label: whether a cell holds several names, and columns may be labels.

    Raises:
        ValueError, csv.Error: it lacks a column, has one twice, or is damaged; UserError: it holds a run's
            answers.
    """
    table = table_of(content)
    columns = table.fieldnames or []
    labels = label_columns(columns) if multi_label else []
    check_columns(columns, labels)
    column = column_of_labels(columns)
    rows = []
    uncertainty = []
    try:
        for cells in table:
            where = f"line {table.line_num}"
            if None in cells or None in cells.values():
                raise ValueError(f"{where} has more or fewer cells than the first")
            names: tuple[str, ...] | None
            if labels:
                names = names_of_columns(cells, labels, where)
            else:
                names = names_in(cells[column], column, multi_label, where)
            if cells[IMAGE] or names:
                asked_with = asked_with_in(cells, where)
                group = cells.get(GROUP, "").strip()
                row = Row(where, cells[IMAGE], names, group, asked_with=asked_with)
                rows.append(row)
                uncertainty.append(cells.get(UNCERTAINTY_COLUMN, ""))
    except csv.Error as error:
        raise ValueError(f"line {table.line_num + 1}: {error}") from error
    is_row_per_label = not labels and all(len(row.names or ()) <= 1 for row in rows)
    source = Source(rows, labels, is_row_per_label=is_row_per_label)
    if column == CORRECTED and ASKED_WITH not in columns:
        note_chosen(source, uncertainty)
    return source


def note_chosen(source: Source, uncertainty: Sequence[str]) -> None:
    """Note in a source whether a test shows that its corrected rows are more, or less, certain than the
    others.

    uncertainty: N cells; nothing is noted where one is not a number.
    """
    try:
        values = numpy.array([float(cell) for cell in uncertainty])
    except ValueError:
        return
    found = chosen(values, numpy.array([row.names is not None for row in source.rows], bool))
    source.is_chosen = found.is_shown
    source.warnings += filter(None, [found.says()])


def asked_with_in(cells: dict[str, str], where: str) -> float | None:
    """Return the probability with which a picture was asked for; None where no column has it.

    Raises:
        ValueError: it is not in (0, 1].
    """
    if ASKED_WITH not in cells:
        return None
    try:
        probability = float(cells[ASKED_WITH])
    except ValueError:
        probability = 0.0
    if not 0 < probability <= 1:
        raise ValueError(
            f"{where} has {cells[ASKED_WITH]!r} for {ASKED_WITH}, which is a probability above 0 and at most 1"
        )
    return probability


def table_of(content: str) -> "csv.DictReader[str]":
    """Return the rows of a CSV file; columns that are known have small letters."""
    lines = io.StringIO(content, newline="")  # a line may end in \r alone
    head = lines.readline()
    lines.seek(0)
    table = csv.DictReader(lines, delimiter=max(DELIMITERS, key=head.count))
    names = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = [name.lower() if name.lower() in KNOWN else name for name in names]
    return table


def check_columns(columns: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse columns that don't say which labels pictures have; labels: columns of 0 and 1.

    Raises:
        ValueError: one is missing, or there twice.
    """
    if IMAGE not in columns or (LABEL not in columns and not labels):
        missing = LABEL if IMAGE in columns else IMAGE
        raise ValueError(f"it has no column {missing}")
    for name in columns:
        if name and columns.count(name) > 1:
            raise ValueError(f"it has the column {name} twice")
    if labels and (taken := ANSWERED & {*columns}):
        raise ValueError(
            f"its column {min(taken)} would be a label, and is one of our own tables' columns: rename it"
        )


def label_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns of 0 and 1 of a table; none where it has a column ``label``."""
    return [] if LABEL in columns else [name for name in columns if name not in KNOWN]


def column_of_labels(columns: Sequence[str]) -> str:
    """Return the column of the labels; in a table of answers, the one that a person fills in.

    Raises:
        UserError: it has nothing but answers.
    """
    if not {*columns} >= ANSWERED:
        return LABEL
    if CORRECTED not in columns:
        raise UserError(
            f"holds a run's own answers (columns {' and '.join(sorted(ANSWERED))}), which are no labels: look at them, and "
            f"write the right label of each image that you have seen into a column {CORRECTED}, or keep only the columns "
            "image and label of these"
        )
    return CORRECTED


def names_of_columns(cells: dict[str, str], labels: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the labels whose cells say yes.

    Raises:
        ValueError: a cell says neither yes nor no.
    """
    names = []
    for name in labels:
        cell = cells[name].strip().lower()
        if cell not in YES:
            raise ValueError(f"{where} has {cells[name]!r} for {name!r}, which is 0 or 1")
        if YES[cell]:
            names.append(name)
    return tuple(names)


def names_in(cell: str, column: str, multi_label: bool, where: str) -> tuple[str, ...] | None:
    """Return the names in a cell of labels; None where nobody has looked at the picture.

    Raises:
        ValueError: a name is missing between two marks.
    """
    cell = cell.strip()
    if not cell and (column == CORRECTED or not multi_label):
        return None
    if cell in ("", BETWEEN):
        return ()
    names = [as_written(name.strip()) for name in (cell.split(BETWEEN) if multi_label else [cell])]
    if "" in names:
        raise ValueError(f"{where} has {cell!r}, in which a name is missing beside a {BETWEEN}")
    return tuple(dict.fromkeys(names))


def as_written(name: str) -> str:
    """Return a name without the apostrophe that our own tables put before what a spreadsheet would take for
    a formula."""
    return name[1:] if name.startswith("'") and name[1:].startswith(FORMULA) else name


def looks_multi_label(content: str) -> bool:
    """Return whether a table says that a picture may have several labels: by its columns of 0 and 1, or by a
    cell of several names, of answers also of what a person has corrected: one label each may be left.

    Raises:
        csv.Error, LookupError, AttributeError: it is damaged.
    """
    table = table_of(content)
    labels = label_columns(table.fieldnames or ())
    if labels:
        first = next(table, {})
        return IMAGE in first and any(first[name].strip().lower() in YES for name in labels)
    for row in table:
        if any(BETWEEN in (row.get(name) or "") for name in (LABEL, CORRECTED)):
            return True
    return False
