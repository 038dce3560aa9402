"""What cross-validated results say: means of each setting, and differences between settings."""

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure
from pandas import DataFrame
from tabulate import tabulate

from trainers.common.errors import UserError

FIGURES = (
    "train base new H styles_H ece_base ece_new nll_base nll_new ece_fit_base ece_fit_new".split()
)
FIGURES += "nll_fit_base nll_fit_new mistakes_base mistakes_new unknown".split()
COMPARED = "train base new H styles_H ece_fit_base ece_fit_new mistakes_base unknown".split()
FOLD = ["task", "seed"]
SWAPPED = "_swapped"
RESAMPLES = 5000
Row = dict[str, Any]  # a line of the results, or a setting


def task_of(name: str) -> str:
    """The task of a row's ``task``, which may be the one with its halves swapped."""
    return name.removesuffix(SWAPPED)


def by_setting(rows: Sequence[Row]) -> dict[str, DataFrame]:
    """Setting → its figures, a line for each ``task`` and ``seed``."""
    frame = DataFrame(list(rows), columns=["setting", *FOLD, *FIGURES])
    frame = frame.drop_duplicates(["setting", *FOLD], keep="last").set_index(FOLD)
    return {name: lines.drop(columns="setting") for name, lines in frame.groupby("setting")}


def by_task(lines: DataFrame) -> DataFrame:
    """Means over folds and both directions, a line a task; NaN where no line of it has the figure."""
    return lines.groupby(lambda fold: task_of(fold[0])).mean()


def table(settings: Sequence[Row], rows: Sequence[Row]) -> str:
    """Means over tasks of means over folds and directions."""
    lines, figures = [], by_setting(rows)
    for setting in settings:
        if setting["name"] in figures:
            runs = figures[setting["name"]]
            tasks = by_task(runs)
            means = tasks.mean().astype(object).fillna("")
            lines.append([setting["name"], setting["description"], len(tasks), len(runs), *means])
    return tabulate(
        lines, ["setting", "description", "tasks", "runs", *FIGURES], "pipe", floatfmt=".2f"
    )


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
    figures = by_setting(rows)
    lines: dict[str, Row] = {}
    names = [setting["name"] for setting in settings if setting["name"] in figures]
    first = first or names[0]
    if first not in figures:
        raise UserError(f"--first {first} has no result; there are: {', '.join(names)}")
    reference = figures.pop(first)
    for name, runs in figures.items():
        common = runs.index.intersection(reference.index)
        pair = by_task(runs.loc[common] - reference.loc[common])
        lines[name] = {"tasks": len(pair), "runs": len(common)}
        for figure in COMPARED:
            values = pair[figure].dropna().to_numpy()  # (T,)
            if len(values):
                drawn = numpy.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
                ends = numpy.quantile(drawn.mean(axis=1), [0.025, 0.975])
                lines[name][figure] = values.mean(), *ends
    frame = DataFrame.from_dict(lines, "index", columns=["tasks", "runs", *COMPARED])
    return frame.rename_axis(f"less {first}")


def difference_table(compared: DataFrame) -> str:
    """The table of what ``differences`` gives."""

    def text(cell: tuple[float, float, float] | None) -> str:
        return "{:+.2f} ({:+.2f} … {:+.2f})".format(*cell) if isinstance(cell, tuple) else ""

    cells = compared.assign(**{figure: compared[figure].map(text) for figure in COMPARED})
    return tabulate(cells, "keys", "pipe")


def draw(compared: DataFrame, path: str) -> None:
    """Writes the picture of the differences in H, with their intervals."""
    shown = compared["H"].dropna()[::-1]
    mean, low, high = numpy.reshape([*shown], (-1, 3)).T
    figure = Figure(figsize=(6, 1 + len(shown) / 3), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(mean, shown.index, xerr=[mean - low, high - mean], fmt="o", capsize=3)
    axes.axvline(0, color="grey", linestyle=":")
    axes.set(xlabel=f"H, {compared.index.name}, in points, 95 % interval over tasks")
    figure.savefig(path, dpi=150)
