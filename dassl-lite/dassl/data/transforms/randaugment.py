"""RandAugment (Cubuk et al., 2020) with the operations, ranges and draws that Dassl has."""

import random
from collections.abc import Callable

import numpy as np
import torchvision.transforms.functional as F
from PIL import Image, ImageDraw, ImageOps

GREY = (125, 123, 114)  # fills a cut-out
Operation = Callable[[Image.Image, float], Image.Image]  # of an image and a strength


def _signed(value: float) -> float:
    return -value if random.random() > 0.5 else value


def _affine(place: int) -> Operation:
    """One of the six numbers of an affine map set to a value of either sign."""

    def apply(img: Image.Image, value: float) -> Image.Image:
        matrix: list[float] = [1, 0, 0, 0, 1, 0]
        matrix[place] = _signed(value)
        return img.transform(img.size, Image.Transform.AFFINE, matrix)

    return apply


def _solarize_add(img: Image.Image, addition: float) -> Image.Image:
    brighter = (np.asarray(img).astype(int) + addition).clip(0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), 128)


def _cut_out(img: Image.Image, side: float) -> Image.Image:
    """A grey square around a random point: moved inside at the left and top, cut off at the right
    and bottom."""
    width, height = img.size
    x = np.random.uniform(width)
    y = np.random.uniform(height)
    left = int(max(0, x - side / 2))
    top = int(max(0, y - side / 2))
    img = img.copy()
    ImageDraw.Draw(img).rectangle((left, top, left + side, top + side), GREY)
    return img


# operation, its strength at m = 0 and at m = 30
OPERATIONS: list[tuple[Operation, float, float]] = [
    (lambda img, _: F.autocontrast(img), 0, 1),
    (lambda img, _: F.equalize(img), 0, 1),
    (lambda img, _: F.invert(img), 0, 1),
    (lambda img, degrees: F.rotate(img, _signed(degrees)), 0, 30),
    (lambda img, bits: F.posterize(img, int(bits)), 4, 8),
    (F.solarize, 0, 256),
    (_solarize_add, 0, 110),
    (F.adjust_saturation, 0.1, 1.9),
    (F.adjust_contrast, 0.1, 1.9),
    (F.adjust_brightness, 0.1, 1.9),
    (F.adjust_sharpness, 0.1, 1.9),
    (_affine(1), 0, 0.3),  # slopes
    (_affine(3), 0, 0.3),
    (_cut_out, 0, 40),
    (_affine(2), 0, 100),  # pixels
    (_affine(5), 0, 100),
]


class RandAugment:
    """`n` operations on a PIL image one after the other, drawn with replacement, each at strength
    `m` of 30."""

    def __init__(self, n: int = 2, m: float = 10) -> None:
        self.n = n
        self.m = m

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, least, most in random.choices(OPERATIONS, k=self.n):
            img = operation(img, least + self.m / 30 * (most - least))
        return img
