"""Draws a table of measurements: a row's mean with its 95 % interval, and where it has them its
seconds.

    python -m experiments.leaderboard docs/data/leaderboard.csv docs/leaderboard.svg

The columns are the row's name, seeds, any others, the measure in %, its deviation over the seeds,
seconds (of one training; may be left out), recipe, and whether it has a part that serves the
trained classes alone (may be left out). Hollow marks are rows whose recipe is named: an earlier one
was measured. Squares have such a part, most often a classifier of image features. The interval is
Student's t. The colours follow the reader's light or dark scheme.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import os
import sys
from collections.abc import Sequence
from io import StringIO

import pandas
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import t

from results.svg import STYLE, SVG_MARK, svg_of
from trainers.common.errors import UserError, exit_code, raise_machines
from trainers.common.files import check_output, write_text
from trainers.common.readers import read_text

PART = "trained classes' own part"


def draw(table: pandas.DataFrame) -> str:
    """The figure of a table as SVG."""
    name = table.columns[0]
    measure = table.columns[table.columns.get_loc("deviation") - 1]
    error = t.ppf(0.975, table["seeds"] - 1) * table["deviation"] / table["seeds"] ** 0.5
    faces = table["recipe"].isna().map({True: "C0", False: "none"})
    has_part = table.get(PART, pandas.Series(index=table.index, dtype=str)).notna()
    rows = pandas.Series(range(len(table)), table.index)
    columns = [measure, *table.columns.intersection(["seconds"])]
    # letters as text
    with rc_context({**STYLE, "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8, 1 + len(table) / 5), layout="tight")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, column in zip(panels, columns):
            axes.grid(alpha=0.3)
            for marker, chosen in (("s", has_part), ("o", ~has_part)):
                shown = {"c": faces[chosen], "marker": marker, "edgecolors": "C0", "zorder": 3}
                axes.scatter(table[column][chosen], rows[chosen], **shown)
        for axes in panels[1:]:
            axes.set(xscale="log", xlabel="seconds of training")
            ticks = (10, 20, 50, 100, 200)
            axes.set_xticks(ticks, labels=map(str, ticks))
            axes.minorticks_off()
        first = panels[0]
        first.errorbar(table[measure], rows, xerr=error, fmt="none", ecolor="C0")
        first.set(yticks=rows, yticklabels=table[name], xlabel=f"{measure} in %, 95 % interval")
        first.invert_yaxis()
        return svg_of(figure)


def read_table(path: str) -> pandas.DataFrame:
    """The table of methods that a picture is drawn of.

    Raises:
        UserError: it can't be read, or is no such table.
    """
    try:
        table = pandas.read_csv(StringIO(read_text(path)))
        if not {"seeds", "deviation", "recipe"} <= {*table.columns} or table.empty:
            raise ValueError("it has no rows with seeds, deviation and recipe")
        measure = table.columns[table.columns.get_loc("deviation") - 1]
        for name in (measure, *table.columns.intersection(["seeds", "deviation", "seconds"])):
            table[name] = pandas.to_numeric(table[name])
    except (OSError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"{path} is no table of measurements ({error}): give a CSV file such as docs/data/leaderboard.csv"
        ) from error
    return table


def make(args: argparse.Namespace) -> None:
    """The whole command."""
    check_output("picture", args.picture, SVG_MARK, [args.table])
    write_text(os.path.abspath(args.picture), draw(read_table(args.table)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("table", help="CSV file")
    parser.add_argument("picture", help="SVG file")
    return exit_code(make, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
