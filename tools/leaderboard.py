"""Draws docs/leaderboard.svg out of docs/results.csv: H of all trainers, and their seconds of training.

    python tools/leaderboard.py [CSV [SVG]]

H is the mean over the seeds with its 95 % interval (Student's t). Seconds are of one training, the
milliseconds of a step times the steps; without any a trainer learns in a few passes over the images.
Hollow marks are rows whose column ``recipe`` says that an earlier recipe was measured. The colours
follow the reader's light or dark scheme.
"""

import sys
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
from scipy.stats import t

DOCS = Path(__file__).parents[1] / "docs"
# of the light scheme → of the dark one
COLOURS = {"#ffffff": "#15181e", "#222233": "#e4e7ee", "#d0d4dc": "#3a404c", "#0b5cad": "#6cb0f5"}
PAPER, INK, GRID, MARK = COLOURS
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "leaderboard", "font.size": 9}
SETTINGS |= {f"{part}.color": INK for part in ("text", "xtick", "ytick")} | {"grid.color": GRID}
SETTINGS |= {"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.facecolor": PAPER}
SETTINGS |= {"figure.facecolor": PAPER, "axes.grid": True, "axes.axisbelow": True}


def draw(table: pandas.DataFrame) -> str:
    """The figure as SVG; a row of the table, which has the columns of docs/results.csv, is a trainer."""
    table = table.sort_values("H").reset_index(drop=True)
    error = t.ppf(0.975, table["seeds"] - 1) * table["deviation"] / table["seeds"] ** 0.5
    faces = [PAPER if recipe else MARK for recipe in table["recipe"].fillna("")]
    with plt.rc_context(SETTINGS):
        figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(8, 6), width_ratios=(3, 2))
        left.errorbar(table["H"], table.index, xerr=error, fmt="none", ecolor=MARK)
        for axes, column in ((left, "H"), (right, "seconds")):
            axes.scatter(table[column], table.index, c=faces, edgecolors=MARK, zorder=3)
        left.set(yticks=table.index, yticklabels=table["trainer"], xlabel="H in %, 95 % interval")
        right.set(xscale="log", xlabel="seconds of training")
        right.set_xticks((10, 20, 50, 100, 200), labels=("10", "20", "50", "100", "200"))
        right.minorticks_off()
        figure.tight_layout()
        figure.savefig(text := StringIO(), format="svg", metadata={"Date": None})
        plt.close(figure)
    rules = "".join(
        f'[style*="{part}: {light}"] {{{part}: {dark} !important}} '
        for light, dark in COLOURS.items()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{{rules}}}</style>\n <defs>"
    return text.getvalue().replace("<defs>", style, 1)


if __name__ == "__main__":
    files = sys.argv[1:] + [DOCS / "results.csv", DOCS / "leaderboard.svg"][len(sys.argv) - 1 :]
    Path(files[1]).write_text(draw(pandas.read_csv(files[0])), encoding="utf-8")
