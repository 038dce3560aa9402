"""How long CDC's base-to-new runs on the field's eleven data sets take: time of a step and a test batch, times how many each has.

Images are in memory already, so reading them comes on top; what happens only once in a run is left out. The usual
way's training is that of MaPLe, which has one template.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from eval import passes_at_test_time
from measure import DEVICE, Entry, Repetitions, by_name, compare, log, main, matmul_peak
from models import SMALL, VIT_B16, read_recipe
from step import CDC_DUAL, DTYPE, MAPLE, ONE_TEMPLATE, PRECISION, Comparison, compare_steps
from step import Setting as StepSetting

COMPARISON = Comparison(CDC_DUAL, {ONE_TEMPLATE: MAPLE}, ())
SHOTS = 16
HOUR = 3600


@dataclass(frozen=True)
class DataSet:
    """All classes of a data set, and its test images, assumed to be equally many in every class."""

    classes: int
    test_images: int

    @property
    def base(self) -> int:
        """Number of base classes: the first half."""
        return (self.classes + 1) // 2


# Zhou et al., 2022, "Learning to Prompt for Vision-Language Models", appendix: classes and test images as CoOp splits them
ELEVEN = {
    "ImageNet": DataSet(1000, 50_000),
    "Caltech101": DataSet(100, 2_465),
    "OxfordPets": DataSet(37, 3_669),
    "StanfordCars": DataSet(196, 8_041),
    "Flowers102": DataSet(102, 2_463),
    "Food101": DataSet(101, 30_300),
    "FGVCAircraft": DataSet(100, 3_333),
    "SUN397": DataSet(397, 19_850),
    "DTD": DataSet(47, 1_692),
    "EuroSAT": DataSet(10, 8_100),
    "UCF101": DataSet(101, 3_783),
}


@dataclass(frozen=True)
class Setting(StepSetting):
    """As for a training step, with the data sets, and how many test images are answered at a time."""

    datasets: tuple[str, ...] = tuple(ELEVEN)
    batch: int = (
        100 if DEVICE.type == "cuda" else 16
    )  # as eval.py's on a CPU, where larger ones are no faster


FULL = Setting(VIT_B16, {}, repetitions=Repetitions(seconds=30))
QUICK = Setting(
    SMALL,
    {},
    depth=3,
    datasets=("EuroSAT", "DTD"),
    batch=4,
    repetitions=Repetitions(least=1, most=2, seconds=1),
)


@dataclass(frozen=True)
class Measured:
    """What was measured at one K.

    Attributes:
        usual_step, step: seconds of a usual training step, None where it does not fit in memory, and of ours.
        answer: seconds a test image.
        gflop: of our step. of_peak: its share of the matmul peak in %.
    """

    usual_step: float | None
    step: float
    answer: float
    gflop: float
    of_peak: float


def measured_at(classes: int, setting: Setting, peak: float) -> Measured:
    steps = by_name(compare_steps(setting, COMPARISON, classes, peak))
    passes = passes_at_test_time(setting, CDC_DUAL, classes, setting.batch, with_usual=False)
    (answer,) = compare({"ours": passes["ours"]}, setting.repetitions, peak)
    ours = steps["ours"]
    return Measured(
        steps[ONE_TEMPLATE].get("median s"),
        ours["median s"],
        answer["median s"] / setting.batch,
        ours["GFLOP"],
        ours["% of peak"],
    )


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak, measured = matmul_peak(DTYPE), {}
    for name in setting.datasets:
        classes = ELEVEN[name].base
        if classes not in measured:
            log.info("%s, K = %d", name, classes)
            measured[classes] = measured_at(classes, setting, peak)
    epochs = read_recipe(CDC_DUAL.trainer, CDC_DUAL.recipe, "imagenet").OPTIM.MAX_EPOCH
    rows = [
        row(name, ELEVEN[name], epochs, measured[ELEVEN[name].base]) for name in setting.datasets
    ]
    usual = [entry["usual training h"] for entry in rows]
    added = ("steps", "training h", "test images", "tests h", "training and tests h")
    rows.append(
        {
            "data set": "all",
            **{key: sum(entry[key] for entry in rows) for key in added},
            "usual training h": None if None in usual else sum(usual),
        }
    )
    yield (
        f"CDC, base-to-new, {SHOTS} shots, {epochs} epochs, one seed, {PRECISION}; matmul peak {peak / 1e12:.3g} TFLOP/s",
        rows,
    )


def row(name: str, data: DataSet, epochs: int, measured: Measured) -> Entry:
    """Both halves' tests are counted with the base classes' time: the new ones are as many, or one less."""
    steps = epochs * (SHOTS * data.base // CDC_DUAL.batch)
    training, tests = steps * measured.step / HOUR, data.test_images * measured.answer / HOUR
    return {
        "data set": name,
        "base classes": data.base,
        "steps": steps,
        "usual step s": measured.usual_step,
        "step s": measured.step,
        "TFLOP/s": measured.gflop / 1000 / measured.step,
        "% of peak": measured.of_peak,
        "usual training h": None
        if measured.usual_step is None
        else steps * measured.usual_step / HOUR,
        "training h": training,
        "test images": data.test_images,
        "tests h": tests,
        "training and tests h": training + tests,
    }


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
