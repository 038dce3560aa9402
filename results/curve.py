"""The few-shot curve: accuracy against shots, one line a trainer and config, one PNG a data set."""

import os
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes

from trainers.common.files import write_atomically

from .rows import Table

MARKERS = "osD^vP*X"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 0 of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0


def plot_curve(axes: Axes, table: Table, data: str, colours: dict[str, str] | None = None) -> None:
    """The lines of one data set of the few-shot table (see ``results.table``): mean ± sample standard deviation over a logarithmic axis.

    Args:
        colours: trainer and config → Matplotlib's colour; without it Matplotlib's own order.
    """
    for number, row in enumerate(row for row in table.rows if row.key[0] == data):
        figures, name = table.figures(row), " ".join(row.key[2:])
        means, deviations = zip(*(mean_and_deviation(figures[shots]) for shots in table.columns))
        axes.errorbar(
            table.columns,
            means,
            deviations,
            marker=MARKERS[number % len(MARKERS)],
            linestyle="-" if number < len(MARKERS) else "--",
            capsize=3,
            label=name,
            color=colours and colours[name],
        )  # colours alone come again after some lines
    axes.set_xscale("log", base=2)
    axes.set_xticks(table.columns, map(str, table.columns))
    axes.set(xlabel="training images a class", ylabel="accuracy in % on all classes")
    axes.grid(alpha=0.3)
    legend(axes)


def legend(axes: Axes) -> None:
    """Below the axes, where it covers nothing."""
    axes.figure.legend(
        loc="outside lower center",
        ncols=1 if any(len(label) > 28 for label in axes.get_legend_handles_labels()[1]) else 2,
        frameon=False,
        fontsize="small",
    )


def draw_curves(table: Table, folder: str) -> list[str]:
    """Draws the few-shot table.

    Returns:
        paths of the files ``curve_<data set>.png`` in ``folder``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    paths = []
    for data in dict.fromkeys(row.key[0] for row in table.rows):
        figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
        plot_curve(axes, table, data)
        axes.set_title(data)
        path = os.path.join(folder, f"curve_{data.replace(' ', '_')}.png")
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
        pyplot.close(figure)
        paths.append(path)
    return paths
