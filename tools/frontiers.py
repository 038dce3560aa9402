"""What cross-validated results say: tables of means, differences between settings, and frontiers of base against new accuracy."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy
from tabulate import tabulate

FIGURES = (
    "train",
    "base",
    "new",
    "H",
    "styles_H",
    "ece_base",
    "ece_new",
    "nll_base",
    "nll_new",
    "ece_fit_base",
    "ece_fit_new",
    "nll_fit_base",
    "nll_fit_new",
    "mistakes_base",
    "mistakes_new",
    "unknown",
)
SWAPPED = "_swapped"
RESAMPLES = 5000
Row = dict[str, Any]  # a line of the results, or a setting


def task_of(name: str) -> str:
    """The task of a row's ``task``, which may be the one with its halves swapped."""
    return name.removesuffix(SWAPPED)


def pairs(rows: Sequence[Row], name: str) -> dict[tuple[str, int], Row]:
    return {(row["task"], row["seed"]): row for row in rows if row["setting"] == name}


def by_task(
    rows: dict[tuple[str, int], Row], keys: Iterable[tuple[str, int]], figure: str
) -> numpy.ndarray:
    """(T,) means of the keys' T tasks over folds and both directions; NaN where no row has the figure."""
    values: dict[str, list[float]] = {}
    for task, seed in sorted(keys):
        of_task = values.setdefault(task_of(task), [])
        if figure in rows[task, seed]:
            of_task.append(rows[task, seed][figure])
    return numpy.array(
        [numpy.mean(of_task) if of_task else numpy.nan for of_task in values.values()]
    )


def interval(differences: numpy.ndarray) -> str:
    """Mean of paired differences (N,) or of resampled ones (R,), with the middle 95 % of its bootstrap."""
    low, high = numpy.quantile(differences, [0.025, 0.975])
    return f"{low:+.2f} … {high:+.2f}"


def resamples(count: int) -> numpy.ndarray:
    """Indices (R, N) of bootstrap samples of N."""
    return numpy.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def table(settings: Sequence[Row], rows: Sequence[Row]) -> str:
    """Means over tasks, and H less that of the first setting over the pairs that both have."""
    lines, reference = [], pairs(rows, settings[0]["name"])
    for setting in settings:
        mine = pairs(rows, setting["name"])
        common = sorted(mine.keys() & reference.keys())
        if mine:
            difference = by_task(mine, common, "H") - by_task(reference, common, "H")
            gain = (
                [
                    f"{difference.mean():+.2f}",
                    interval(difference[resamples(len(difference))].mean(axis=1)),
                ]
                if common
                else ["", ""]
            )
            values = numpy.array([by_task(mine, mine, figure) for figure in FIGURES])  # (F, T)
            means = [
                of[~numpy.isnan(of)].mean() if not numpy.isnan(of).all() else "" for of in values
            ]
            tasks = values.shape[1]
            lines.append([setting["name"], setting["description"], tasks, len(mine), *means, *gain])
    return tabulate(
        lines,
        headers=["setting", "description", "tasks", "runs", *FIGURES, "H − first", "95 % interval"],
        floatfmt=".2f",
        tablefmt="pipe",
        disable_numparse=[len(FIGURES) + 4],
    )  # it would take the sign away


def frontier(
    settings: Sequence[Row],
    rows: Sequence[Row],
    keys: Sequence[tuple[str, int]],
    drawn: numpy.ndarray,
) -> numpy.ndarray:
    """Points (R, P, 2), base and new accuracy of a method at P strengths, means over resamples (R, T) of the tasks."""
    by_name = [pairs(rows, setting["name"]) for setting in settings]
    values = numpy.array(
        [[by_task(of, keys, half) for half in ("base", "new")] for of in by_name]
    ).transpose(0, 2, 1)  # (P, T, 2)
    return values[:, drawn].mean(axis=2).transpose(1, 0, 2)


def attained(points: numpy.ndarray, base: float) -> float:
    """The highest new accuracy among a method's points (P, 2) with that base accuracy or more; NaN where none has."""
    reaching = points[points[:, 0] >= base]
    return float(reaching[:, 1].max()) if len(reaching) else float("nan")


def gap(upper: numpy.ndarray, lower: numpy.ndarray) -> float:
    """How much higher a method's new accuracy is than another's at the same base accuracy or more: mean over the other's frontier, its
    points (P, 2) that no other point exceeds in both. NaN where its base accuracies are out of reach."""
    ends = [point for point in lower if point[1] >= attained(lower, point[0])]
    return float(numpy.mean([attained(upper, base) - new for base, new in ends]))


def frontiers(settings: Sequence[Row], rows: Sequence[Row]) -> tuple[str, dict[str, numpy.ndarray]]:
    """Table of how far each frontier lies above the first one, and the mean points (P, 2) of each, over the pairs that all settings have;
    both empty where no setting is on a frontier."""
    groups: dict[str, list[Row]] = {}
    for setting in settings:
        for name in setting.get("frontiers", []) if pairs(rows, setting["name"]) else []:
            groups.setdefault(name, []).append(setting)
    if not groups:
        return "", {}
    keys = sorted(
        set.intersection(
            *(set(pairs(rows, setting["name"])) for group in groups.values() for setting in group)
        )
    )
    tasks = len({task_of(task) for task, _ in keys})
    drawn = resamples(tasks)
    points = {name: frontier(group, rows, keys, drawn) for name, group in groups.items()}
    plain = {
        name: frontier(group, rows, keys, numpy.arange(tasks)[None])[0]
        for name, group in groups.items()
    }
    first, lines = next(iter(groups)), []
    for name in list(groups)[1:]:
        gaps = numpy.array([gap(mine, other) for mine, other in zip(points[name], points[first])])
        lines.append(
            [
                name,
                gap(plain[name], plain[first]),
                interval(gaps[~numpy.isnan(gaps)]),
                f"{100 * numpy.isnan(gaps).mean():.0f} %",
            ]
        )
    return tabulate(
        lines,
        headers=[
            f"frontier, over that of {first}",
            "new, at that base or more",
            "95 % interval",
            "resamples out of reach",
        ],
        floatfmt="+.2f",
        tablefmt="pipe",
    ), plain


def draw(points: dict[str, numpy.ndarray], path: str) -> None:
    """Writes the picture of the frontiers."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    for name, of in points.items():
        axes.plot(*of[of[:, 0].argsort()].T, "o-", label=name)
    axes.set(xlabel="base classes, accuracy in %", ylabel="new classes, accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
