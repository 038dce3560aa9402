"""Tables as text, Markdown, CSV, LaTeX and HTML."""

import argparse
import csv
import io
import logging
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from trainers.common.errors import exit_code
from trainers.common.files import write_text

from .published import Comparison
from .rows import Table

LAYOUTS = {
    "text": "simple",
    "markdown": "github",
    "latex": "latex_booktabs",
    "html": "html",
}  # tabulate's names
FORMATS = ("text", "markdown", "csv", "latex", "html")


def summary(values: Sequence[float]) -> str:
    """``mean ± sample standard deviation`` in percent with two decimals; one value stands alone."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def render(table: Table, style: str = "text", compared: Iterable[Comparison] = ()) -> str:
    """A table as text, Markdown, CSV (means and deviations in columns of their own), LaTeX or HTML (escaped).

    compared: cells beside published figures; a column is added for each that has any.
    """
    shown = [
        index
        for index, name in enumerate(table.heads)
        if name != "shots" or any(row.key[index] is not None for row in table.rows)
    ]
    heads = [table.heads[index] for index in shown]
    lines = [
        ([row.key[index] for index in shown], len(row.seeds(table.columns)), table.figures(row))
        for row in table.rows
    ]
    published = {(found.row.key, found.name): found for found in compared}
    names = [
        name for name in table.names if any(column == name for _, column in published)
    ]  # with a column beside them
    beside = [[published.get((row.key, name)) for name in names] for row in table.rows]
    if style == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            [
                *heads,
                "seeds",
                *(f"{name}_{figure}" for name in table.names for figure in ("mean", "std")),
                *(
                    f"{name}_{figure}"
                    for name in names
                    for figure in ("published", "difference", "deviations")
                ),
            ]
        )
        for (key, seeds, figures), others in zip(lines, beside, strict=True):
            cells: list[str] = []
            for name in table.names:
                cells += [
                    f"{statistics.mean(figures[name]):.4f}",
                    f"{statistics.stdev(figures[name]):.4f}" if len(figures[name]) > 1 else "",
                ]
            for found in others:
                cells += [
                    "" if value is None else f"{value:.4f}"
                    for value in (
                        (found.published, found.points, found.deviations)
                        if found
                        else (None, None, None)
                    )
                ]
            writer.writerow([*key, seeds, *cells])
        return buffer.getvalue()
    lines_of_text = [
        [
            *key,
            seeds,
            *(summary(figures[name]) for name in table.names),
            *(str(found or "") for found in others),
        ]
        for (key, seeds, figures), others in zip(lines, beside, strict=True)
    ]
    headers = [*heads, "seeds", *map(str, table.names), *(f"{name}, published" for name in names)]
    return (
        tabulate(
            lines_of_text,
            headers=headers,
            tablefmt=LAYOUTS[style],
            disable_numparse=True,
            colalign=("left",) * len(heads) + ("right",) * (len(headers) - len(heads)),
        )
        + "\n"
    )


def render_all(
    made: Sequence[Table],
    style: str = "text",
    compare: Callable[[Table], Iterable[Comparison]] | None = None,
) -> str:
    """All tables, each below its title where there are several; compare: gives a table's comparisons with published figures."""
    return "\n".join(
        (f"{table.title}\n\n" if len(made) > 1 else "")
        + render(table, style, compare(table) if compare else ())
        for table in made
    )


def write_out(text: str, output: str | None = None) -> None:
    """Writes a command's text to a file, or to standard output where none is given."""
    if output:
        write_text(str(Path(output).absolute()), text)
    else:
        sys.stdout.write(text)


def table_arguments(
    description: str, folder: str, name: str = "folder", **more: Any
) -> argparse.ArgumentParser:
    """The arguments that all commands of tables have: where runs lie, a format, and where the text goes.

    Args:
        description: the command's docstring; folder: what is said of the first argument; name, more: of it.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(name, help=folder, **more)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", help="write to this file instead of standard output")
    return parser


def run_table_command(
    command: Callable[[argparse.Namespace], object], arguments: argparse.Namespace
) -> int:
    """Runs a command of tables, whose warnings go to standard error; returns its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(command, arguments)
