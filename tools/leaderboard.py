"""Draws a table of measurements: a row's mean with its 95 % interval, and where it has them its seconds.

    python tools/leaderboard.py docs/results.csv docs/leaderboard.svg

The columns are the row's name, seeds, any others, the measure in %, its deviation over the seeds, seconds
(of one training; may be left out) and recipe. Hollow marks are rows whose recipe is named: an earlier one
was measured. The interval is Student's t. The colours follow the reader's light or dark scheme.
"""

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas
from scipy.stats import t

# of the light scheme → of the dark one
COLOURS = {"#ffffff": "#15181e", "#222233": "#e4e7ee", "#d0d4dc": "#3a404c", "#0b5cad": "#6cb0f5"}
PAPER, INK, GRID, MARK = COLOURS
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "leaderboard", "font.size": 9}
SETTINGS |= {f"{part}.color": INK for part in ("text", "xtick", "ytick")} | {"grid.color": GRID}
SETTINGS |= {"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.facecolor": PAPER}
SETTINGS |= {"figure.facecolor": PAPER, "axes.grid": True, "axes.axisbelow": True}


def draw(table: pandas.DataFrame) -> str:
    """The figure of a table as SVG."""
    name, measure = table.columns[0], table.columns[table.columns.get_loc("deviation") - 1]
    error = t.ppf(0.975, table["seeds"] - 1) * table["deviation"] / table["seeds"] ** 0.5
    faces = [PAPER if is_earlier else MARK for is_earlier in table["recipe"].notna()]
    rows, columns = range(len(table)), [measure, *table.columns.intersection(["seconds"])]
    with plt.rc_context(SETTINGS):
        figure, panels = plt.subplots(
            1, len(columns), sharey=True, squeeze=False, figsize=(8, 1 + len(table) / 5)
        )
        for axes, column in zip(panels[0], columns):
            axes.scatter(table[column], rows, c=faces, edgecolors=MARK, zorder=3)
        for axes in panels[0, 1:]:
            axes.set(xscale="log", xlabel="seconds of training")
            axes.set_xticks((10, 20, 50, 100, 200), labels=("10", "20", "50", "100", "200"))
            axes.minorticks_off()
        first = panels[0, 0]
        first.errorbar(table[measure], rows, xerr=error, fmt="none", ecolor=MARK)
        first.set(yticks=rows, yticklabels=table[name], xlabel=f"{measure} in %, 95 % interval")
        first.invert_yaxis()
        figure.tight_layout()
        figure.savefig(text := StringIO(), format="svg", metadata={"Date": None})
        plt.close(figure)
    rules = "".join(
        f'[style*="{part}: {light}"] {{{part}: {dark} !important}} '
        for light, dark in COLOURS.items()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{{rules}}}</style>"
    return text.getvalue().replace("<defs>", f"{style}<defs>", 1)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(draw(pandas.read_csv(source)), encoding="utf-8")
