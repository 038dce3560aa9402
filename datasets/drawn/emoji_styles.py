"""OpenMoji pictures drawn otherwise: as a line sketch, with corrupted pixels, in other colours.

Each function is deterministic: the same emoji gives the same picture on every machine.
"""

import hashlib
import io
import math

import numpy
from PIL import Image, ImageFilter

from .emoji_font import FONT_SIZE, draw_emoji

INK_COLOUR = 70  # a pixel whose channels are all darker belongs to OpenMoji's black outline
EDGE = 40  # two neighbours that differ by more in a channel have a line between them
LINE_WIDTH = 3  # width in pixels at FONT_SIZE; odd

# kind: its strengths at severity 1 to 5, chosen for 64 x 64 pixels by eye: recognisable at 1, hard at 5
CORRUPTIONS = {
    "gaussian noise": (0.08, 0.14, 0.2, 0.28, 0.36),  # standard deviation, of a range of 1
    "impulse noise": (0.03, 0.06, 0.1, 0.17, 0.25),  # share of the pixels that turn black or white
    "blur": (0.7, 1.0, 1.4, 1.8, 2.3),  # radius in pixels
    "pixelation": (40, 32, 24, 19, 15),  # pixels a side that are left
    "low contrast": (0.5, 0.38, 0.27, 0.18, 0.11),  # share of the contrast that is left
    "jpeg": (40, 25, 15, 9, 5),  # quality
}
SEVERITIES = (1, 2, 3, 4, 5)


def draws_of(hexcode: str, purpose: str) -> numpy.random.Generator:
    """A numpy generator seeded by one emoji and a purpose."""
    return numpy.random.default_rng(
        int.from_bytes(hashlib.sha256(f"{purpose} {hexcode}".encode()).digest()[:8], "big")
    )


def sketch(hexcode: str, size: int) -> Image.Image:
    """hexcode → RGB image, size × size: black lines on white, where the outline is or one colour
    meets another."""
    pixels = numpy.asarray(draw_emoji(hexcode, FONT_SIZE)).astype(numpy.int16)  # (S, S, 3)
    lines = pixels.max(2) < INK_COLOUR
    for axis in (0, 1):
        steps = numpy.diff(pixels, axis=axis, append=pixels.take([-1], axis))
        lines |= numpy.abs(steps).max(2) > EDGE
    paper = Image.fromarray(~lines).convert("L").filter(ImageFilter.MinFilter(LINE_WIDTH))
    return paper.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")


def corruption_of(hexcode: str) -> tuple[str, int]:
    """(kind, severity from 1 to 5) of an emoji's corrupted picture: all are about equally frequent."""
    generator = draws_of(hexcode, "which corruption")
    return list(CORRUPTIONS)[generator.integers(len(CORRUPTIONS))], int(generator.integers(1, 6))


def corrupted(hexcode: str, size: int) -> Image.Image:
    """hexcode → RGB image, size × size, with the corruption that is this emoji's."""
    return corrupt_at(corruption_of(hexcode)[1], draw_emoji(hexcode, size), hexcode)


def corrupt_at(severity: int, image: Image.Image, name: str) -> Image.Image:
    """An RGB image with the kind of corruption that belongs to its name, at any of ``SEVERITIES``.

    name: an emoji's hexcode, or another name of the picture. The kind, and the places of noise,
    are the same at all severities, so that only the strength differs.
    """
    corruption, _ = corruption_of(name)
    return corrupt(
        image, corruption, CORRUPTIONS[corruption][severity - 1], draws_of(name, "corruption")
    )


def corrupt(
    image: Image.Image, corruption: str, strength: float, generator: numpy.random.Generator
) -> Image.Image:
    """One corruption (Hendrycks and Dietterich, 2019, "Benchmarking Neural Network Robustness to
    Common Corruptions") of an RGB image.

    kind and strength: of ``CORRUPTIONS``. generator: numpy's, for the two kinds of noise.
    """
    if corruption == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength))
    if corruption == "pixelation":
        return image.resize((int(strength), int(strength)), Image.Resampling.BOX).resize(
            image.size, Image.Resampling.NEAREST
        )
    if corruption == "jpeg":
        compressed = io.BytesIO()
        image.save(compressed, "JPEG", quality=strength)
        return Image.open(compressed, formats=["JPEG"]).convert("RGB")
    pixels = numpy.asarray(image) / 255.0  # (S, S, 3)
    if corruption == "gaussian noise":
        pixels = pixels + generator.normal(0, strength, pixels.shape)
    elif corruption == "impulse noise":
        hit, white = (generator.random((*pixels.shape[:2], 1)) < share for share in (strength, 0.5))
        pixels = numpy.where(hit, white, pixels)
    else:  # low contrast
        pixels = 0.5 + (pixels - 0.5) * strength
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(numpy.uint8))


def recoloured(hexcode: str, size: int) -> Image.Image:
    """hexcode → RGB image, size × size: every hue turned by 60° to 300°, white made a light tint;
    outlines stay dark."""
    generator = draws_of(hexcode, "colours")
    pixels = numpy.asarray(draw_emoji(hexcode, size)) @ hue_rotation(generator.uniform(60, 300)).T
    paper = 255 - generator.uniform(0, 90, 3)  # the new white
    return Image.fromarray((pixels.clip(0, 255) * (paper / 255)).round().astype(numpy.uint8))


def hue_rotation(degrees: float) -> numpy.ndarray:
    """(3, 3) matrix that turns RGB colours about the axis of greys, which it leaves as they are."""
    angle = math.radians(degrees)
    grey = numpy.full(3, 1 / math.sqrt(3))
    return (
        math.cos(angle) * numpy.eye(3)
        + math.sin(angle) * numpy.cross(numpy.eye(3), grey)
        + (1 - math.cos(angle)) * numpy.outer(grey, grey)
    )
