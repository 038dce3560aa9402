"""Draws a table of measurements: a row's mean with its 95 % interval, and where it has them its
seconds.

    python tools/leaderboard.py docs/data/leaderboard.csv docs/leaderboard.svg

The columns are the row's name, seeds, any others, the measure in %, its deviation over the seeds,
seconds (of one training; may be left out) and recipe. Hollow marks are rows whose recipe is named:
an earlier one was measured. The interval is Student's t. The colours follow the reader's light or
dark scheme.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import argparse
from collections.abc import Sequence

import pandas
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import t

from results.report.figures import STYLE, svg_of


def draw(table: pandas.DataFrame) -> str:
    """The figure of a table as SVG."""
    name = table.columns[0]
    measure = table.columns[table.columns.get_loc("deviation") - 1]
    error = t.ppf(0.975, table["seeds"] - 1) * table["deviation"] / table["seeds"] ** 0.5
    faces = ["none" if is_earlier else "C0" for is_earlier in table["recipe"].notna()]
    rows = range(len(table))
    columns = [measure, *table.columns.intersection(["seconds"])]
    # letters as text
    with rc_context({**STYLE, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 1 + len(table) / 5), layout="tight")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, column in zip(panels, columns):
            axes.grid(alpha=0.3)
            axes.scatter(table[column], rows, c=faces, edgecolors="C0", zorder=3)
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="CSV file")
    parser.add_argument("picture", type=Path, help="SVG file")
    args = parser.parse_args(arguments)
    args.picture.write_text(draw(pandas.read_csv(args.table)), encoding="utf-8")


if __name__ == "__main__":
    main()
