"""How much of the surroundings a box's picture should have: a margin on each side, in parts of the box's side.

    python -m experiments.box_margin --results experiments/box_margin.jsonl         # measures what the file lacks
    python -m experiments.box_margin --results experiments/box_margin.jsonl --show  # the table

- 80 photographs with four things each, drawn; LinearProbe on the tiny CLIP. A person's boxes are tight: accuracy
  by cross-validation over photographs. A detector's boxes lie in 80 other photographs, each edge moved by
  a tenth of the side (standard deviation): accuracy of the classifier of the person's boxes.
- A margin is chosen on ``CHOSEN_ON``; the other sources are reported. In ``places`` the surroundings tell of the class:
  four things of five stand before the photograph of their half of the classes.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy
import torch
import torch.nn.functional as F
from numpy.random import Generator
from pandas import DataFrame
from PIL import Image
from tabulate import tabulate

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.emoji_styles import recoloured
from experiments.pictures import DRAWINGS
from experiments.promises import answers_to, classifier_of, features_of, fit_as_runs_do, judge
from experiments.result_lines import keep_lines, parser_of
from experiments.trust_lab import folders
from trainers.common.boxes import Box, cut_off, whole_pixels
from trainers.learners.features import FeatureMethod

MARGINS = (0.0, 0.05, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2)
CHOSEN_ON = ("shapes", "emojis")
PHOTOGRAPHS = 80  # to train on, and as many that a detector's boxes lie in
SIDE = 320  # pixels of a photograph
CELL = SIDE // 2  # of a quarter, in which one thing lies
MOVED = 0.1  # of a side, by which a detector's edges are off
Things = Iterator[tuple[Image.Image, int]]  # a thing on white, and its class


class Thing(NamedTuple):
    """A thing in a photograph: the tight box around it, and its class."""

    photograph: Image.Image
    box: Box
    label: int


# ---- what is drawn ----


def shapes(draws: Generator) -> tuple[list[str], Things]:
    names = [*DRAWINGS]

    def drawn() -> Things:
        while True:
            label = int(draws.integers(len(names)))
            yield folders.shape(names[label], draws), label

    return names, drawn()


def digits(draws: Generator) -> tuple[list[str], Things]:
    every = folders.digits(170, draws)
    labels = every.truth.argmax(axis=1)
    order = draws.permutation(len(labels))
    names = "zero one two three four five six seven eight nine".split()
    return names, ((every.pictures[place], int(labels[place])) for place in order)


def emojis(
    draws: Generator, draw: Callable[[str, int], Image.Image] = draw_emoji
) -> tuple[list[str], Things]:
    """Each drawing once."""
    of_class = folders.emojis()
    names = sorted(of_class, key=lambda name: -len(of_class[name]))[:12]
    pairs = [(code, label) for label, name in enumerate(names) for code in of_class[name]]
    order = draws.permutation(len(pairs))
    return names, ((draw(pairs[place][0], folders.SIZE), pairs[place][1]) for place in order)


def places(draws: Generator) -> tuple[list[str], Things]:
    return emojis(draws, recoloured)


SOURCES: dict[str, Callable[[Generator], tuple[list[str], Things]]] = {
    "shapes": shapes,
    "emojis": emojis,
    "digits": digits,
    "places": places,
}


def paper(source: str, half: int, draws: Generator) -> Image.Image:
    """What the things of a photograph lie on."""
    if source in ("shapes", "digits"):
        colour = tuple(draws.integers(180, 256, 3).tolist())
        return folders.noisy(Image.new("RGB", (SIDE, SIDE), colour), 10, draws)
    known = folders.photographs()
    photograph = known[half if source == "places" else int(draws.integers(len(known)))]
    side = int(draws.integers(SIDE // 2, photograph.height))
    left = int(draws.integers(0, photograph.width - side + 1))
    top = int(draws.integers(0, photograph.height - side + 1))
    return photograph.resize((SIDE, SIDE), box=(left, top, left + side, top + side))


def photographed(source: str, number: int, things: Things, draws: Generator) -> list[Thing]:
    """Return the things of a number of photographs, four in each."""
    found: list[Thing] = []
    waiting: list[list[tuple[Image.Image, int]]] = [[], []]  # things by the half of their class
    for picture, label in things:
        half = label % 2 if source == "places" and draws.random() < 0.8 else int(draws.integers(2))
        waiting[half].append((picture, label))
        if len(waiting[half]) < 4:
            continue
        photograph = paper(source, half, draws)
        for quarter, (drawn, own) in enumerate(waiting[half]):
            box = pasted(photograph, drawn, quarter, draws)
            found.append(Thing(photograph, box, own))
        waiting[half] = []
        if len(found) == 4 * number:
            break
    return found


def pasted(photograph: Image.Image, drawn: Image.Image, quarter: int, draws: Generator) -> Box:
    """Paste what is drawn on white somewhere into a quarter of a photograph; return its tight box."""
    is_drawn = Image.fromarray((numpy.asarray(drawn).min(axis=2) < 250).astype("uint8") * 255)
    tight = is_drawn.getbbox()
    scale = draws.uniform(0.3, 0.95) * CELL / max(drawn.crop(tight).size)
    size = [max(8, round(scale * side)) for side in drawn.crop(tight).size]
    thing, mask = (each.crop(tight).resize(size) for each in (drawn, is_drawn))
    left = CELL * (quarter % 2) + int(draws.integers(0, CELL - size[0] + 1))
    top = CELL * (quarter // 2) + int(draws.integers(0, CELL - size[1] + 1))
    photograph.paste(thing, (left, top), mask)
    return Box(left, top, *size)


# ---- what is measured ----


def with_margin(box: Box, margin: float) -> Box:
    """Return a box that is larger by a part of its sides on each side, in its photograph."""
    wider, higher = margin * box.width, margin * box.height
    grown = whole_pixels(
        box.left - wider, box.top - higher, box.width + 2 * wider, box.height + 2 * higher
    )
    assert grown is not None
    inside = cut_off(grown, SIDE, SIDE)
    assert inside is not None
    return inside


def detected(box: Box, draws: Generator) -> Box:
    """Return a box whose edges are off, as a detector's are."""
    left, right = numpy.array([box.corners[0], box.corners[2]]) + draws.normal(
        0, MOVED * box.width, 2
    )
    top, bottom = numpy.array([box.corners[1], box.corners[3]]) + draws.normal(
        0, MOVED * box.height, 2
    )
    found = whole_pixels(left, top, max(right - left, 8), max(bottom - top, 8))
    inside = None if found is None else cut_off(found, SIDE, SIDE)
    return box if inside is None else inside


@torch.no_grad()
def measured(source: str, seed: int) -> Iterator[dict[str, object]]:
    """Yield a line per margin."""
    draws = numpy.random.default_rng([seed, [*SOURCES].index(source)])
    names, things = SOURCES[source](draws)
    every = photographed(source, 2 * PHOTOGRAPHS, things, draws)
    known, others = every[: 4 * PHOTOGRAPHS], every[4 * PHOTOGRAPHS :]
    boxes = [detected(thing.box, draws) for thing in others]
    groups = torch.arange(len(known)) // 4
    labels, asked = (torch.tensor([thing.label for thing in part]) for part in (known, others))
    for margin in MARGINS:
        method = classifier_of("LinearProbe", names)
        features = crops(method, known, [thing.box for thing in known], margin)
        _, wrong = judge(fit_as_runs_do(method, features, labels, groups), labels)
        _, missed = judge(answers_to(method, crops(method, others, boxes, margin)), asked)
        line = {"source": source, "seed": seed, "margin": margin}
        yield line | {"person": 100 - 100 * wrong.mean(), "detector": 100 - 100 * missed.mean()}


def crops(
    method: FeatureMethod, things: Sequence[Thing], boxes: Sequence[Box], margin: float
) -> torch.Tensor:
    """Return the features (N, E) of boxes with a margin."""
    pictures = []
    for thing, box in zip(things, boxes):
        pictures.append(thing.photograph.crop(with_margin(box, margin).corners))
    return F.normalize(features_of(method, pictures).float(), dim=-1)


def table(lines: DataFrame) -> str:
    """A row per source and kind of boxes, with a column per margin."""
    rows = []
    for source in SOURCES:
        own = lines[lines["source"] == source]
        for boxes in ("person", "detector"):
            row = {"source": source, "boxes of a": boxes}
            for margin in MARGINS:
                values = own[own["margin"] == margin][boxes]
                row[f"{margin:g}"] = f"{values.mean():.1f} ± {values.std():.1f}"
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def chosen(lines: DataFrame) -> float:
    """Return the margin with the highest mean over the sources that it is chosen on."""
    own = lines[lines["source"].isin(CHOSEN_ON)]
    return float(own.groupby("margin")[["person", "detector"]].mean().mean(axis=1).idxmax())


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser_of(__doc__, SEEDS).parse_args(arguments)
    kept = keep_lines(args, "source", product(SOURCES, args.seeds), measured)
    print(table(kept))
    print(f"Chosen on {' and '.join(CHOSEN_ON)}: a margin of {chosen(kept):g}")


if __name__ == "__main__":
    main()
