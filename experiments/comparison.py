"""What cross-validated results say: means of each setting, and differences between settings."""

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib import rc_context
from matplotlib.figure import Figure
from pandas import DataFrame, Series, isna
from tabulate import tabulate

from results.comparison import FEWEST_DATA_SETS, Difference, powerless_over, with_minus_signs
from results.render import DAGGER
from results.svg import STYLE, svg_of
from trainers.common.errors import UserError

NUMBERS = (
    "train base worst_base new H styles_H ece_base ece_new nll_base nll_new ece_fit_base ece_fit_new "
    "nll_fit_base nll_fit_new mistakes_base mistakes_new unknown"
).split()
COMPARED = (
    "train base worst_base new H styles_H ece_base ece_new ece_fit_base ece_fit_new nll_fit_base "
    "nll_fit_new mistakes_base mistakes_new unknown"
).split()
# of ``COMPARED``: no trained class is asked for
OF_NEW_CLASSES = ("new", "ece_new", "ece_fit_new", "nll_fit_new", "mistakes_new")
FOLD = ["task", "seed"]
SWAPPED = "_swapped"
Fields = dict[str, Any]  # a line of the results, or a setting


def task_of(name: str) -> str:
    """The task of a row's ``task``, which may be the one with its halves swapped."""
    return name.removesuffix(SWAPPED)


def frame_of(rows: Sequence[Fields]) -> DataFrame:
    """``NUMBERS`` by setting, task and seed."""
    keys = ["setting", *FOLD]
    frame = DataFrame(rows, columns=[*keys, *NUMBERS])
    return frame.drop_duplicates(keys, keep="last").set_index(keys)


def by_task(figures: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Means over folds and both directions by setting and task, NaN where no line has the figure;
    and the numbers of ``tasks`` and ``runs`` by setting."""
    means = figures.groupby(["setting", lambda key: task_of(key[1])]).mean()
    sizes = {"tasks": means.groupby("setting").size(), "runs": figures.groupby("setting").size()}
    return means, DataFrame(sizes)


def table(settings: Sequence[Fields], rows: Sequence[Fields]) -> str:
    """Means over tasks of means over folds and directions."""
    means, sizes = by_task(frame_of(rows))
    described = DataFrame(settings, columns=["name", "description"]).set_index("name")
    lines = described.join(sizes, how="inner").join(means.groupby("setting").mean())
    cells = lines.rename_axis("setting").astype(object).fillna("")
    return tabulate(cells, "keys", "pipe", floatfmt=".2f")


def differences(
    settings: Sequence[Fields], rows: Sequence[Fields], first: str | None = None
) -> DataFrame:
    """Differences of each setting to one, the first that has results unless ``first`` names it,
    paired over the folds of which both have the figure.

    Returns:
        a line a setting: ``tasks`` and ``runs`` that both have; for each of ``COMPARED`` the
        ``Difference`` over tasks, of fewer than ``FEWEST_DATA_SETS`` the mean, NaN without any and where one
        of both, whose description says so by †, keeps a classifier of the trained classes.

    Raises:
        UserError: the named one has no result.
    """
    figures = frame_of(rows)
    names = [setting["name"] for setting in settings if setting["name"] in figures.index]
    first = first or names[0]
    if first not in names:
        raise UserError(f"--first {first} has no result; there are: {', '.join(names)}")
    folds = figures.index.droplevel("setting")
    reference = figures.loc[first]
    pairs = (figures - reference.reindex(folds).to_numpy())[folds.isin(reference.index)]
    pairs = pairs.drop(first, level="setting").sort_index()
    _, sizes = by_task(pairs)
    marked = {each["name"] for each in settings if DAGGER in each.get("description", "")}
    lines = {}
    for setting in sizes.index:
        is_like = (setting in marked) == (first in marked)
        lines[setting] = {
            figure: over_tasks(pairs.loc[setting, figure])
            if is_like or figure in OF_NEW_CLASSES
            else float("nan")
            for figure in COMPARED
        }
    differing = DataFrame.from_dict(lines, "index", dtype=object, columns=COMPARED)
    return sizes.join(differing).rename_axis(f"minus {first}")


def over_tasks(values: Series) -> Difference | float:
    """The difference over tasks out of values by task and seed, each task's mean over its folds and
    directions counting once; see ``differences``."""
    tasks = values.dropna().groupby(lambda key: task_of(key[0]))
    means = tasks.mean()
    return Difference(means, tasks.sem()) if len(means) >= FEWEST_DATA_SETS else float(means.mean())


def cell(difference: Difference | float) -> str:
    """``+0.57 (−0.65 … +1.79)``; of too few tasks the mean alone, of none nothing."""
    if isinstance(difference, Difference):
        return str(difference)
    return "" if isna(difference) else with_minus_signs(f"{difference:+.2f} (no interval)")


def difference_table(compared: DataFrame) -> str:
    """The table of what ``differences`` gives."""
    cells = compared.copy()
    for figure in COMPARED:
        cells[figure] = [cell(difference) for difference in compared[figure]]
    return tabulate(cells, "keys", "pipe")


def verdicts(compared: DataFrame, figure: str = "H") -> str:
    """Two sentences for each setting: whether its difference in a measure is real, by Holm over the
    settings, and what would decide it; and whether Wilcoxon's test can show nothing."""
    among = [each for each in compared[figure] if isinstance(each, Difference)]
    first = compared.index.name.removeprefix("minus ")
    lines = [
        f"{figure}: {difference.verdict(setting, first, among)}"
        for setting, difference in compared[figure].items()
        if isinstance(difference, Difference)
    ]
    for each in among:
        lines.append(powerless_over(each.wilcoxon_floor, len(each.of), len(among)))
    return "\n".join(dict.fromkeys(filter(None, lines)))


def draw(compared: DataFrame) -> str:
    """The picture of the differences in H, with their intervals, as SVG."""
    shown = [isinstance(difference, Difference) for difference in compared["H"]]
    settings = compared["H"][shown][::-1]
    mean = numpy.array([difference.mean for difference in settings])
    low, high = numpy.reshape([difference.interval for difference in settings], (-1, 2)).T
    # letters as text
    with rc_context({**STYLE, "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8, 1 + len(settings) / 4), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(mean, settings.index, xerr=[mean - low, high - mean], fmt="o", capsize=3)
        axes.axvline(0, color="grey", linestyle=":")
        axes.set(xlabel=f"H, {compared.index.name}, in points, 95 % interval over tasks")
        return svg_of(figure)
