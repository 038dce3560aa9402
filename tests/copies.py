"""Copies of pictures, as programs that make more of them save them, and frames of a camera that pans.

Each copy is a JPEG of another quality. The strengths are the defaults, or what examples show, of Keras'
``ImageDataGenerator``, albumentations and Roboflow's exports.
"""

import io
from collections.abc import Callable

import numpy
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests import bursts

BOX = 0.2  # of a side: each of three boxes that are cut out
PAN = 0.7  # of a side: what a panned frame shows
TURN = Image.Transpose


def saved(picture: Image.Image, draws: Generator) -> Image.Image:
    """As it is, which is then a JPEG."""
    return picture


def mirrored(picture: Image.Image, draws: Generator) -> Image.Image:
    """Left to right."""
    return ImageOps.mirror(picture)


def turned(picture: Image.Image, draws: Generator) -> Image.Image:
    """By a quarter, a half or three quarters."""
    turns = TURN.ROTATE_90, TURN.ROTATE_180, TURN.ROTATE_270
    return picture.transpose(turns[draws.integers(3)])


def tilted(picture: Image.Image, draws: Generator) -> Image.Image:
    """By 15° to one side; the corners are black."""
    return picture.rotate(15 * draws.choice([-1, 1]), Image.Resampling.BICUBIC)


def cut_out(picture: Image.Image, draws: Generator) -> Image.Image:
    """Three black boxes, in a place of their own each."""
    made = picture.copy()
    side = round(BOX * picture.width)
    for left, top in draws.integers(0, picture.width - side, (3, 2)).tolist():
        made.paste("black", (left, top, left + side, top + side))
    return made


def zoomed(picture: Image.Image, draws: Generator) -> Image.Image:
    """A part of 80 to 100 % of each side, anywhere."""
    side = round(picture.width * draws.uniform(0.8, 1))
    left, top = draws.integers(0, picture.width - side + 1, 2).tolist()
    return picture.resize(picture.size, box=(left, top, left + side, top + side))


def panned(picture: Image.Image, draws: Generator) -> Image.Image:
    """What a window of 70 % of each side shows, anywhere along the middle."""
    width, height = picture.size
    left = draws.uniform(0, 1 - PAN) * width
    top = (1 - PAN) / 2 * height
    return picture.resize(picture.size, box=(left, top, left + PAN * width, top + PAN * height))


def edited(picture: Image.Image, draws: Generator) -> Image.Image:
    """Light and colours by 25 %, one of four in grey, blur, and noise."""
    lit = ImageEnhance.Brightness(picture).enhance(draws.uniform(0.75, 1.25))
    saturation = draws.choice([0, *draws.uniform(0.75, 1.25, 3)])
    coloured = ImageEnhance.Color(lit).enhance(saturation)
    soft = coloured.filter(ImageFilter.GaussianBlur(draws.uniform(0, 1)))
    noise = draws.normal(0, 8, (*picture.size[::-1], 3))
    return Image.fromarray((numpy.asarray(soft) + noise).clip(0, 255).astype("uint8"))


def shot(picture: Image.Image, draws: Generator) -> Image.Image:
    """One of half a burst."""
    return bursts.shot(picture, 0.5, draws)


def burst(picture: Image.Image, draws: Generator) -> Image.Image:
    """One of a whole burst."""
    return bursts.shot(picture, 1, draws)


def augmented(picture: Image.Image, draws: Generator) -> Image.Image:
    """As saved augmentations are: mirrored or not, turned by up to 15°, shifted by up to 10 %, and in
    another light."""
    mixed = mirrored(picture, draws) if draws.random() < 0.5 else picture
    right, down = (0.1 * picture.width * draws.uniform(-1, 1, 2)).tolist()
    moved = mixed.rotate(
        draws.uniform(-15, 15),
        Image.Resampling.BICUBIC,
        translate=(round(right), round(down)),
    )
    return ImageEnhance.Brightness(moved).enhance(draws.uniform(0.8, 1.2))


KINDS: dict[str, Callable[[Image.Image, Generator], Image.Image]] = {
    "saved": saved,
    "a burst": burst,
    "half a burst": shot,
    "edited": edited,
    "zoomed": zoomed,
    "mirrored": mirrored,
    "turned by 90°": turned,
    "turned by 15°": tilted,
    "cut out": cut_out,
    "panned": panned,
    "augmented": augmented,
}


def copy(kind: str, picture: Image.Image, draws: Generator) -> Image.Image:
    """A copy of a kind of ``KINDS``."""
    made = KINDS[kind](picture, draws)
    file = io.BytesIO()
    made.save(file, "JPEG", quality=int(draws.integers(75, 95)))
    return Image.open(file, formats=("JPEG",)).convert("RGB")
