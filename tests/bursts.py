"""Bursts, drawn: pictures that are shot several times in a row, and how much of that is found.

Between any two shots the hand moves by up to 4 % of a side each way, the scale changes by 4 %, the
light by 15 % and the contrast by 10 %, there is noise of 8 of 255, and each shot is a JPEG of another
quality. A half burst has half of all that.
"""

import io
from collections.abc import Iterable, Sequence

import numpy
from numpy.random import Generator
from PIL import Image, ImageEnhance

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.openmoji import SPLIT
from labelling.look_alikes import LookAlikes, look_alikes
from trainers.common.image_files import PictureFacts, thumbnails_of
from trainers.common.readers import read_json
from trainers.data.lists import PARTS

SIZE = 96  # pixels of a side
SHOTS = 4
SCENES = 150  # of a kind that are shot in bursts, at most
Pictures = list[tuple[Image.Image, str]]  # and their classes


def shots(
    picture: Image.Image, number: int, strength: float, draws: Generator
) -> list[Image.Image]:
    """A burst of a picture; strength: 1 for what the head of this file says."""
    return [shot(picture, strength, draws) for _ in range(number)]


def shot(picture: Image.Image, strength: float, draws: Generator) -> Image.Image:
    """One of a burst; what comes in from outside the picture has the colour of its corner."""
    scale, right, down = 1 + strength * draws.uniform(-0.04, 0.04, 3)
    light = 1 + strength * draws.uniform(-0.15, 0.15)
    contrast = 1 + strength * draws.uniform(-0.1, 0.1)
    width, height = picture.size
    moved = picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        (scale, 0, width * (right - scale) / 2, 0, scale, height * (down - scale) / 2),
        Image.Resampling.BICUBIC,
        fillcolor=picture.getpixel((0, 0)),
    )
    lit = ImageEnhance.Contrast(ImageEnhance.Brightness(moved).enhance(light)).enhance(contrast)
    noise = draws.normal(0, 8 * strength, (height, width, 3))
    noisy = Image.fromarray((numpy.asarray(lit) + noise).clip(0, 255).astype("uint8"))
    file = io.BytesIO()
    noisy.save(file, "JPEG", quality=int(draws.integers(60, 95)))
    return Image.open(file, formats=("JPEG",)).convert("RGB")


def codes() -> list[tuple[str, str]]:
    """The code points and the class of each of OpenMoji's drawings."""
    split = read_json(SPLIT)
    return [(code, name) for part in PARTS for code, _, name in split[part]]


def drawn(emojis: Iterable[tuple[str, str]]) -> Pictures:
    """The pictures of some of ``codes``."""
    return [(draw_emoji(code, SIZE), name) for code, name in emojis]


def drawings() -> Pictures:
    """All of OpenMoji's drawings."""
    return drawn(codes())


def textures(classes: int = 4, each: int = 60) -> Pictures:
    """Noise of one direction and wavelength for each class, in its colours."""
    across, down = numpy.meshgrid(*[numpy.fft.fftfreq(SIZE)] * 2)
    made = []
    for label in range(classes):
        draws = numpy.random.default_rng(label)
        angle, wave = draws.uniform((0, 0.03), (numpy.pi, 0.25))
        along = across * numpy.cos(angle) + down * numpy.sin(angle)
        beside = down * numpy.cos(angle) - across * numpy.sin(angle)
        peak = numpy.exp(-((abs(along) - wave) ** 2) / 0.002 - beside**2 / 0.004)
        spectrum = peak + 0.02 / (numpy.hypot(across, down) + 0.02)
        tone = draws.normal(size=3)
        ground = draws.uniform(80, 170, 3)
        for _ in range(each):
            noise = numpy.fft.ifft2(numpy.fft.fft2(draws.normal(size=(SIZE, SIZE))) * spectrum).real
            pixels = ground + 30 * (noise / noise.std())[..., None] * tone
            made.append((Image.fromarray(pixels.clip(0, 255).astype("uint8")), str(label)))
    return made


def alike(pictures: Sequence[Image.Image], classes: Sequence[str]) -> LookAlikes:
    """Which pictures look alike, as a run sees them."""
    seen = [PictureFacts("", False, b"", *thumbnails_of(each)) for each in pictures]
    names = sorted({*classes})
    return look_alikes(seen, [names.index(name) for name in classes])


def groups(pictures: Sequence[Image.Image], classes: Sequence[str]) -> list[int]:
    """The groups of pictures that look alike."""
    return alike(pictures, classes).groups


def found(pictures: Pictures, strength: float) -> float:
    """The share in percent of pairs of shots of a burst that are in one group."""
    draws = numpy.random.default_rng(0)
    some = pictures[:: -(-len(pictures) // SCENES)]
    taken = [each for picture, _ in some for each in shots(picture, SHOTS, strength, draws)]
    group = groups(taken, [name for _, name in some for _ in range(SHOTS)])
    pairs = numpy.array(group).reshape(-1, SHOTS)
    alike = [pairs[:, one] == pairs[:, other] for one in range(SHOTS) for other in range(one)]
    return 100 * float(numpy.mean(alike))
