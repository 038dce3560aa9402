"""The figures of a report: their drawing, reading and writing, one SVG for light
and for dark pages."""

import base64
import os
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, groupby

import numpy
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter
from pandas import DataFrame

from results.answers import histogram, reliability_points, risk_coverage
from results.kept import read_uncertainties
from results.rows import Table
from results.runs import Arrays, Curve, RunSeries, training_curve
from results.svg import INK, STYLE, SVG_MARK, svg_of
from trainers.common.files import check_output, write_text
from trainers.evaluation.uncertainty import BINS

FIGURE_SIZE = (4.8, 3.7)  # inches; shrunk to a phone's width the text is still readable
RISK_LINES = {"max_probability": ("probability", "-"), "vacuity": ("vacuity", "--")}  # of risk
PER_POINT = (
    10  # images, at least, of a reliability diagram's points: a share of fewer is too uncertain
)
SEVERITY = 3  # of the corrupted images in the vacuities' histogram, out of 1 to 5
CORRUPTED = f"corrupted, severity {SEVERITY}"
GROUPS = {
    "right": ("C2", "-"),
    "wrong": ("C1", "--"),
    "new classes": ("C0", "-."),
    CORRUPTED: ("C3", ":"),
}
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
MARKERS = "osD^vP*Xh"  # not as many as colours: the pairs come again after 72 lines
MOST_AXIS_LABELS = 6  # of a logarithmic axis, at most: more run into one another
Colours = dict[str, str]  # a model's name → Matplotlib's colour


@dataclass(frozen=True)
class Figure:
    """One figure, which is not drawn yet.

    Attributes:
        name: of its file, without ending.
        title: stands above it.
        reading: how to read it.
        alt: its content in words.
        draw: draws it on Matplotlib's axes.
    """

    name: str
    title: str
    reading: str
    alt: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class DrawnFigure:
    """One figure on the page: ``reading`` and ``alt`` as in ``Figure``, ``uri`` the SVG as a
    data URI."""

    reading: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Section:
    """A section of the page that shows figures: its heading, and the figures in their order."""

    title: str
    figures: list[DrawnFigure]


def curve_figures(tables: list[Table], colours: Colours) -> Iterator[Figure]:
    """Few-shot curves, one figure for each data set of the few-shot tables."""
    for table in tables:
        is_curve = table.title.startswith("few-shot") and len(table.names) > 1
        for data in table.means.index.unique("data set") if is_curve else ():
            yield curve(table, data, colours)


def curve(table: Table, data: str, colours: Colours) -> Figure:
    """The curves of one data set in a few-shot table: mean ± sample standard deviation over seeds,
    by number of training images, on a logarithmic axis.
    """
    means, deviations = (
        frame.loc[data] for frame in (table.means, table.deviations.fillna(0))
    )  # a line per model, a column per number of shots

    def draw(axes: Axes) -> None:
        for (model, mean), marker in zip(means.iterrows(), cycle(MARKERS)):
            name = " ".join(model)
            axes.errorbar(
                means.columns,
                mean,
                deviations.loc[model],
                fmt=f"{marker}-",
                capsize=3,
                color=colours[name],
                label=name,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(means.columns, map(str, means.columns))
        axes.set(xlabel="training images per class", ylabel="accuracy in % on all classes")
        finish(axes)

    lines = []
    for model, row in means.iterrows():
        values = ", ".join(f"{shots} {mean:.1f}" for shots, mean in row.items())
        lines.append(f"{' '.join(model)}: {values}")
    described = "; ".join(lines)
    return Figure(
        f"curve {data}",
        f"Few-shot learning, {data}",
        "Accuracy after training on that many images of each class; a curve that rises earlier needs "
        "fewer. The thin lines are ± one standard deviation over seeds.",
        f"Accuracy in percent on {data} by shots. {described}.",
        draw,
    )


def finish(axes: Axes) -> None:
    """A faint grid, and the legend below the axes, where it covers nothing."""
    axes.grid(alpha=0.3)
    labels = axes.get_legend_handles_labels()[1]
    axes.figure.legend(
        loc="outside lower center",
        ncols=1 if max(map(len, labels)) > 28 else 2,
        frameon=False,
        fontsize=9,  # points, 12 pixels
    )


def answer_figures(series: list[RunSeries], colours: Colours) -> Iterator[Figure]:
    """Reliability and risk–coverage: one figure for each task, one line for each of its series,
    which come task by task.
    """
    for title, of_task in groupby(series, lambda entry: entry.tested_on):
        members = list(of_task)
        names = ", ".join(entry.name for entry in members)
        carrying = [entry for entry in members if reliability_bins(entry) > 1]
        if carrying:
            of = ", ".join(entry.name for entry in carrying)
            yield Figure(
                f"reliability {title}",
                f"Reliability, {title}",
                "Each point is an equal share of the images, all seeds together: on the dotted line "
                "the probability is the share of right answers, below it the model is overconfident. "
                f"There are as many points as have {PER_POINT} images each, at most {BINS}.",
                f"Reliability diagram on {title} with a line for each of {of}.",
                partial(draw_reliability, series=carrying, colours=colours),
            )
        yield Figure(
            f"risk {title}",
            f"Risk and coverage, {title}",
            "If only the least uncertain images are answered, how many of those answers are wrong: "
            "the lower and the flatter on the left, the better the measure; mean over seeds.",
            f"Risk–coverage curves on {title} for {names}.",
            partial(draw_risk, series=members, colours=colours),
        )


def reliability_bins(entry: RunSeries) -> int:
    """Return the number of points of a reliability diagram that a series has images for."""
    return min(BINS, len(entry.pool("label")) // PER_POINT)


def draw_reliability(axes: Axes, series: list[RunSeries], colours: Colours) -> None:
    axes.axline((0, 0), slope=1, color=INK, alpha=0.5, linestyle=":", label="calibrated")
    for entry, marker in zip(series, cycle(MARKERS)):
        points = 100 * reliability_points(
            1 - entry.pool("max_probability"), entry.pool("right"), reliability_bins(entry)
        )
        axes.plot(*points.T, f"{marker}-", ms=4, color=colours[entry.name], label=entry.name)
    axes.set(xlabel="probability of the answer in %", ylabel="right answers in %")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    finish(axes)


def draw_risk(axes: Axes, series: list[RunSeries], colours: Colours) -> None:
    highest = 0.0
    for entry in series:
        wrong = [~run.known_answers["right"] for run in entry.runs]
        for measure, (by, line) in RISK_LINES.items():
            if not entry.has(measure):
                continue
            uncertainties = [run.known_answers[measure] for run in entry.runs]
            coverage, risk = risk_coverage(uncertainties, wrong)
            label = f"{entry.name}, by {by}"
            axes.plot(100 * coverage, 100 * risk, line, color=colours[entry.name], label=label)
            # the first few images' risk jumps between 0 and 1
            highest = max(highest, risk[coverage >= 0.05].max())
    axes.set(xlabel="images answered in %, least uncertain first", ylabel="wrong among them in %")
    axes.set(xlim=(0, 100), ylim=(0, max(115 * highest, 1)))
    finish(axes)


def vacuity_figures(series: list[RunSeries]) -> Iterator[Figure]:
    """Vacuity of right and wrong answers for each series that has it, and of new and corrupted
    images where all seeds have measured them.
    """
    for entry in series:
        if not entry.has("vacuity"):
            continue
        vacuity = entry.pool("vacuity")
        right = entry.pool("right")
        groups = {"right": vacuity[right], "wrong": vacuity[~right]}
        further = ""
        kept = [read_uncertainties(run) for run in entry.runs]
        if all("new_vacuity" in arrays for arrays in kept):
            new = [arrays["new_vacuity"] for arrays in kept]
            corrupted = [arrays["corrupted_vacuity"][SEVERITY - 1] for arrays in kept]
            groups |= {
                "new classes": numpy.concatenate(new),
                CORRUPTED: numpy.concatenate(corrupted),
            }
            further = (
                " Images of new classes, which get the names of base classes, and corrupted images "
                "should lie further right, too."
            )
        elif entry.first.part == "train_base":
            further = (
                " To see new classes and corrupted images beside them, run python -m "
                "experiments.lab.uncertainty on the protocol's folder."
            )
        sizes = ", ".join(
            f"{len(values)} {name}, median {numpy.median(values):.2g}"
            for name, values in groups.items()
            if len(values)
        )
        yield Figure(
            f"vacuity {entry.tested_on} {entry.name}",
            f"Vacuity, {entry.where}",
            "How much evidence is lacking (1: all of it; logarithmic) where the answer is right "
            "and where it is wrong; the further apart, the better the vacuity tells them "
            f"apart.{further}",
            f"Histograms of the vacuity of {entry.where}: {sizes}.",
            partial(draw_vacuities, groups=groups),
        )


def draw_vacuities(axes: Axes, groups: Arrays) -> None:
    edges, shares = histogram(groups)
    for name, share in shares.items():
        colour, line = GROUPS[name]
        label = f"{name} ({len(groups[name])})"
        axes.stairs(share, edges, color=colour, ls=line, lw=1.6, label=label)
    axes.set_xscale("log")
    subs = (1,) if edges[-1] > 100 * edges[0] else (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=MOST_AXIS_LABELS))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="vacuity", ylabel="share of the images in %")
    finish(axes)


def training_figures(series: list[RunSeries], colours: Colours) -> Iterator[Figure]:
    """Loss and accuracy by epoch, one figure each for each task that was trained in."""
    curves: dict[str, dict[str, list[dict[str, Curve]]]] = defaultdict(dict)
    for entry in series:
        if of_seeds := [curve for run in entry.runs if (curve := training_curve(run))]:
            curves[entry.tested_on][entry.name] = of_seeds
    for where, models in curves.items():
        for tag, (title, ylabel, reading) in TRAINING.items():
            yield Figure(
                f"training {tag} {where}",
                f"{title}, {where}",
                reading,
                f"{title} by epoch on {where} for {', '.join(models)}.",
                partial(draw_training, curves=models, tag=tag, ylabel=ylabel, colours=colours),
            )


def draw_training(
    axes: Axes,
    curves: dict[str, list[dict[str, Curve]]],
    tag: str,
    ylabel: str,
    colours: Colours,
) -> None:
    """Draw one curve of each training; curves: name → a ``training_curve`` for each seed; tag: which of its
    curves."""
    for name, seeds in curves.items():
        # a line per epoch, a column per seed
        frame = DataFrame([seed[tag] for seed in seeds]).T.sort_index()
        axes.plot(frame, color=colours[name], alpha=0.35, lw=0.9)
        mean = frame.dropna().mean(axis=1)
        axes.plot(mean, color=colours[name], linewidth=1.8, label=name)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    finish(axes)


def write_figure(figure: Figure, folder: str, taken: Counter[str]) -> str:
    """Writes ``<name>.svg`` into a folder.

    Args:
        taken: how often a name was taken in this folder; a figure whose name is gets a number.

    Returns:
        the SVG as a data URI.
    """
    stem = re.sub(r"\W+", "-", figure.name).strip("-").lower()
    taken[stem] += 1
    number = f"-{taken[stem]}" if taken[stem] > 1 else ""
    path = os.path.join(folder, f"{stem}{number}.svg")
    check_output("figure", path, SVG_MARK)
    with rc_context(STYLE):
        canvas = Canvas(figsize=FIGURE_SIZE, layout="constrained")
        axes = canvas.subplots()
        figure.draw(axes)
        axes.set_title(textwrap.fill(figure.title, 52))
        svg = svg_of(canvas)
    write_text(path, svg)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
