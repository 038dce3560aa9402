"""Ten kinds of folders of pictures, drawn, with what may come in after the training: pictures kept aside,
odd ones, another data set's, and pictures of a changed camera.

Each folder is drawn from a seed. What is kept aside comes as the folder's pictures came: other drawings of
the same classes, other senders, other scenes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.emoji_styles import recoloured
from experiments import multi_label
from experiments.pictures import DRAWINGS
from tests.bursts import codes, groups

SIZE = 96  # pixels of a side
FINE = 3  # a shape is drawn so much larger, for smooth edges
Box = tuple[float, float, float]  # left, top and side, of a unit square


@dataclass(frozen=True)
class Drawn:
    """N pictures.

    Attributes:
        pictures: N; truth: (N, K) bool, their labels; groups: (N,), numbers.
    """

    pictures: list[Image.Image]
    truth: numpy.ndarray
    groups: numpy.ndarray


@dataclass(frozen=True)
class Folder:
    """A folder and what is asked of what was trained on it.

    Attributes:
        kind: of ``KINDS``; names: of the K labels.
        known: to train on; aside: others that come as these came.
        is_easy: whether its classes are told apart without mistakes, or nearly.
        is_several: whether a picture has several labels.
    """

    kind: str
    names: list[str]
    known: Drawn
    aside: Drawn
    is_easy: bool = False
    is_several: bool = False


def one_label(
    pictures: Sequence[Image.Image], labels: Sequence[int], groups: Sequence[int] | None = None
) -> Drawn:
    """Pictures of one label each, alone unless groups (N,) are given."""
    own = numpy.arange(len(labels)) if groups is None else numpy.array(groups)
    return Drawn(list(pictures), numpy.eye(max(labels) + 1, dtype=bool)[list(labels)], own)


# ---- shapes ----


def colour(draws: Generator, most: int = 230) -> tuple[int, ...]:
    return tuple(draws.integers(0, most, 3).tolist())


def paint(
    canvas: ImageDraw.ImageDraw, name: str, box: Box, colours: Sequence[tuple[int, ...]]
) -> None:
    """Draws a shape of ``DRAWINGS`` into a box of a canvas."""
    left, top, side = (part * SIZE * FINE for part in box)
    for kind, corners, number in DRAWINGS[name]:
        moved = []
        for place, corner in enumerate(corners):
            moved.append(side * corner + (top if place % 2 else left))
        draw = canvas.ellipse if kind == "ellipse" else canvas.polygon
        draw(moved, fill=colours[number])


def shape(name: str, draws: Generator, paper: str | tuple[int, ...] = "white") -> Image.Image:
    """A shape, its place, its size and its colours by chance."""
    picture = Image.new("RGB", (SIZE * FINE, SIZE * FINE), paper)
    side = draws.uniform(0.5, 0.9)
    left, top = draws.uniform(0, 1 - side, 2)
    paint(ImageDraw.Draw(picture), name, (left, top, side), [colour(draws) for _ in range(3)])
    return picture.reduce(FINE)


def shapes(each: int, draws: Generator) -> Drawn:
    labels = numpy.repeat(numpy.arange(len(DRAWINGS)), each).tolist()
    names = [*DRAWINGS]
    return one_label([shape(names[label], draws) for label in labels], labels)


def senders(number: int, draws: Generator) -> Drawn:
    """Shapes that people send: each sends some pictures, on paper and in light of their own."""
    names = [*DRAWINGS]
    pictures = []
    labels = []
    sent_by = []
    for sender in range(number):
        paper = tuple(draws.integers(140, 256, 3).tolist())
        light = draws.uniform(0.5, 1.1)
        blur = draws.uniform(0, 2)
        noise = draws.uniform(0, 25)
        for _ in range(draws.integers(2, 12)):
            label = int(draws.integers(len(names)))
            picture = shape(names[label], draws, paper).filter(ImageFilter.GaussianBlur(blur))
            lit = ImageEnhance.Brightness(picture).enhance(light)
            pictures.append(noisy(lit, noise, draws))
            labels.append(label)
            sent_by.append(sender)
    return one_label(pictures, labels, sent_by)


def shape_scenes(number: int, draws: Generator) -> Drawn:
    """One to three shapes, each in a quarter of its own."""
    names = [*DRAWINGS]
    truth = numpy.zeros((number, len(names)), bool)
    pictures = []
    for place in range(number):
        picture = Image.new("RGB", (SIZE * FINE, SIZE * FINE), "white")
        chosen = draws.permutation(len(names))[: draws.integers(1, 4)]
        for label, quarter in zip(chosen, draws.permutation(4)):
            side = draws.uniform(0.35, 0.5)
            left = draws.uniform(0, 0.5 - side) + 0.5 * (quarter % 2)
            top = draws.uniform(0, 0.5 - side) + 0.5 * (quarter // 2)
            colours = [colour(draws) for _ in range(3)]
            paint(ImageDraw.Draw(picture), names[label], (left, top, side), colours)
            truth[place, label] = True
        pictures.append(picture.reduce(FINE))
    return Drawn(pictures, truth, numpy.arange(number))


# ---- digits ----


def digits(each: int, draws: Generator) -> Drawn:
    """Handwritten digits, none of them twice; each: at most, of a class."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = draws.permutation(len(found.target))
    pictures = []
    labels = []
    for label in range(10):
        for index in order[found.target[order] == label][:each]:
            pixels = (255 - found.images[index] * 255 / 16).astype("uint8")
            small = Image.fromarray(pixels).convert("RGB")
            pictures.append(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            labels.append(label)
    return one_label(pictures, labels)


# ---- emojis ----


@cache
def emojis() -> dict[str, list[str]]:
    """Class → its emojis' code points, one of each that look alike."""
    known = codes()
    names = [name for _, name in known]
    twins = groups([draw_emoji(code, SIZE) for code, _ in known], names)
    found: dict[str, dict[int, str]] = {}
    for (code, name), twin in zip(known, twins):
        found.setdefault(name, {}).setdefault(twin, code)
    return {name: list(of_twin.values()) for name, of_twin in found.items()}


def plain(code: str, draws: Generator) -> Image.Image:
    return draw_emoji(code, SIZE)


def in_other_colours(code: str, draws: Generator) -> Image.Image:
    return recoloured(code, SIZE)


@cache
def photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def crop(draws: Generator) -> Image.Image:
    """A part of a photograph, anywhere, of any size, in any light."""
    photograph = photographs()[draws.integers(len(photographs()))]
    side = int(draws.integers(SIZE, photograph.height))
    left = int(draws.integers(0, photograph.width - side + 1))
    top = int(draws.integers(0, photograph.height - side + 1))
    part = photograph.resize((SIZE, SIZE), box=(left, top, left + side, top + side))
    return ImageEnhance.Brightness(part).enhance(draws.uniform(0.6, 1.3))


def before_a_photograph(code: str, draws: Generator) -> Image.Image:
    picture = crop(draws)
    side = int(draws.integers(SIZE * 6 // 10, SIZE * 9 // 10))
    drawing = draw_emoji(code, SIZE).resize((side, side), Image.Resampling.LANCZOS)
    left, top = draws.integers(0, SIZE - side + 1, 2).tolist()
    is_drawn = numpy.asarray(drawing).min(axis=2) < 250
    mask = Image.fromarray(is_drawn.astype("uint8") * 255)
    picture.paste(drawing, (left, top), mask)
    return picture


def emoji_parts(
    sizes: Sequence[int], draws: Generator, shown: Callable[[str, Generator], Image.Image] = plain
) -> tuple[list[str], Drawn, Drawn]:
    """Names, pictures to train on, and as many that are kept aside, of other drawings in like shares.

    sizes: of the classes to train on; half of a class's drawings at most.
    """
    of_class = emojis()
    largest = sorted(of_class, key=lambda name: -len(of_class[name]))
    able = sorted(largest[: max(2 * len(sizes), 12)])
    names = draws.choice(able, len(sizes), replace=False).tolist()
    names.sort(key=lambda name: -len(of_class[name]))  # the largest class for the largest size
    parts: list[tuple[list[Image.Image], list[int]]] = [([], []), ([], [])]
    for label, (name, size) in enumerate(zip(names, sizes)):
        order = draws.permutation(of_class[name]).tolist()
        size = min(size, len(order) // 2)
        for (pictures, labels), some in zip(parts, (order[:size], order[size : 2 * size])):
            pictures += [shown(code, draws) for code in some]
            labels += [label] * size
    known, aside = (one_label(*part) for part in parts)
    return names, known, aside


# ---- the folders ----


def of_shapes(draws: Generator) -> Folder:
    return Folder("shapes", [*DRAWINGS], shapes(30, draws), shapes(30, draws), is_easy=True)


def of_digits(draws: Generator) -> Folder:
    every = digits(80, draws)
    labels = every.truth.argmax(axis=1)
    is_known = numpy.arange(len(labels)) % 80 < 40
    known, aside = (
        one_label(
            [every.pictures[index] for index in numpy.flatnonzero(part)], labels[part].tolist()
        )
        for part in (is_known, ~is_known)
    )
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return Folder("digits", names, known, aside, is_easy=True)


def of_emojis(
    kind: str,
    sizes: Sequence[int],
    shown: Callable[[str, Generator], Image.Image],
    draws: Generator,
) -> Folder:
    return Folder(kind, *emoji_parts(sizes, draws, shown))


def of_senders(draws: Generator) -> Folder:
    return Folder("groups", [*DRAWINGS], senders(65, draws), senders(65, draws))


def of_shape_scenes(draws: Generator) -> Folder:
    known, aside = (shape_scenes(400, draws) for _ in range(2))
    return Folder("shapes, several", [*DRAWINGS], known, aside, is_easy=True, is_several=True)


def of_emoji_scenes(draws: Generator) -> Folder:
    seed = int(draws.integers(2**31))
    parts = []
    for part in ("train", "test"):
        pictures, truth = multi_label.drawn(400, part, seed)
        small = [each.resize((SIZE, SIZE), Image.Resampling.LANCZOS) for each in pictures]
        parts.append(Drawn(small, truth, numpy.arange(len(small))))
    names = [*multi_label.LABELS]
    known, aside = parts
    return Folder("emojis, several", names, known, aside, is_several=True)


KINDS: dict[str, Callable[[Generator], Folder]] = {
    "shapes": of_shapes,
    "digits": of_digits,
    "many": partial(of_emojis, "many", [10] * 30, plain),
    "recoloured": partial(of_emojis, "recoloured", [16] * 10, in_other_colours),
    "photographs": partial(of_emojis, "photographs", [25] * 6, before_a_photograph),
    "drawings": partial(of_emojis, "drawings", [25] * 6, plain),
    "imbalanced": partial(of_emojis, "imbalanced", [80, 40, 20, 10, 8, 6], plain),
    "groups": of_senders,
    "shapes, several": of_shape_scenes,
    "emojis, several": of_emoji_scenes,
}


def draw(kind: str, seed: int) -> Folder:
    """The folder of a kind and a seed."""
    return KINDS[kind](numpy.random.default_rng([seed, [*KINDS].index(kind)]))


# ---- what does not belong there ----


def noisy(picture: Image.Image, strength: float, draws: Generator) -> Image.Image:
    """A picture with normal noise of a standard deviation in 255."""
    pixels = numpy.asarray(picture) + draws.normal(0, strength, (*picture.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def blob(draws: Generator) -> Image.Image:
    """A blurred ellipse."""
    picture = Image.new("RGB", (SIZE, SIZE), colour(draws, 256))
    left, top = draws.integers(0, SIZE // 2, 2).tolist()
    right, bottom = draws.integers(SIZE // 2, SIZE, 2).tolist()
    ImageDraw.Draw(picture).ellipse((left, top, right, bottom), fill=colour(draws, 256))
    return picture.filter(ImageFilter.GaussianBlur(draws.uniform(0, 8)))


def lines(draws: Generator) -> Image.Image:
    """Lines from edge to edge."""
    picture = Image.new("RGB", (SIZE, SIZE), colour(draws, 256))
    for _ in range(draws.integers(3, 20)):
        ends = draws.integers(0, SIZE, 4).tolist()
        width = int(draws.integers(1, 6))
        ImageDraw.Draw(picture).line(ends, fill=colour(draws, 256), width=width)
    return picture


def gradient(draws: Generator) -> Image.Image:
    """One colour that fades into another."""
    first, last = draws.uniform(0, 255, (2, 3))
    share = numpy.linspace(0, 1, SIZE)[None, :, None] * numpy.ones((SIZE, 1, 1))
    return Image.fromarray((first * (1 - share) + last * share).astype("uint8"))


ODD: dict[str, Callable[[Generator], Image.Image]] = {
    "plain": lambda draws: Image.new("RGB", (SIZE, SIZE), colour(draws, 256)),
    "black or white": lambda draws: Image.new(
        "RGB", (SIZE, SIZE), ["black", "white"][draws.integers(2)]
    ),
    "noise": lambda draws: noisy(
        Image.new("RGB", (SIZE, SIZE), "grey"), draws.uniform(20, 120), draws
    ),
    "blobs": blob,
    "lines": lines,
    "gradients": gradient,
}


def odd(each: int, draws: Generator) -> list[Image.Image]:
    """Pictures of nothing, of each kind of ``ODD``."""
    return [made(draws) for made in ODD.values() for _ in range(each)]


# kind of folder → whose pictures come in by mistake
ANOTHER = {
    "shapes": "digits", "digits": "drawings", "many": "photographs", "recoloured": "shapes",
    "photographs": "digits", "drawings": "photographs", "imbalanced": "digits", "groups": "photographs",
    "shapes, several": "emojis, several", "emojis, several": "digits",
}  # fmt: skip

CAMERAS: dict[str, Callable[[Image.Image, Generator], Image.Image]] = {
    "out of focus": lambda picture, draws: picture.filter(ImageFilter.GaussianBlur(4)),
    "dark": lambda picture, draws: ImageEnhance.Brightness(picture).enhance(0.3),
    "noisy": lambda picture, draws: noisy(picture, 50, draws),
    "another white balance": lambda picture, draws: Image.fromarray(
        (numpy.asarray(picture) * [1.0, 0.75, 0.45]).astype("uint8")
    ),
    "upside down": lambda picture, draws: picture.transpose(Image.Transpose.ROTATE_180),
}


def cameras(pictures: Sequence[Image.Image], seed: int) -> Iterator[tuple[str, list[Image.Image]]]:
    """Each changed camera, and what it makes of the pictures."""
    for number, (name, changed) in enumerate(CAMERAS.items()):
        draws = numpy.random.default_rng([seed, number])
        yield name, [changed(picture, draws) for picture in pictures]
