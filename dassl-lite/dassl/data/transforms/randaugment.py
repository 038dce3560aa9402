"""RandAugment (Cubuk et al., 2020) with the operations, ranges and draws that Dassl has."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

GREY = (125, 123, 114)  # what a cut-out is filled with


def _signed(value: float) -> float:
    return -value if random.random() > 0.5 else value


def _affine(place: int) -> Callable[[Image.Image, float], Image.Image]:
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
    """A grey square around a random point: moved inside at the left and top, cut off at the right and bottom."""
    width, height = img.size
    x, y = np.random.uniform(width), np.random.uniform(height)
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    img = img.copy()
    ImageDraw.Draw(img).rectangle(
        (left, top, min(width, left + side), min(height, top + side)), GREY
    )
    return img


def _enhance(enhancer: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda img, factor: enhancer(img).enhance(factor)


# function of image and strength, its strength at m = 0 and at m = 30
OPERATIONS: list[tuple[Callable[[Image.Image, float], Image.Image], float, float]] = [
    (lambda img, _: ImageOps.autocontrast(img), 0, 1),
    (lambda img, _: ImageOps.equalize(img), 0, 1),
    (lambda img, _: ImageOps.invert(img), 0, 1),
    (lambda img, degrees: img.rotate(_signed(degrees)), 0, 30),
    (lambda img, bits: ImageOps.posterize(img, int(bits)), 4, 8),
    (lambda img, threshold: ImageOps.solarize(img, threshold), 0, 256),  # type: ignore[arg-type]  # a float does
    (_solarize_add, 0, 110),
    *(
        (_enhance(enhancer), 0.1, 1.9)
        for enhancer in (
            ImageEnhance.Color,
            ImageEnhance.Contrast,
            ImageEnhance.Brightness,
            ImageEnhance.Sharpness,
        )
    ),
    (_affine(1), 0, 0.3),  # slopes
    (_affine(3), 0, 0.3),
    (_cut_out, 0, 40),
    (_affine(2), 0, 100),  # pixels
    (_affine(5), 0, 100),
]


class RandAugment:
    """`n` operations on a PIL image one after the other, drawn with replacement, each at strength `m` of 30."""

    def __init__(self, n: int = 2, m: float = 10) -> None:
        if not 0 <= m <= 30:
            raise ValueError(f"INPUT.RANDAUGMENT_M is {m}, it must be in 0 to 30")
        self.n = n
        self.m = m

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, least, most in random.choices(OPERATIONS, k=self.n):
            img = operation(img, least + self.m / 30 * (most - least))
        return img
