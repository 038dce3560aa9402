"""How the cost of CDC's training step grows with K, M, B and the side of the image; log–log plots go to output/benchmarks.

Slopes are those of straight lines through the logarithms of all points: 0 is a cost that does not depend on the size, 1 one that
grows with it. The usual way is timed while its texts, K·M, are few enough to wait for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy
from measure import REPOSITORY, Entry, Repetitions, Work, by_name, compare, log, main, matmul_peak
from models import SMALL, VIT_B16, build_trainer, in_the_usual_way, training_batch
from step import CDC_DUAL, DTYPE, PRECISION, step_of
from step import Setting as StepSetting

from trainers.common.files import write_atomically

NAMES = {
    "classes": "classes K",
    "templates": "templates M",
    "batch": "images a step B",
    "side": "image side in pixels",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one step: K, M, B and the image's side in pixels."""

    classes: int
    templates: int
    batch: int
    side: int


@dataclass(frozen=True)
class Setting(StepSetting):
    """As for a training step, with the point that lines go through, the values along each, and where plots go.

    Attributes:
        middle: all sizes but the one that varies.
        values: the varying size's name → its values.
        usual_texts: most texts K·M for which the usual way is timed.
        folder: of the plots.
    """

    middle: Sizes = Sizes(classes=50, templates=4, batch=4, side=224)
    values: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("classes", (10, 20, 50, 100, 200, 500, 1000)),
        ("templates", (1, 2, 4, 8)),
        ("batch", (1, 2, 4, 8, 16)),
        ("side", (112, 160, 224, 320)),
    )
    usual_texts: int = 200
    folder: str = str(REPOSITORY / "output" / "benchmarks")


FULL = Setting(VIT_B16, {}, repetitions=Repetitions(seconds=20))
QUICK = Setting(
    SMALL,
    {},
    depth=3,
    repetitions=Repetitions(most=3, seconds=1),
    middle=Sizes(classes=10, templates=2, batch=2, side=64),
    values=(
        ("classes", (10, 20, 50)),
        ("templates", (1, 2)),
        ("batch", (1, 2, 4)),
        ("side", (32, 64)),
    ),
)


def build_steps(setting: Setting, sizes: Sizes) -> dict[str, Work]:
    """Our step and, unless it takes too long, the usual one, as functions without arguments."""
    shape = replace(setting.shape, image_resolution=sizes.side)
    steps = {}
    for name in (
        ("usual", "ours") if sizes.classes * sizes.templates <= setting.usual_texts else ("ours",)
    ):
        options = (
            *setting.options(CDC_DUAL, PRECISION),
            "TRAINER.CDC.N_TEMPLATES",
            sizes.templates,
        )
        trainer = build_trainer("CDC", shape, sizes.classes, options, CDC_DUAL.recipe)
        batch = training_batch(sizes.batch, sizes.templates, shape, sizes.classes)
        steps[name] = step_of(
            trainer if name == "ours" else in_the_usual_way(trainer), batch, name == "ours"
        )
    return steps


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak, slopes = matmul_peak(DTYPE), []
    for variable, values in setting.values:
        rows: list[Entry] = []
        medians: dict[str, dict[int, float]] = {"usual": {}, "ours": {}}
        for value in values:
            sizes = replace(setting.middle, **{variable: value})
            log.info("%s", sizes)
            measured = compare(build_steps(setting, sizes), setting.repetitions, peak)
            rows += [{NAMES[variable]: value, **row} for row in measured]
            for name, row in by_name(measured).items():
                medians[name][value] = row["median s"]
        yield f"CDC's step against {NAMES[variable]}", rows
        fitted = {name: fit_slope(points) for name, points in medians.items() if len(points) > 1}
        slopes += [
            {"size": NAMES[variable], "implementation": name, "slope": slope}
            for name, slope in fitted.items()
        ]
        draw(medians, fitted, NAMES[variable], f"{setting.folder}/scaling_{variable}.png")
    yield "Slopes", slopes


def fit_slope(points: Mapping[int, float]) -> float:
    """Exponent p of the power law seconds = c · size^p that fits size → seconds best, least squares in the logarithms."""
    sizes, seconds = (numpy.log(list(values)) for values in (points.keys(), points.values()))
    return float(numpy.polyfit(sizes, seconds, 1)[0])


def draw(
    medians: Mapping[str, Mapping[int, float]], slopes: Mapping[str, float], label: str, path: str
) -> None:
    """Seconds a step against one size, both axes logarithmic, a line an implementation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, slope in slopes.items():
        axes.loglog(
            list(medians[name].keys()),
            list(medians[name].values()),
            marker="o",
            label=f"{name}, slope {slope:.2f}",
        )
    axes.set(xlabel=label, ylabel="seconds a training step", title="CDC, prompts in both encoders")
    sizes = sorted({size for points in medians.values() for size in points})
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.set_xticks([], minor=True)
    for labels in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        labels("{x:g}")  # powers of ten say little about a decade or two
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    pyplot.close(figure)


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
