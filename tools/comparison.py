"""What cross-validated results say: means of each setting, and differences between settings."""

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib import rc_context
from matplotlib.figure import Figure
from pandas import DataFrame, Series
from tabulate import tabulate

from results.report.figures import STYLE, svg_of
from trainers.common.errors import UserError

FIGURES = (
    "train base worst_base new H styles_H ece_base ece_new nll_base nll_new ece_fit_base ece_fit_new "
    "nll_fit_base nll_fit_new mistakes_base mistakes_new unknown"
).split()
COMPARED = (
    "train base worst_base new H styles_H ece_fit_base ece_fit_new mistakes_base unknown".split()
)
FOLD = ["task", "seed"]
SWAPPED = "_swapped"
RESAMPLES = 5000
Row = dict[str, Any]  # a line of the results, or a setting


def task_of(name: str) -> str:
    """The task of a row's ``task``, which may be the one with its halves swapped."""
    return name.removesuffix(SWAPPED)


def figures_of(rows: Sequence[Row]) -> DataFrame:
    """``FIGURES`` by setting, task and seed."""
    keys = ["setting", *FOLD]
    frame = DataFrame(rows, columns=[*keys, *FIGURES])
    return frame.drop_duplicates(keys, keep="last").set_index(keys)


def by_task(figures: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Means over folds and both directions by setting and task, NaN where no line has the figure;
    and the numbers of ``tasks`` and ``runs`` by setting."""
    means = figures.groupby(["setting", lambda key: task_of(key[1])]).mean()
    sizes = {"tasks": means.groupby("setting").size(), "runs": figures.groupby("setting").size()}
    return means, DataFrame(sizes)


def table(settings: Sequence[Row], rows: Sequence[Row]) -> str:
    """Means over tasks of means over folds and directions."""
    means, sizes = by_task(figures_of(rows))
    described = DataFrame(settings, columns=["name", "description"]).set_index("name")
    lines = described.join(sizes, how="inner").join(means.groupby("setting").mean())
    cells = lines.rename_axis("setting").astype(object).fillna("")
    return tabulate(cells, "keys", "pipe", floatfmt=".2f")


def differences(
    settings: Sequence[Row], rows: Sequence[Row], first: str | None = None
) -> DataFrame:
    """Differences of each setting to one, the first that has results unless ``first`` names it,
    paired over the folds of which both have the figure.

    Returns:
        a line a setting: ``tasks`` and ``runs`` that both have; for each of ``COMPARED`` the mean
        over tasks, and the ends of the middle 95 % of a bootstrap over tasks; None without any.

    Raises:
        UserError: the named one has no result.
    """
    figures = figures_of(rows)
    names = [setting["name"] for setting in settings if setting["name"] in figures.index]
    first = first or names[0]
    if first not in names:
        raise UserError(f"--first {first} has no result; there are: {', '.join(names)}")
    folds = figures.index.droplevel("setting")
    reference = figures.loc[first]
    pairs = (figures - reference.reindex(folds).to_numpy())[folds.isin(reference.index)]
    means, sizes = by_task(pairs.drop(first, level="setting"))
    lines = sizes.join(means[COMPARED].groupby("setting").agg(interval))
    return lines.rename_axis(f"less {first}")


def interval(values: Series) -> tuple[float, float, float] | None:
    """Mean, and the middle 95 % of a bootstrap over the values that there are."""
    values = values.dropna()
    if values.empty:
        return None
    drawn = numpy.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    return values.mean(), *numpy.quantile(drawn.mean(axis=1), [0.025, 0.975])


def difference_table(compared: DataFrame) -> str:
    """The table of what ``differences`` gives."""
    text = "{:+.2f} ({:+.2f} … {:+.2f})".format
    cells = compared.copy()
    for figure in COMPARED:
        cells[figure] = [
            text(*cell) if isinstance(cell, tuple) else "" for cell in compared[figure]
        ]
    return tabulate(cells, "keys", "pipe")


def draw(compared: DataFrame) -> str:
    """The picture of the differences in H, with their intervals, as SVG."""
    shown = compared["H"].dropna()[::-1]
    mean, low, high = numpy.reshape([*shown], (-1, 3)).T
    # letters as text
    with rc_context({**STYLE, "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8, 1 + len(shown) / 4), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(mean, shown.index, xerr=[mean - low, high - mean], fmt="o", capsize=3)
        axes.axvline(0, color="grey", linestyle=":")
        axes.set(xlabel=f"H, {compared.index.name}, in points, 95 % interval over tasks")
        return svg_of(figure)
