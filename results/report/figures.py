"""The figures of a report: what is drawn, how it is read, and how it is written, one SVG for light and for dark pages."""

import base64
import io
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter

from trainers.common.files import check_output, write_text

from ..answers import histogram, reliability_points, risk_coverage
from ..curve import MARKERS, finish, plot_curve
from ..kept import read_doubts
from ..rows import Table
from ..runs import Curve, Series, Setting, is_right, training_curve

SIZE = (4.8, 3.7)  # inches; shrunk to a phone's width the text is still readable
PAPERS = {"light": "#ffffff", "dark": "#171b21"}
INKS = {"light": "#1d2430", "dark": "#e4e8ee"}
INK = "#123456"  # of what is drawn in the page's own ink
# Colours that people with any kind of colour vision tell apart, and that stand out from both papers.
COLOURS = (
    "#1f78b8",
    "#d55e00",
    "#00855f",
    "#c0549a",
    "#8067c0",
    "#96700f",
    "#6f7a88",
    "#d63a6e",
)
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    "grid.color": "#808080",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "font.size": 10,
    "text.parse_math": False,  # nothing in a label is taken for a formula
    "svg.hashsalt": "report",
    "svg.fonttype": "path",
}
MEASURES = {"max_probability": "probability", "vacuity": "vacuity"}  # of risk and coverage
SEVERITY = 3  # of the corrupted images in the vacuities' histogram, out of 1 to 5
CORRUPTED = f"corrupted, severity {SEVERITY}"
GROUPS = {"right": "C2", "wrong": "C1", "new classes": "C0", CORRUPTED: "C3"}


@dataclass
class Figure:
    """One figure.

    Attributes:
        name: of its file, without ending; title: stands above it; reading: how to read it; alt: what it shows, in words.
        draw: function of Matplotlib's axes.
    """

    name: str
    title: str
    reading: str
    alt: str
    draw: Callable[[Axes], None]


def table_figures(tables: Iterable[Table], colours: Mapping[str, str]) -> Iterator[Figure]:
    """Bars of the base-to-new tables and curves of the few-shot tables, one for each data set."""
    for table in tables:
        for data in table.means.index.unique("data set") if len(table.means) else ():
            if table.title.startswith("base-to-new"):
                yield bars(table, data, colours)
            elif table.title.startswith("few-shot") and len(table.frame.columns) > 1:
                yield Figure(
                    f"curve {data}",
                    f"Few-shot learning, {data}",
                    "Accuracy after training on that many images of each class; what rises earlier "
                    "learns from fewer, the thin lines are ± one standard deviation over seeds.",
                    f"Accuracy in percent on {data} by shots. {description(table, data)}.",
                    partial(plot_curve, table=table, data=data, colours=colours),
                )


def row_names(table: Table, data: str) -> list[str]:
    """What a data set's rows are called; with the number of shots only where the rows differ in it."""
    rows = table.means.loc[[data]].index
    several = "shots" in table.heads and table.means.index.unique("shots").size > 1
    models = [" ".join(row[-2:]) for row in rows]
    return [f"{m}, {row[1]} shots" if several else m for m, row in zip(models, rows)]


def description(table: Table, data: str) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{column} {mean:.1f}" for column, mean in means.items())
        for name, (_, means) in zip(row_names(table, data), table.means.loc[[data]].iterrows())
    )


def bars(table: Table, data: str, colours: Mapping[str, str]) -> Figure:
    names = row_names(table, data)
    means, deviations = (
        figures.loc[[data]].fillna(0).set_axis(names).T
        for figures in (table.means, table.deviations)
    )
    # with shots in its name a model has no colour of its own
    paints = [colours.get(name, f"C{number}") for number, name in enumerate(names)]
    look = {"color": paints, "ecolor": INK, "capsize": 3, "width": 0.75, "rot": 0}

    def draw(axes: Axes) -> None:
        means.plot.bar(ax=axes, yerr=deviations, legend=False, **look)
        axes.set(ylabel="accuracy in %")
        finish(axes)

    return Figure(
        f"bars {data}",
        f"Base and new classes, {data}",
        "Accuracy on the classes that were trained on, on the others, and the harmonic mean H of "
        "both; taller is better, the thin lines are ± one standard deviation over seeds.",
        f"Bars of the accuracy in percent on {data}. {description(table, data)}.",
        draw,
    )


def answer_figures(
    series: list[Series], named: dict[Setting, str], colours: Mapping[str, str]
) -> Iterator[Figure]:
    """Reliability and risk–coverage: one figure for each setting, one line for each of its series."""
    for setting in dict.fromkeys(one.setting for one in series):
        here, title = [one for one in series if one.setting == setting], named[setting]
        names = ", ".join(one.name for one in here)
        yield reliability(
            {
                one.name: reliability_points(1 - one.pooled("max_probability"), one.right)
                for one in here
            },
            colours,
            title,
        )
        lines = {
            (one.name, measure): risk_coverage(
                [run.known_answers[measure] for run in one.runs],
                [~is_right(run.known_answers) for run in one.runs],
            )
            for one in here
            for measure in MEASURES
            if one.has(measure)
        }
        yield Figure(
            f"risk {title}",
            f"Risk and coverage, {title}",
            "If only the least doubted images are answered, how many of those answers are wrong: "
            "the lower and the flatter on the left, the better the doubt; mean over seeds.",
            f"Risk–coverage curves on {title} for {names}.",
            partial(draw_risk, lines=lines, colours=colours),
        )


def reliability(lines: dict[str, numpy.ndarray], colours: Mapping[str, str], title: str) -> Figure:
    """lines: name → points (B, 2)."""

    def draw(axes: Axes) -> None:
        axes.axline((0, 0), slope=1, color=INK, alpha=0.5, linestyle=":", label="calibrated")
        for number, (name, points) in enumerate(lines.items()):
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(*(100 * points.T), marker, ls="-", ms=4, color=colours[name], label=name)
        axes.set(xlabel="probability of the answer in %", ylabel="right answers in %")
        axes.set(xlim=(0, 100), ylim=(0, 100))
        finish(axes)

    return Figure(
        f"reliability {title}",
        f"Reliability, {title}",
        "Each point is a fifteenth of the images, all seeds together: on the dotted line a model "
        "is right as often as it says, below it is too sure of itself.",
        f"Reliability diagram on {title} with a line for each of {', '.join(lines)}.",
        draw,
    )


def draw_risk(
    axes: Axes,
    lines: dict[tuple[str, str], tuple[numpy.ndarray, numpy.ndarray]],
    colours: Mapping[str, str],
) -> None:
    """lines: (name, measure) → coverage and risk, (N,) each."""
    for (name, measure), (coverage, risk) in lines.items():
        axes.plot(
            100 * coverage,
            100 * risk,
            color=colours[name],
            linestyle="-" if measure == "max_probability" else "--",
            label=f"{name}, by {MEASURES[measure]}",
        )
    # the first few images' risk jumps between 0 and 1
    highest = max(risk[coverage >= 0.05].max() for coverage, risk in lines.values())
    axes.set(xlabel="images answered in %, least doubted first", ylabel="wrong among them in %")
    axes.set(xlim=(0, 100), ylim=(0, max(115 * highest, 1)))
    finish(axes)


def vacuity_figures(series: list[Series], named: dict[Setting, str]) -> Iterator[Figure]:
    """Vacuity of right and wrong answers for each series that has it, and of new and corrupted images where they were measured."""
    for one in (one for one in series if one.has("vacuity")):
        where = f"{one.name}, {named[one.setting]}"
        vacuity, right = one.pooled("vacuity"), one.right
        groups = {"right": vacuity[right], "wrong": vacuity[~right], **unknown(one)}
        sizes = ", ".join(
            f"{len(values)} {name}, median {numpy.median(values):.2g}"
            for name, values in groups.items()
            if len(values)
        )
        further = (
            " What is not known (new classes, called by names of base classes) or corrupted should "
            "lie further right, too."
            if len(groups) > 2
            else " For new classes and corrupted images beside them: python -m "
            "analysis.uncertainty with the protocol's folder."
            if one.runs[0].record["run"]["part"] == "train_base"
            else ""
        )
        yield Figure(
            f"vacuity {named[one.setting]} {one.name}",
            f"Vacuity, {where}",
            "How much evidence is lacking (1: all of it; logarithmic) where the answer is right "
            f"and where it is wrong; the further apart, the more the vacuity tells.{further}",
            f"Histograms of the vacuity of {where}: {sizes}.",
            partial(draw_vacuities, groups=groups),
        )


def unknown(one: Series) -> dict[str, numpy.ndarray]:
    """Vacuities (N,) of new classes' images and of corrupted ones, all seeds together; none unless all seeds have them."""
    doubts = [read_doubts(run) for run in one.runs]
    if any("new_vacuity" not in arrays for arrays in doubts):
        return {}
    return {
        "new classes": numpy.concatenate([arrays["new_vacuity"] for arrays in doubts]),
        CORRUPTED: numpy.concatenate(
            [arrays["corrupted_vacuity"][SEVERITY - 1] for arrays in doubts]
        ),
    }


def draw_vacuities(axes: Axes, groups: dict[str, numpy.ndarray]) -> None:
    edges, shares = histogram(groups)
    for number, (name, share) in enumerate(shares.items()):
        label, line = f"{name} ({len(groups[name])})", ("-", "--", "-.", ":")[number]
        axes.stairs(share, edges, color=GROUPS[name], ls=line, lw=1.6, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if edges[-1] > 100 * edges[0] else (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="vacuity", ylabel="share of the images in %")
    finish(axes)


TRAINING = {
    "loss": (
        "Training loss",
        "loss",
        "Mean loss of each epoch, each seed thin and their mean thick; compare a line's course, "
        "not its height, as methods have different losses.",
    ),
    "acc": (
        "Training accuracy",
        "accuracy in %",
        "Share of training images answered rightly in each epoch, each seed thin and their mean "
        "thick; far above the accuracy on test images it means overfitting.",
    ),
}


def training_figures(
    series: list[Series], named: dict[Setting, str], colours: Mapping[str, str]
) -> Iterator[Figure]:
    """Loss and accuracy by epoch, one figure each for each setting that was trained in."""
    curves: dict[tuple[Setting, str], dict[str, list[Curve]]] = {}
    for one in series:
        for run in one.runs:
            for tag, values in training_curve(run).items():
                curves.setdefault((one.setting, tag), {}).setdefault(one.name, []).append(values)
    for (setting, tag), lines in curves.items():
        title, ylabel, reading = TRAINING[tag]
        yield Figure(
            f"training {tag} {named[setting]}",
            f"{title}, {named[setting]}",
            reading,
            f"{title} by epoch on {named[setting]} for {', '.join(lines)}.",
            partial(draw_training, curves=lines, ylabel=ylabel, colours=colours),
        )


def draw_training(
    axes: Axes, curves: dict[str, list[Curve]], ylabel: str, colours: Mapping[str, str]
) -> None:
    """curves: name → a dict epoch → value for each seed."""
    for name, seeds in curves.items():
        for seed in seeds:
            axes.plot(list(seed), list(seed.values()), color=colours[name], alpha=0.35, lw=0.9)
        common = sorted(set.intersection(*map(set, seeds)))
        means = [numpy.mean([seed[epoch] for seed in seeds]) for epoch in common]
        axes.plot(common, means, color=colours[name], linewidth=1.8, label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    finish(axes)


def write_figure(figure: Figure, folder: str, taken: set[str]) -> str:
    """Writes ``<name>.svg`` into a folder: on a transparent ground, in the ink of the page that shows it, light or dark.

    Args:
        taken: the names that are taken in this folder; a figure whose name is gets a number, and is added.

    Returns:
        the SVG as a data URI.
    """
    stem = plain = re.sub(r"\W+", "-", figure.name).strip("-").lower()
    while stem in taken:
        stem = f"{plain}-{sum(name.startswith(plain) for name in taken) + 1}"
    taken.add(stem)
    buffer = io.StringIO()
    with rc_context(STYLE):
        canvas = Canvas(figsize=SIZE, layout="constrained")
        axes = canvas.subplots()
        figure.draw(axes)
        axes.set_title(textwrap.fill(figure.title, 52))
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    ink = (
        f"svg{{color:{INKS['light']}}}"
        f"@media(prefers-color-scheme:dark){{svg{{color:{INKS['dark']}}}}}</style>"
    )
    svg = buffer.getvalue().replace(INK, "currentColor").replace("</style>", ink, 1)
    path = os.path.join(folder, f"{stem}.svg")
    check_output("figure", path, "https://matplotlib.org/")
    write_text(path, svg)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
