"""The two tasks on drawn pictures: a law of one's own pictures holds for both."""

from collections.abc import Sequence
from typing import NamedTuple
from unittest.mock import patch

import numpy
from PIL import Image

from labelling import after
from labelling.commands import train as cdc_train
from tests.runs import call

NAMES = ["blue", "green", "red"]
PICTURES = 48


class DrawnTask(NamedTuple):
    """A task on noise with colours on it.

    Attributes:
        name: of the task, as records have it; trainer: the usual one.
        sets: names of each picture's labels.
        swapped: names of its labels that another person says of picture 7.
    """

    name: str
    trainer: str
    sets: tuple[tuple[str, ...], ...]
    swapped: tuple[str, ...]

    @property
    def is_multi_label(self) -> bool:
        return self.name == "multi-label"

    def draw(self, folder):
        """Writes the pictures ``00.png`` … and ``labels.csv`` into a folder; returns the latter."""
        rng = numpy.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        for number, own in enumerate(self.sets):
            pixels = rng.integers(0, 256, (32, 32, 3))
            for name in own:
                pixels[:, :, 2 - NAMES.index(name)] = rng.integers(200, 256, (32, 32))
            Image.fromarray(pixels.astype("uint8")).save(folder / image(number))
        return self.write(folder / "labels.csv")

    def write(self, file, changed=None, groups: Sequence[object] = (), order=None):
        """Writes a CSV file of the pictures; returns it.

        Args:
            changed: number of a picture → names of its labels instead.
            groups: the group of each picture; order: numbers of the pictures, in the order of the rows.
        """
        lines = ["image,label,group" if groups else "image,label"]
        for number in range(PICTURES) if order is None else order:
            own = (changed or {}).get(number, self.sets[number])
            cells = [image(number), ";".join(own)]
            cells += [str(groups[number])] if groups else []
            lines.append(",".join(cells))
        file.write_text("\n".join(lines) + "\n")
        return file


def image(number):
    """The name of a picture."""
    return f"{number:02d}.png"


def set_of(number):
    """The names of the colours whose bits a number has."""
    return tuple(name for place, name in enumerate(NAMES) if number >> place & 1)


SINGLE = DrawnTask(
    "single-label", "LinearProbe", tuple((NAMES[n % 3],) for n in range(PICTURES)), ("red",)
)
MULTI = DrawnTask("multi-label", "BinaryProbe", tuple(map(set_of, range(PICTURES))), ("red",))
TASKS = [SINGLE, MULTI]


def words_for(clip_file):
    """The words of a run on the pictures, which ``--settings`` ends."""
    settings = {
        "INPUT.SIZE": "(32, 32)",
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TEST.BATCH_SIZE": 16,
    }
    pairs = [word for pair in settings.items() for word in pair]
    return ["--backbone", clip_file, "--settings", *pairs]


def train(file, folder, words, *more):
    """The exit code of ``cdc-train``, which neither writes a report nor compares with the untrained CLIP here."""
    with (
        patch.object(after, "has_report", lambda: False),
        patch.object(after, "untrained_record", lambda *_: None),
    ):
        return call(cdc_train.main, file, "--output-dir", folder, *more, *words)
