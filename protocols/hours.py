"""Time of trainings on a GPU, by the steps that ``bash scripts/gpu.sh`` has measured there."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainers.common.errors import UserError
from trainers.common.readers import read_yaml

from .plan import PlannedRun

FILE = "output/gpu.csv"  # where scripts/gpu.sh leaves the steps
STEP_COLUMNS = [
    "device",
    "CLIP",
    "trainer",
    "precision",
    "classes",
    "batch",
    "ms",
    "GB",
    "GFLOP",
    "% of peak",
]
USUAL_PRECISION = "fp16"  # what PREC is where a recipe has none
SIZES = (
    Path(__file__).parent.parent / "datasets/check.yaml"
)  # data set → its numbers, of classes first


@dataclass
class Steps:
    """Milliseconds of measured steps.

    Attributes:
        device: of the measurement; empty without one.
        times: (CLIP, trainer, precision, batch) → classes → ms.
    """

    device: str = ""
    times: dict[tuple[str, str, str, int], dict[int, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    @classmethod
    def read(cls, path: str = FILE) -> "Steps":
        """Read the steps in a file; empty without the file.

        Raises:
            UserError: it is another file than scripts/gpu.sh writes.
        """
        steps = cls()
        if not os.path.isfile(path):
            return steps
        try:
            with open(path, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    key = (row["CLIP"], row["trainer"], row["precision"], int(row["batch"]))
                    steps.times[key][int(row["classes"])] = float(row["ms"])
                    steps.device = row["device"]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(
                f"{path} can't be read as steps on a GPU ({error}): make it again with bash scripts/gpu.sh, or delete it"
            ) from error
        return steps

    def milliseconds(
        self, clip: str, trainer: str, precision: str, batch: int, classes: float
    ) -> float | None:
        """Return a step's time, on the line through the measurements with the fewest and the most
        classes; None without one."""
        times = self.times.get((clip, trainer, precision, batch))
        if not times:
            return None
        few = min(times)
        many = max(times)
        slope = (times[many] - times[few]) / (many - few) if many > few else 0.0
        return max(0.0, times[few] + slope * (classes - few))

    def hours(self, run: PlannedRun, settings: Mapping[str, object]) -> float | None:
        """The time of all steps of a training; None where no such step was measured, or the data set's
        number of classes is not known.

        settings: KEY → value that the run has.
        """
        classes = classes_of(run)
        batch = int(str(settings["DATALOADER.TRAIN_X.BATCH_SIZE"]))
        precision = str(settings.get(f"TRAINER.{run.trainer.upper()}.PREC", USUAL_PRECISION))
        clip = str(settings["MODEL.BACKBONE.NAME"])
        if classes is None:
            return None
        step = self.milliseconds(clip, run.trainer, precision, batch, classes)
        if step is None:
            return None
        steps = max(1, classes * run.shots // batch)  # the loader leaves out a smaller last batch
        return int(str(settings["OPTIM.MAX_EPOCH"])) * steps * step / 3.6e6


def classes_of(run: PlannedRun) -> int | None:
    """Return the number of a training's classes; None where the data set's are not known."""
    name = read_yaml(run.dataset_file)["DATASET"]["NAME"]
    sizes = read_yaml(SIZES)
    if name not in sizes:
        return None
    count: int = sizes[name][0][0]
    return -(-count // 2) if run.classes == "base" else count
