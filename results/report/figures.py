"""The figures of a report: what is drawn, how it is read, and how it is written, for light and for dark pages."""

import base64
import io
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy
from cycler import cycler
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from trainers.common.files import write_atomically

from ..answers import histogram, reliability_points, risk_coverage
from ..curve import MARKERS, legend, mean_and_deviation, plot_curve
from ..rows import Row, Table
from ..runs import Curve, Series, Setting, is_right, read_doubts, training_curve

SIZE = (4.8, 3.7)  # inches; shrunk to a phone's width the text is still readable
# Colours that people with any kind of colour vision tell apart; each theme's stand out from its own paper.
THEMES = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1d2430",
        "cycle": [
            "#0072b2",
            "#d55e00",
            "#008560",
            "#b5478b",
            "#6a51a3",
            "#96690a",
            "#4a5568",
            "#c2185b",
        ],
    },
    "dark": {
        "paper": "#171b21",
        "ink": "#e4e8ee",
        "cycle": [
            "#5ab4f0",
            "#ff9248",
            "#35d0a0",
            "#f29bc7",
            "#b79cf2",
            "#ecc35a",
            "#a9b4c2",
            "#ff7aa8",
        ],
    },
}
READING = {  # how each kind of figure is read
    "bars": "Accuracy on the classes that were trained on, on the others, and the harmonic mean H of both; taller is better, the thin "
    "lines are ± one standard deviation over seeds.",
    "curve": "Accuracy after training on that many images of each class; what rises earlier learns from fewer, the thin lines are ± one"
    " standard deviation over seeds.",
    "reliability": "Each point is a fifteenth of the images, all seeds together: on the dotted line a model is right as often as it "
    "says, below it is too sure of itself.",
    "risk": "If only the least doubted images are answered, how many of those answers are wrong: the lower and the flatter on the left,"
    " the better the doubt; mean over seeds.",
    "vacuity": "How much evidence is lacking (1: all of it; logarithmic) where the answer is right and where it is wrong; the further "
    "apart, the more the vacuity tells.",
    "more vacuity": "What is not known (new classes, called by names of base classes) or corrupted should lie further right, too.",
    "less vacuity": "For new classes and corrupted images beside them: python -m analysis.uncertainty with the protocol's folder.",
    "vacuity by data": "The same prompts on different images: what was not trained on, or is corrupted, should lie further right.",
    "training loss": "Mean loss of each epoch, each seed thin and their mean thick; compare a line's course, not its height, as methods"
    " have different losses.",
    "training acc": "Share of training images answered rightly in each epoch, each seed thin and their mean thick; far above the "
    "accuracy on test images it means overfitting.",
}


@dataclass
class Figure:
    """One figure.

    Attributes:
        name: of its files, without ending; title: stands above it; reading: one sentence on how to read it; alt: what it shows, in words.
        draw: function of Matplotlib's axes.
    """

    name: str
    title: str
    reading: str
    alt: str
    draw: Callable[[Axes], None]


# ---- what is drawn ----


def draw_bars(table: Table, data: str, colours: dict[str, str], axes: Axes) -> None:
    rows = [row for row in table.rows if row.key[0] == data]
    models = [" ".join(row.key[2:]) for row in rows]
    paints = (
        [colours[model] for model in models]
        if len(set(models)) == len(rows)
        else [f"C{number}" for number in range(len(rows))]
    )
    places, width = numpy.arange(len(table.names)), 0.8 / len(rows)
    for number, row in enumerate(rows):
        figures = table.figures(row)
        means, deviations = zip(*(mean_and_deviation(figures[name]) for name in table.names))
        axes.bar(
            places + (number - (len(rows) - 1) / 2) * width,
            means,
            width * 0.9,
            yerr=deviations,
            capsize=3,
            ecolor=rcParams["text.color"],
            color=paints[number],
            label=row_name(table, row),
        )
    axes.set_xticks(places, map(str, table.names))
    axes.set(ylabel="accuracy in %")
    axes.grid(axis="y", alpha=0.3)
    legend(axes)


def draw_reliability(lines: dict[str, numpy.ndarray], colours: dict[str, str], axes: Axes) -> None:
    """lines: name → points (B, 2)."""
    axes.plot(
        [0, 100],
        [0, 100],
        color=rcParams["text.color"],
        alpha=0.5,
        linewidth=1,
        linestyle=":",
        label="calibrated",
    )
    for number, (name, points) in enumerate(lines.items()):
        axes.plot(
            *(100 * points.T),
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            color=colours[name],
            label=name,
        )
    axes.set(
        xlabel="probability of the answer in %",
        ylabel="right answers in %",
        xlim=(0, 100),
        ylim=(0, 100),
    )
    axes.grid(alpha=0.3)
    legend(axes)


def draw_risk(
    lines: dict[tuple[str, str], tuple[numpy.ndarray, numpy.ndarray]],
    colours: dict[str, str],
    axes: Axes,
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
    highest = max(
        risk[coverage >= 0.05].max() for coverage, risk in lines.values()
    )  # the first few images' risk jumps between 0 and 1
    axes.set(
        xlabel="images answered in %, least doubted first",
        ylabel="wrong among them in %",
        xlim=(0, 100),
        ylim=(0, max(115 * highest, 1)),
    )
    axes.grid(alpha=0.3)
    legend(axes)


def draw_histogram(
    edges: numpy.ndarray,
    shares: dict[str, numpy.ndarray],
    xlabel: str,
    colours: dict[str, str],
    axes: Axes,
) -> None:
    """shares: name → (bins,) in percent; colours: name → colour."""
    for number, (name, share) in enumerate(shares.items()):
        if len(shares) <= 2:  # more than two on top of each other make mud
            axes.stairs(share, edges, fill=True, alpha=0.25, color=colours[name])
        axes.stairs(
            share,
            edges,
            color=colours[name],
            linestyle=("-", "--", "-.", ":")[number % 4],
            linewidth=1.6,
            label=name,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if edges[-1] > 100 * edges[0] else (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=xlabel, ylabel="share of the images in %")
    axes.grid(alpha=0.3)
    legend(axes)


def draw_training(
    curves: dict[str, list[Curve]], ylabel: str, colours: dict[str, str], axes: Axes
) -> None:
    """curves: name → a dict epoch → value for each seed."""
    for number, (name, seeds) in enumerate(curves.items()):
        for seed in seeds:
            axes.plot(
                list(seed), list(seed.values()), color=colours[name], alpha=0.35, linewidth=0.9
            )
        common = sorted(set.intersection(*map(set, seeds)))
        axes.plot(
            common,
            [numpy.mean([seed[epoch] for seed in seeds]) for epoch in common],
            color=colours[name],
            linewidth=1.8,
            marker=MARKERS[number % len(MARKERS)] if len(common) <= 20 else None,
            markersize=4,
            label=name,
        )
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    legend(axes)


# ---- which figures there are; named: setting → how it is called, see runs.titles ----

MEASURES = {
    "max_probability": "probability",
    "vacuity": "vacuity",
}  # those that risk and coverage are drawn for; the table has them all
SEVERITY = 3  # of the corrupted images in the vacuities' histogram, out of 1 to 5
CORRUPTED = f"corrupted, severity {SEVERITY}"
GROUPS = {
    "right": "C2",
    "wrong": "C1",
    "new classes": "C0",
    CORRUPTED: "C3",
}  # colours of the vacuities' histogram


def row_name(table: Table, row: Row) -> str:
    """What a row of ``results.table`` is called beside others; the number of shots only where the rows differ in it."""
    shots = f", {row.key[1]} shots" if len({other.key[1] for other in table.rows}) > 1 else ""
    return " ".join(row.key[2:]) + shots


def in_words(table: Table, data: str) -> str:
    rows = [row for row in table.rows if row.key[0] == data]
    return "; ".join(
        f"{row_name(table, row)}: "
        + ", ".join(
            f"{name} {mean_and_deviation(values)[0]:.1f}"
            for name, values in table.figures(row).items()
        )
        for row in rows
    )


def table_figures(tables: Iterable[Table], colours: dict[str, str]) -> Iterator[Figure]:
    """Bars of the base-to-new tables and curves of the few-shot tables, one for each data set."""
    for table in tables:
        for data in dict.fromkeys(row.key[0] for row in table.rows):
            if table.title.startswith("base-to-new"):
                yield Figure(
                    f"bars {data}",
                    f"Base and new classes, {data}",
                    READING["bars"],
                    f"Bars of the accuracy in percent on {data}. {in_words(table, data)}.",
                    partial(draw_bars, table, data, colours),
                )
            elif table.title.startswith("few-shot") and len(table.columns) > 1:
                yield Figure(
                    f"curve {data}",
                    f"Few-shot learning, {data}",
                    READING["curve"],
                    f"Accuracy in percent on {data} by shots. {in_words(table, data)}.",
                    partial(plot_curve, table=table, data=data, colours=colours),
                )


def answer_figures(
    series: list[Series], named: dict[Setting, str], colours: dict[str, str]
) -> Iterator[Figure]:
    """Reliability and risk–coverage: one figure for each setting, one line for each of its series."""
    for setting in dict.fromkeys(one.setting for one in series):
        here, title = [one for one in series if one.setting == setting], named[setting]
        names = ", ".join(one.name for one in here)
        points = {
            one.name: reliability_points(1 - one.pooled("max_probability"), one.right)
            for one in here
        }
        yield Figure(
            f"reliability {title}",
            f"Reliability, {title}",
            READING["reliability"],
            f"Reliability diagram on {title} with a line for each of {names}.",
            partial(draw_reliability, points, colours),
        )
        wrongs = {one.name: [~is_right(run.known_answers) for run in one.runs] for one in here}
        lines = {
            (one.name, measure): risk_coverage(
                [run.known_answers[measure] for run in one.runs], wrongs[one.name]
            )
            for one in here
            for measure in MEASURES
            if one.has(measure)
        }
        yield Figure(
            f"risk {title}",
            f"Risk and coverage, {title}",
            READING["risk"],
            f"Risk–coverage curves on {title} for {names}.",
            partial(draw_risk, lines, colours),
        )


def vacuity_figures(series: list[Series], named: dict[Setting, str]) -> Iterator[Figure]:
    """Vacuity of right and wrong answers for each series that has it, and of all settings in which the same prompts were tested."""
    having = [one for one in series if one.has("vacuity")]
    for one in having:
        vacuity, right = one.pooled("vacuity"), one.right
        groups = {"right": vacuity[right], "wrong": vacuity[~right], **unknown(one)}
        edges, shares = histogram(
            {f"{name} ({len(values)})": values for name, values in groups.items()}
        )
        paints = {name: GROUPS[name.split(" (")[0]] for name in shares}
        further = (
            "more vacuity"
            if len(groups) > 2
            else "less vacuity"
            if one.setting[1] == "base" and one.runs[0].protocol
            else ""
        )
        yield Figure(
            f"vacuity {named[one.setting]} {one.name}",
            f"Vacuity, {one.name}, {named[one.setting]}",
            " ".join(filter(None, (READING["vacuity"], READING.get(further)))),
            f"Histograms of the vacuity of {one.name} on {named[one.setting]}: {medians(groups)}.",
            partial(draw_histogram, edges, shares, "vacuity", paints),
        )
    for members in same_prompts(having):
        if len(members) > 1:
            edges, shares = histogram(
                {named[one.setting]: one.pooled("vacuity") for one in members}
            )
            first = named[members[0].setting]
            yield Figure(
                f"vacuity by data {first} {members[0].name}",
                f"Vacuity by data, {members[0].name}, {first} and others",
                READING["vacuity by data"],
                f"Histograms of the vacuity of {members[0].name} on {'; '.join(shares)}.",
                partial(
                    draw_histogram,
                    edges,
                    shares,
                    "vacuity",
                    {name: f"C{number}" for number, name in enumerate(shares)},
                ),
            )


def unknown(one: Series) -> dict[str, numpy.ndarray]:
    """Vacuities (N,) of new classes' images and of corrupted ones, all seeds together; none unless all seeds have them."""
    doubts = [read_doubts(run) or {} for run in one.runs]
    if any("new_vacuity" not in found for found in doubts):
        return {}
    return {
        "new classes": numpy.concatenate([found["new_vacuity"] for found in doubts]),
        CORRUPTED: numpy.concatenate(
            [found["corrupted_vacuity"][SEVERITY - 1] for found in doubts]
        ),
    }


def medians(groups: dict[str, numpy.ndarray]) -> str:
    """What a histogram's alternative text says of its groups: name → values."""
    return ", ".join(
        f"{len(values)} {name}, median {numpy.median(values):.2g}"
        for name, values in groups.items()
        if len(values)
    )


def same_prompts(series: list[Series]) -> list[list[Series]]:
    """The series in groups, each of which tested the same prompts."""
    groups: list[tuple[set[str], list[Series]]] = []
    for one in series:
        hashes = {run.record["prompts_hash"] for run in one.runs}
        fitting = next((group for group in groups if group[0] & hashes), None)
        if fitting:
            fitting[0].update(hashes)
            fitting[1].append(one)
        else:
            groups.append((hashes, [one]))
    return [members for _, members in groups]


def training_figures(
    series: list[Series], named: dict[Setting, str], colours: dict[str, str]
) -> Iterator[Figure]:
    """Loss and accuracy by epoch, one figure each for each setting that was trained in."""
    curves: dict[tuple[Setting, str], dict[str, list[Curve]]] = {}
    for one in series:
        for run in one.runs:
            for tag, values in training_curve(run).items():
                curves.setdefault((one.setting, tag), {}).setdefault(one.name, []).append(values)
    for (setting, tag), lines in curves.items():
        what, ylabel = {
            "loss": ("Training loss", "loss"),
            "acc": ("Training accuracy", "accuracy in %"),
        }[tag]
        yield Figure(
            f"training {tag} {named[setting]}",
            f"{what}, {named[setting]}",
            READING[f"training {tag}"],
            f"{what} by epoch on {named[setting]} for {', '.join(lines)}.",
            partial(draw_training, lines, ylabel, colours),
        )


# ---- how they are written ----


def theme(name: str) -> dict[Any, Any]:
    """Matplotlib's settings; nothing in a label is taken for a formula."""
    paper, ink, colours = THEMES[name]["paper"], THEMES[name]["ink"], THEMES[name]["cycle"]
    return {
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": "#808080",
        "axes.prop_cycle": cycler(color=colours),
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "font.size": 10,
        "text.parse_math": False,
        "svg.hashsalt": "report",
        "svg.fonttype": "path",
    }


def write_figure(figure: Figure, folder: str, taken: set[str]) -> dict[str, str]:
    """Writes ``<name>.png`` and ``.svg``, and ``<name>-dark.png`` and ``.svg``, into a folder.

    Args:
        taken: set of the names that are taken in this folder; a figure whose name is gets a number, and is added.

    Returns:
        theme → the SVG as a data URI.
    """
    stem = plain = re.sub(r"\W+", "-", figure.name).strip("-").lower()
    while stem in taken:
        stem = f"{plain}-{sum(name.startswith(plain) for name in taken) + 1}"
    taken.add(stem)
    uris = {}
    for name in THEMES:
        with rc_context(theme(name)):
            layout = ConstrainedLayoutEngine()
            canvas = Canvas(figsize=SIZE, layout=layout)
            axes = canvas.subplots()
            figure.draw(axes)
            axes.set_title(textwrap.fill(figure.title, 52))
            layout.execute(canvas)
            canvas.set_layout_engine(None)  # or each file would be laid out anew, and drawn twice
            path = os.path.join(folder, stem + ("" if name == "light" else f"-{name}"))
            write_atomically(
                f"{path}.png", lambda temporary: canvas.savefig(temporary, format="png", dpi=150)
            )
            buffer = io.BytesIO()
            canvas.savefig(buffer, format="svg", metadata={"Date": None})
        write_atomically(f"{path}.svg", partial(write_bytes, buffer.getvalue()))
        uris[name] = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return uris


def write_bytes(content: bytes, path: str) -> None:
    with open(path, "wb") as file:
        file.write(content)
