"""Tables of values over seeds, as text, Markdown, CSV, LaTeX and HTML; shared by the commands
of tables."""

import argparse
import html
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy
from pandas import DataFrame

from trainers.common.console import table_cell
from trainers.common.environment import first_line
from trainers.common.errors import exit_code
from trainers.common.files import check_output, write_text
from trainers.common.record_file import Record

from .published import comparisons
from .rows import Table

log = logging.getLogger(__name__)

STYLES = {
    "text": "simple",
    "markdown": "github",
    "csv": "",
    "latex": "latex_booktabs",
    "html": "html",
}  # name → tabulate's
DAGGER = "†"
MEANING = (
    f"{DAGGER} learns parts for the trained classes alone, most often a classifier of image features: "
    "on base classes compare it with others that are marked."
)
LINE_BELOW = {
    "text": "\n{}\n",
    "markdown": "\n{}\n",
    "latex": "% {}\n",
    "html": "<p>{}</p>\n",
}  # style → a line below a table


def name_with_mark(trainer: str, records: Iterable[Record]) -> str:
    """A trainer's name, with ``DAGGER`` if any of its runs has parts for the trained classes alone."""
    has_own_parts = any(record.get("class_parameters") for record in records)
    return f"{trainer} {DAGGER}" if has_own_parts else trainer


def legend(trainers: Iterable[str], style: str = "text") -> str:
    """The line below a table of trainers that says what ``DAGGER`` means; empty where none has it."""
    return below([MEANING] * any(name.endswith(DAGGER) for name in trainers), style)


def below(lines: Iterable[str], style: str) -> str:
    """Lines below a table, in one of ``STYLES``; CSV has none, where they are warnings."""
    if style == "csv":
        for line in lines:
            log.warning("%s", line)
        return ""
    texts = map(html.escape, lines) if style == "html" else lines
    return "".join(map(LINE_BELOW[style].format, texts))


def summary(mean: float, deviation: float) -> str:
    """``mean ± sample standard deviation`` with two decimals; without a deviation the mean alone."""
    return f"{mean:.2f} ± {deviation:.2f}".removesuffix(" ± nan")


def render(table: Table, style: str = "text", with_published: bool = False) -> str:
    """A table in one of ``STYLES``; in CSV means and deviations have columns of their own, in HTML
    all is escaped. Trainers that learn parts for the trained classes alone are marked, except in
    CSV, and a line below explains the mark; the other lines are the table's notes.

    Args:
        with_published: a column is added for each that has published numbers.
    """
    compared = comparisons(table) if with_published else ()
    published = {(number.row, number.name): number for number in compared}
    cells = table.means[[]].assign(seeds=table.seeds)
    for name in table.names:
        mean = table.means[name]
        deviation = table.deviations[name]
        if style == "csv":
            cells[f"{name}_mean"] = mean
            cells[f"{name}_std"] = deviation
        else:
            cells[name] = list(map(summary, mean, deviation))
    for name in table.names:
        beside = [published.get((row, name)) for row in table.means.index]
        if any(beside) and style == "csv":
            for attribute in ("published", "difference", "deviations"):
                values = [getattr(number, attribute, None) for number in beside]
                cells[f"{name}_{attribute}"] = numpy.array(values, float)
        elif any(beside):
            cells[f"{name}, published"] = [str(number or "") for number in beside]
    cells = cells.reset_index()
    last_line = ""
    if table.runs and style != "csv":
        trainers = []
        for row, name in zip(table.means.index, cells["trainer"]):
            records = [run.record for run in table.runs_of(row)]
            trainers.append(name_with_mark(name, records))
        cells["trainer"] = trainers
        last_line = legend(trainers, style)
    return write_cells(cells, style, len(table.heads)) + last_line + below(table.notes, style)


def write_cells(cells: DataFrame, style: str, left: int) -> str:
    """Cells in one of ``STYLES``; left: how many columns are aligned at the left."""
    if style == "csv":
        cells = cells.rename(columns=table_cell).map(table_cell)
        text: str = cells.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        return text
    alignment = ("left",) * left + ("right",) * (cells.shape[1] - left)
    layout = {"tablefmt": STYLES[style], "disable_numparse": True, "colalign": alignment}
    table: str = cells.to_markdown(index=False, **layout) + "\n"
    return table


def render_all(tables: Iterable[Table], style: str = "text", with_published: bool = False) -> str:
    """Render all tables, each below its title where there are several."""
    return join_texts([(table.title, render(table, style, with_published)) for table in tables])


def join_texts(texts: Sequence[tuple[str, str]]) -> str:
    """Pairs of a title and a table's text as one text, with the titles where there are several."""
    if len(texts) == 1:
        return texts[0][1]
    return "\n".join(f"{title}\n\n{text}" for title, text in texts)


def write_out(text: str, output: str | None) -> None:
    """Writes a command's text to a file, or to standard output where none is given.

    Raises:
        UserError: the file is there and has another ``heading`` (``check_output``).
    """
    if output:
        check_output("--output", output, heading(text))
        write_text(str(Path(output).absolute()), text)
    else:
        sys.stdout.write(text)


def heading(text: str) -> str:
    """The beginning of a text of tables: the first one's title, if it has one, and column names."""
    lines = text.splitlines(keepends=True)
    end = 1
    if lines[1:2] == ["\n"]:  # below a title
        end += 2
    if lines[end - 1].startswith(("<", "\\")):  # HTML and LaTeX have two lines above the names
        end += 2
    return "".join(lines[:end])


def table_arguments(description: str | None, folder: str) -> argparse.ArgumentParser:
    """The arguments that all commands of tables have: where runs lie, a format, and where the text
    goes.

    Args:
        description: the command's docstring; folder: help of the first argument.
    """
    parser = argparse.ArgumentParser(description=first_line(description))
    parser.add_argument("folder", help=folder)
    parser.add_argument("--format", choices=STYLES, default="text")
    parser.add_argument("--output", help="write to this file instead of standard output")
    return parser


def run_table_command(
    parser: argparse.ArgumentParser,
    text_of: Callable[[argparse.Namespace], str],
    arguments: Sequence[str] | None,
) -> int:
    """Print or write a command's tables; return its exit code.

    Warnings go to standard error.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    args = parser.parse_args(arguments)
    return exit_code(lambda: write_out(text_of(args), args.output))
