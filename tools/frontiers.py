"""What cross-validated results say: tables of means, differences between settings, and frontiers of base against new accuracy."""

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


def interval(differences: numpy.ndarray) -> str:
    """Mean of paired differences (N,) or of resampled ones (R,), with the middle 95 % of its
    bootstrap.
    """
    low, high = numpy.quantile(differences, [0.025, 0.975])
    return f"{low:+.2f} … {high:+.2f}"


def resamples(count: int) -> numpy.ndarray:
    """Indices (R, N) of bootstrap samples of N."""
    return numpy.random.default_rng(0).integers(count, size=(RESAMPLES, count))


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


def differences(settings: Sequence[Row], rows: Sequence[Row], first: str | None = None) -> str:
    """Differences of each setting to one, the first that has results unless ``first`` names it,
    paired over the folds that both have: mean over tasks, and the middle 95 % of a bootstrap over
    tasks.

    Raises:
        UserError: the named one has no result.
    """
    figures, lines = by_setting(rows), []
    names = [setting["name"] for setting in settings if setting["name"] in figures]
    first = first or names[0]
    if first not in figures:
        raise UserError(f"--first {first} has no result; there are: {', '.join(names)}")
    reference = figures.pop(first)
    for name, runs in figures.items():
        common = runs.index.intersection(reference.index)
        pair = by_task(runs.loc[common]) - by_task(reference.loc[common])
        cells = []
        for figure in COMPARED:
            values = pair[figure].dropna().to_numpy()  # (T,)
            if len(values):
                drawn = values[resamples(len(values))].mean(axis=1)
                cells.append(f"{values.mean():+.2f} ({interval(drawn)})")
            else:
                cells.append("")
        lines.append([name, len(pair), len(common), *cells])
    return tabulate(lines, [f"less {first}", "tasks", "runs", *COMPARED], "pipe")


def frontier(lines: Sequence[DataFrame], drawn: numpy.ndarray) -> numpy.ndarray:
    """Points (R, P, 2), base and new accuracy of a method at P strengths, means over resamples (R,
    T) of the tasks.
    """
    values = numpy.array([by_task(of)[["base", "new"]] for of in lines])  # (P, T, 2)
    return values[:, drawn].mean(axis=2).transpose(1, 0, 2)


def attained(points: numpy.ndarray, base: float) -> float:
    """The highest new accuracy among a method's points (P, 2) with that base accuracy or more; NaN
    where none has.
    """
    reaching = points[points[:, 0] >= base]
    return float(reaching[:, 1].max()) if len(reaching) else float("nan")


def gap(upper: numpy.ndarray, lower: numpy.ndarray) -> float:
    """How much higher a method's new accuracy is than another's at the same base accuracy or more:
    mean over the other's frontier, its
    points (P, 2) that no other point exceeds in both. NaN where its base accuracies are out of reach."""
    ends = [point for point in lower if point[1] >= attained(lower, point[0])]
    return float(numpy.mean([attained(upper, base) - new for base, new in ends]))


def frontiers(settings: Sequence[Row], rows: Sequence[Row]) -> tuple[str, dict[str, numpy.ndarray]]:
    """Table of how far each frontier lies above the first one, and the mean points (P, 2) of each,
    over the folds that all settings have;
    both empty where no setting is on a frontier."""
    figures = by_setting(rows)
    groups: dict[str, list[DataFrame]] = {}
    for setting in settings:
        for name in setting.get("frontiers", []) if setting["name"] in figures else []:
            groups.setdefault(name, []).append(figures[setting["name"]])
    if not groups:
        return "", {}
    folds = set.intersection(*(set(lines.index) for group in groups.values() for lines in group))
    tasks = len({task_of(task) for task, _ in folds})
    drawn, once = resamples(tasks), numpy.arange(tasks)[None]
    points, means = {}, {}
    for name, group in groups.items():
        common = [lines.loc[sorted(folds)] for lines in group]
        points[name], means[name] = frontier(common, drawn), frontier(common, once)[0]
    first, *others = groups
    lines = []
    for name in others:
        gaps = numpy.array([gap(*pair) for pair in zip(points[name], points[first])])
        lost = numpy.isnan(gaps)
        mean, share = gap(means[name], means[first]), f"{100 * lost.mean():.0f} %"
        lines.append([name, mean, interval(gaps[~lost]), share])
    heads = [f"frontier, over that of {first}", "new, at that base or more"]
    heads += ["95 % interval", "resamples out of reach"]
    return tabulate(lines, heads, "pipe", floatfmt="+.2f"), means


def draw(points: dict[str, numpy.ndarray], path: str) -> None:
    """Writes the picture of the frontiers."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, of in points.items():
        axes.plot(*of[of[:, 0].argsort()].T, "o-", label=name)
    axes.set(xlabel="base classes, accuracy in %", ylabel="new classes, accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
