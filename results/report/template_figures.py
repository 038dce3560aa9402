"""The figures that show whether templates differ: matrices between them, and occlusion maps."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy
from matplotlib import rcParams
from matplotlib.axes import Axes
from PIL import Image

from ..runs import Series, Setting
from .figures import Figure
from .inspections import AGREEMENT, IMAGE, KAPPA, TEXT, Inspections, Occlusion, matrices, names

PIXELS = 96  # of a picture's side in an occlusion figure
GAP = 0.06  # between two pictures, as a share of a picture's side
READING = {
    AGREEMENT: "How often two templates vote for the same class: near 100 they are copies of each other; the last column is each one's own "
    "accuracy. Mean over seeds, as in the figures beside it.",
    KAPPA: "Agreement of the votes beyond what would come about by chance: 1 for copies, 0 for votes that have nothing to do with each "
    "other.",
    TEXT: "How alike the class texts of two templates are, mean over classes: 100 for copies; t⁰ is the hand-crafted prompt that they are "
    "kept near.",
    IMAGE: "How alike two templates see the same image: 100 for copies; t⁰ is the image encoder without prompts.",
    "occlusion": "Where each template looks: red where its probability of the image's class falls when a grey patch covers the place, blue "
    "where it rises. The least doubted right answers, one a class.",
}
FILES = {AGREEMENT: "agreement", KAPPA: "kappa", TEXT: "text similarity", IMAGE: "image similarity"}
DECIMALS = {AGREEMENT: 0, KAPPA: 2, TEXT: 1, IMAGE: 1}


def draw_matrix(matrix: numpy.ndarray, labels: Sequence[str], decimals: int, axes: Axes) -> None:
    """A square matrix as a heat map with its numbers in the cells."""
    mesh = axes.pcolormesh(matrix, cmap="viridis", vmin=matrix.min(), vmax=matrix.max())
    shades = numpy.asarray(mesh.norm(matrix))
    for row, column in numpy.ndindex(*matrix.shape):
        light = shades[row, column] > 0.55
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{matrix[row, column]:.{decimals}f}",
            ha="center",
            va="center",
            color="black" if light else "white",
        )
    ticks = numpy.arange(len(matrix)) + 0.5
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.set(xlabel="template", ylabel="template")
    axes.figure.colorbar(mesh, ax=axes)


def draw_occlusions(shown: Sequence[Occlusion], axes: Axes) -> None:
    """A row for each ``Occlusion``: the picture, and the drops of each template over a grey copy of it; all on one scale."""
    step = 1 + GAP
    limit = max(numpy.abs(one.drops).max() for one in shown)
    for row, one in enumerate(shown):
        small = Image.fromarray((255 * one.picture).round().astype("uint8"))
        small.thumbnail((PIXELS, PIXELS))
        side = one.picture.shape[0]
        edge = (
            (one.size - one.stride) / 2 / side
        )  # a patch's drop is shown in the middle of what it covers
        for column in range(1 + len(one.drops)):
            left, top = column * step, row * step
            axes.imshow(
                numpy.asarray(small if column == 0 else small.convert("L").convert("RGB")),
                extent=(left, left + 1, top + 1, top),
                interpolation="nearest",
            )
            if column > 0:
                drops = one.drops[column - 1]
                right, bottom = (
                    edge + number * one.stride / side for number in (drops.shape[1], drops.shape[0])
                )
                colours = axes.imshow(
                    100 * drops,
                    extent=(left + edge, left + right, top + bottom, top + edge),
                    cmap="RdBu_r",
                    vmin=-100 * limit,
                    vmax=100 * limit,
                    alpha=0.6,
                    interpolation="bilinear",
                )
    columns, rows = 1 + len(shown[0].drops), len(shown)
    axes.set(xlim=(0, columns * step - GAP), ylim=(rows * step - GAP, 0))
    axes.set_xticks(
        [column * step + 0.5 for column in range(columns)],
        ["image", *(f"S{number}" for number in range(1, columns))],
    )
    axes.set_yticks(
        [row * step + 0.5 for row in range(rows)],
        [one.name.replace(" ", "\n") for one in shown],
        fontsize="small",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(
        colours, ax=axes, label="fall of the class's probability in points", shrink=0.6
    )
    assert bar.solids is not None  # only contours have none
    bar.solids.set(alpha=1)
    bar.outline.set_edgecolor(rcParams["text.color"])


def template_figures(
    series: list[Series], named: dict[Setting, str], inspections: Inspections
) -> Iterator[Figure]:
    """The matrices of each series, mean over seeds, and the occlusion maps of the runs that have some.

    Args:
        series: those that ``inspection.with_templates`` gives; named: see ``runs.titles``; inspections: see ``inspection.inspect_all``.
    """
    for one in series:
        where = f"{one.name}, {named[one.setting]}"
        for title, by_seed in matrices(one, inspections).items():
            matrix = numpy.mean(list(by_seed.values()), axis=0)
            labels = names(title, len(matrix))
            yield Figure(
                f"{FILES[title]} {named[one.setting]} {one.name}",
                f"{title}, {where}",
                READING[title],
                f"{title} between templates of {where}. {in_words(matrix, labels, DECIMALS[title])}.",
                partial(draw_matrix, matrix, labels, DECIMALS[title]),
            )
        for run in one.runs:
            shown = inspections[run.folder].occlusions if run.folder in inspections else ()
            if shown:
                seed = run.record["seed"]
                yield Figure(
                    f"occlusion {named[one.setting]} {one.name} seed {seed}",
                    f"Occlusion, {where}, seed {seed}",
                    READING["occlusion"],
                    f"Occlusion maps of {where}, seed {seed}, for {', '.join(one.name for one in shown)}. {largest_drops(shown)}.",
                    partial(draw_occlusions, shown),
                )


def in_words(matrix: numpy.ndarray, labels: Sequence[str], decimals: int) -> str:
    """The rows of a matrix as a sentence."""
    return "; ".join(
        f"{label}: {', '.join(f'{value:.{decimals}f}' for value in row)}"
        for label, row in zip(labels, matrix)
    )


def largest_drops(shown: Sequence[Occlusion]) -> str:
    """For each image the largest drop of every template, in percentage points."""
    return "Largest fall of the class's probability in points: " + "; ".join(
        f"{one.name} {', '.join(f'{100 * drop:.0f}' for drop in one.drops.max(axis=(1, 2)))}"
        for one in shown
    )
