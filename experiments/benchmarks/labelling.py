"""What it costs to label many pictures with predict.py, besides the CLIP's passes: memory at few and at
many pictures, and the time of a batch whose reading and computing take 10 ms each.

    python -m experiments.benchmarks.labelling
    python -m experiments.benchmarks.labelling --pictures 1000 100000    # minutes

Each row is a process of its own. The CLIP's passes are a stand-in, which gives the answers to the
first batch again: what is measured is all else, pictures of 64 × 64 pixels included, which are links
to a few drawn ones. Batches wait 10 ms for each stand-in, where the table says so; taking turns a
batch would take 20 ms.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy
import torch
from pandas import DataFrame
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from labelling.answers.part_file import PartFile
from labelling.classifier import PromptedClassifier
from labelling.commands import predict
from labelling.pictures import Picture, ReadImages
from trainers.evaluation.prediction import Prediction

PROCESSES = multiprocessing.get_context("spawn")  # fresh ones: peaks of memory are a process's
MADE = 20  # drawn pictures, of two classes
SIDE = 64  # pixels
WAIT = 0.01  # seconds that a stand-in takes


def draw(folder: Path) -> None:
    """Class folders of pictures in two colours."""
    drawn = numpy.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for number in range(MADE // 2):
            noise = drawn.integers(-40, 40, (SIDE, SIDE, 3))
            pixels = (noise + colour).astype(numpy.uint8)
            Image.fromarray(pixels).save(folder / f"{name}/{number}.png")


def link(folder: Path, pictures: Sequence[Path], number: int) -> None:
    """A folder of links to pictures."""
    folder.mkdir()
    for place in range(number):
        os.link(pictures[place % len(pictures)], folder / f"{place:07d}.png")


class StandIn:
    """A classifier's method and its reading, replaced.

    Args:
        wait: whether reading and computing a batch take ``WAIT`` seconds each, and nothing is read.
    """

    def __init__(self, classifier: PromptedClassifier, wait: bool) -> None:
        self.wait = wait
        self.answer = classifier.method.answer
        self.read = classifier.read_batch
        self.batch: ReadImages | None = None
        self.answers: dict[int, Prediction] = {}

    def read_batch(self, pool: ThreadPoolExecutor, images: list[Picture]) -> ReadImages:
        if not self.wait or self.batch is None:
            self.batch = self.read(pool, images)
            return self.batch
        time.sleep(WAIT)
        return self.batch

    def compute(self, shown: Tensor, encoded: object) -> Prediction:
        number = shown.shape[1]
        if self.wait:
            time.sleep(WAIT)
        if number not in self.answers:
            self.answers[number] = self.answer(shown, encoded)  # type: ignore[arg-type]
        return self.answers[number].part(torch.arange(number))


def measure(run: str, folder: str, wait: bool) -> tuple[float, float]:
    """The peak of memory in MB and the median time of a batch in ms of labelling a folder."""
    load = PromptedClassifier.load
    add = PartFile.add
    moments: list[float] = []

    def load_stand_in(*arguments: str) -> PromptedClassifier:
        classifier = load(*arguments)
        stand_in = StandIn(classifier, wait)
        mock.patch.object(classifier, "read_batch", stand_in.read_batch).start()
        mock.patch.object(classifier.method, "answer", stand_in.compute).start()
        return classifier

    def add_and_note(part: PartFile, *answers: Any) -> None:
        add(part, *answers)
        moments.append(time.perf_counter())

    mock.patch.object(PromptedClassifier, "load", load_stand_in).start()
    mock.patch.object(PartFile, "add", add_and_note).start()
    code = predict.main(["--run", run, "--csv", f"{folder}.csv", folder])
    assert code == 0, f"predict.py ended with {code}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return peak, 1000 * float(median(numpy.diff(moments)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="+",
        default=[1000, 10000],
        help="how many (default: 1000 10000)",
    )
    asked = parser.parse_args(arguments).pictures
    table = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        draw(root / "drawn")
        run = root / "run"
        settings = {"OPTIM.MAX_EPOCH": 1}
        PromptedClassifier.fit(
            root / "drawn", trainer="CDC", backbone="tiny", folder=run, settings=settings
        )
        pictures = sorted((root / "drawn").rglob("*.png"))
        for number in asked:
            folder = root / f"{number}"
            link(folder, pictures, number)
            for wait in (False, True):
                with ProcessPoolExecutor(1, PROCESSES) as pool:
                    peak, batch = pool.submit(measure, str(run), str(folder), wait).result()
                what = "10 ms each" if wait else "as they are"
                table.append([number, what, peak, batch])
    columns = ["pictures", "reading and stand-in", "peak (MB)", "batch (ms)"]
    frame = DataFrame(table, columns=columns)
    print(tabulate(frame, headers="keys", tablefmt="github", showindex=False, floatfmt=".1f"))


if __name__ == "__main__":
    main()
