"""The few-shot curve: accuracy against shots, one line a trainer and config, one PNG a data set."""

import os
from collections.abc import Mapping

from matplotlib.axes import Axes

from trainers.common.files import check_output, write_atomically

from .rows import Table

MARKERS = "osD^vP*X"


def plot_curve(
    axes: Axes, table: Table, data: str, colours: Mapping[str, str | None] | None = None
) -> None:
    """The lines of one data set of the few-shot table (see ``results.table``): mean ± sample standard deviation over a logarithmic axis.

    Args:
        colours: trainer and config → Matplotlib's colour; without it Matplotlib's own order.
    """
    shots = table.frame.columns
    means = table.means.loc[[data]]
    deviations = table.deviations.fillna(0).loc[[data]]
    for number, row in enumerate(means.index):
        name = " ".join(row[1:])
        axes.errorbar(
            shots,
            means.loc[row],
            deviations.loc[row],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="-" if number < len(MARKERS) else "--",
            capsize=3,
            label=name,
            color=colours and colours[name],
        )  # colours alone come again after some lines
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, map(str, shots))
    axes.set(xlabel="training images a class", ylabel="accuracy in % on all classes")
    finish(axes)


def finish(axes: Axes) -> None:
    """A faint grid, and the legend below the axes, where it covers nothing."""
    axes.grid(alpha=0.3)
    labels = axes.get_legend_handles_labels()[1]
    axes.figure.legend(
        loc="outside lower center",
        ncols=1 if any(len(label) > 28 for label in labels) else 2,
        frameon=False,
        fontsize="small",
    )


def draw_curves(table: Table, folder: str) -> list[str]:
    """Draws the few-shot table.

    Returns:
        paths of the files ``curve_<data set>.png`` in ``folder``.

    Raises:
        UserError: a file of that name was drawn by something else.
    """
    from matplotlib.figure import Figure

    paths = []
    for data in table.means.index.unique("data set"):
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        plot_curve(axes, table, data)
        axes.set_title(data)
        path = os.path.join(folder, f"curve_{data.replace(' ', '_')}.png")
        check_output("curve", path, "Matplotlib version")
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
        paths.append(path)
    return paths
