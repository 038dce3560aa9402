"""A small set of drawn pictures for each task, its file and its commands: what the laws of own pictures
are tested on. Each set is drawn, and its run made, once per process."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy
import pytest
from PIL import Image

from labelling.commands import train as cdc_train
from labelling.task import MULTI_LABEL_TASK, SINGLE_LABEL, Task
from tests.runs import call

NAMES = ["blue", "green", "red"]
PICTURES = 48
SMALL_BATCHES = ("DATALOADER.TEST.BATCH_SIZE", 16)  # three of the pictures
SETTINGS = ("INPUT.SIZE", "(32, 32)", "DATALOADER.NUM_WORKERS", 0)


def one_colour(number):
    return (NAMES[number % 3],)


def any_colours(number):
    return tuple(name for place, name in enumerate(NAMES) if number >> place & 1)


@dataclass(frozen=True)
class OwnTask:
    """A task and its pictures: noise on which the colours lie that are its labels.

    Attributes:
        own: number of a picture → names of its labels; metric: what a run's test is measured by.
    """

    task: Task
    own: Callable[[int], tuple[str, ...]]
    metric: str

    @property
    def flag(self) -> str:
        """What says on the command line how many labels a picture has."""
        return "--multi-label" if self.task.multi_label else "--single-label"

    def cell(self, names) -> str:
        """The label cell of a table."""
        return ";".join(names)

    def rows(self):
        """Rows (image, label) of all pictures."""
        return [(f"{number}.png", self.cell(self.own(number))) for number in range(PICTURES)]

    def draw(self, folder: Path) -> None:
        rng = numpy.random.default_rng(0)
        for number in range(PICTURES):
            pixels = rng.integers(0, 256, (32, 32, 3))
            for name in self.own(number):
                pixels[:, :, 2 - NAMES.index(name)] = rng.integers(200, 256, (32, 32))
            Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")
        write(folder / "labels.csv", self.rows())


SINGLE = OwnTask(SINGLE_LABEL, one_colour, "accuracy")
MULTI = OwnTask(MULTI_LABEL_TASK, any_colours, "map")
TASKS = {"single-label": SINGLE, "multi-label": MULTI}
over_tasks = pytest.mark.parametrize("task", TASKS.values(), ids=[*TASKS])


def by_turns(argument, cases):
    """A test for each task with each case, a value by its name: every other pair is slow."""
    return pytest.mark.parametrize(
        f"task, {argument}",
        [
            pytest.param(
                task,
                value,
                id=f"{name}-{case}",
                marks=[pytest.mark.slow] if (place + case_place) % 2 else [],
            )
            for place, (name, task) in enumerate(TASKS.items())
            for case_place, (case, value) in enumerate(cases.items())
        ],
    )


def write(file: Path, rows, columns=("image", "label")) -> Path:
    """Write a table; return its path."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([columns, *rows])
    return file


def read(file):
    """The rows of a table that a command has written."""
    with open(file, encoding="utf-8-sig", newline="") as table:
        return list(csv.DictReader(table))


def train(task: OwnTask, file, folder, clip, *more, settings=()) -> int:
    """The exit code of a training on a file, or on a list of them, without a report; more: options, settings:
    KEY, VALUE …"""
    files = file if isinstance(file, list) else [file]
    given = ["--output-dir", folder, "--backbone", clip, task.flag, *more]
    with patch("labelling.after.has_report", return_value=False):
        return call(cdc_train.main, *files, *given, "--settings", *SETTINGS, *settings)
