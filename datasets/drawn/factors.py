"""OpenMoji with known factors: each picture is composed of its object, which is the class, and five
things around it that have nothing to do with it; or six, with the style of its drawing or another
object beside it.

In training one of them is correlated with the class, as the background is in Waterbirds (Sagawa
et al., 2020, "Distributionally Robust Neural Networks for Group Shifts") and the colour in Coloured
MNIST (Arjovsky et al., 2019, "Invariant Risk Minimization"); the others are independent of it and
of each other. At test the same emojis come in three versions that differ in nothing but that
factor.
"""

from collections.abc import Callable
from functools import cache

import numpy
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image as Picture
from yacs.config import CfgNode

from trainers.common.setting import Setting, at_least, node_of
from trainers.data.images import Images
from trainers.data.lists import PARTS, Image, Lists

from ..base import ImageDataset
from .emoji_font import draw_glyph
from .emoji_styles import INK_COLOUR, draws_of, hue_rotation
from .openmoji import SIZE, DrawnDataset, code_of, draw_folder, image_path

AROUND = ("background", "cast", "border", "position", "mark")  # each picture has a level of these
MISLEADING = ("style", "companion")  # of these only where they are the correlated factor
FACTORS = (*AROUND, *MISLEADING)
LEVELS = 5  # of each factor
VERSIONS = ("aligned", "independent", "reversed")  # of the test images
SETTINGS = {
    "CORRELATED": Setting(
        "background", "the factor that is correlated with the class in training", list(FACTORS)
    ),
    "CORRELATION": Setting(
        0.9,
        "share of the training images that show their class's own level of it",
        at_least(0, 1),
    ),
    "TEST": Setting(
        "aligned",
        "which version is tested: the class's own level, any level, another class's level",
        list(VERSIONS),
    ),
}
DEFAULTS = node_of(SETTINGS)  # of cfg.DATASET.FACTORS

# The strengths of the object's surroundings were chosen on train and val images of the base classes,
# where zero-shot accuracy falls from 55 to 36 %: the tiny CLIP copes with any colour, but not with
# sharp lines beside the object.
CANVAS = 384  # pixels a side that are drawn, then averaged down; an emoji's own box is 319 wide
UNIT = CANVAS / 64  # lengths below are in units of 1/64 of a side
BORDER = 3  # width
MARK_WIDTH = 5  # width; it touches the border in the upper right corner
TINT = "16"  # of ff: how opaque the border is
NEARLY_BLACK = "#141414"
RED = "#dc2828"
GREEN = "#1e963c"
BLUE = "#2850dc"
ORANGE = "#faaa14"
# where something is: x and y → bool, all of one shape
Place = Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]
# paper, ink, and where the ink is: x to the right, y down
BACKGROUNDS: tuple[tuple[str, str, Place], ...] = (
    ("#ffe4a0", "#ffe4a0", lambda x, y: x < 0),  # plain
    ("#b9dcfc", "#aad2f8", lambda x, y: y % 8 < 4),  # stripes
    ("#fcc4d2", "#f8b6c6", lambda x, y: (x % 8 - 4) ** 2 + (y % 8 - 4) ** 2 < 5),  # dots
    ("#beebbe", "#afe2af", lambda x, y: (x // 8 + y // 8) % 2 == 0),  # checks
    ("#dec8fc", "#d0baf6", lambda x, y: (x + y) % 8 < 4),  # slanted stripes
)
# factors of red, green, blue
CASTS = ((1, 1, 1), (1, 0.7, 0.7), (0.7, 1, 0.7), (0.7, 0.7, 1), (1, 1, 0.7))
BORDERS = (NEARLY_BLACK, RED, GREEN, BLUE, ORANGE)
OBJECT_POSITIONS = (
    (0, 0),
    (-5, -5),
    (5, -5),
    (-5, 5),
    (5, 5),
)  # right, down, of the object off the middle
# colour, and where it is: x and y from the middle, edges at ±1
MARKS: tuple[tuple[str, Place], ...] = (
    (RED, lambda x, y: x**2 + y**2 < 1),  # disc
    (BLUE, lambda x, y: numpy.maximum(abs(x), abs(y)) < 0.85),  # square
    (GREEN, lambda x, y: 2 * abs(x) < 1 + y),  # triangle
    (NEARLY_BLACK, lambda x, y: numpy.minimum(abs(x), abs(y)) < 0.3),  # cross
    (ORANGE, lambda x, y: abs(x) + abs(y) < 1),  # diamond
)
# the object's colours, (S, S, 3) from 0 to 255 → their drawn colours
Colouring = Callable[[numpy.ndarray], numpy.ndarray]
STYLES: tuple[Colouring | None, ...] = (
    None,  # OpenMoji's own colours
    lambda colours: colours.mean(axis=2, keepdims=True).repeat(3, axis=2),  # grey
    lambda colours: (
        255.0 * (colours.max(axis=2, keepdims=True) >= INK_COLOUR).repeat(3, axis=2)
    ),  # lines
    lambda colours: numpy.full_like(colours, 20),  # a silhouette
    lambda colours: colours @ hue_rotation(180).T,  # other hues
)
# of classes that no test has among its names: a crying face, a car, a tree, a dog, a guitar
COMPANIONS = ("1F622", "1F697", "1F333", "1F436", "1F3B8")
COMPANION = 26  # its side, in the lower left corner


# ---- pictures ----


def grid() -> tuple[numpy.ndarray, numpy.ndarray]:
    """x and y of the canvas's pixels, (CANVAS, CANVAS) each, in units."""
    y, x = (numpy.indices((CANVAS, CANVAS)) + 0.5) / UNIT
    return x, y


@cache
def paper(background: int) -> Picture.Image:
    """RGB, CANVAS × CANVAS; shared: to be copied before anything is drawn on it."""
    light, ink, where = BACKGROUNDS[background]
    picture = Picture.new("RGB", (CANVAS, CANVAS), light)
    picture.paste(ink, mask=Picture.fromarray(where(*grid())))
    return picture


@cache
def cover(border: int, mark: int, size: int) -> Picture.Image:
    """Border and mark on a transparent ground, RGBA, size × size."""
    x, y = grid()
    colour, where = MARKS[mark]
    radius = MARK_WIDTH / 2
    right = (x - 64 + BORDER + radius) / radius
    down = (y - BORDER - radius) / radius
    is_mark = where(right, down) & (abs(right) < 1) & (abs(down) < 1)
    is_border = numpy.maximum(abs(x - 32), abs(y - 32)) > 32 - BORDER
    picture = Picture.new("RGBA", (CANVAS, CANVAS))
    picture.paste(colour, mask=Picture.fromarray(is_mark))
    picture.paste(BORDERS[border] + TINT, mask=Picture.fromarray(is_border))
    return picture.resize((size, size), Picture.Resampling.BOX)


def draw_styled(
    canvas: Picture.Image, hexcode: str, right: float, down: float, style: Colouring
) -> None:
    """``draw_glyph`` in a style."""
    transparent = Picture.new("RGBA", canvas.size)
    draw_glyph(transparent, hexcode, right, down)
    drawn = Picture.new("RGB", canvas.size, "white")
    draw_glyph(drawn, hexcode, right, down)
    colours = style(numpy.asarray(drawn).astype(float))  # (S, S, 3)
    styled = Picture.fromarray(colours.clip(0, 255).round().astype(numpy.uint8))
    canvas.paste(styled, mask=transparent.getchannel("A"))


def place_companion(canvas: Picture.Image, hexcode: str) -> None:
    """Puts a small emoji on the lower left corner of the canvas."""
    large = Picture.new("RGBA", canvas.size)
    draw_glyph(large, hexcode, CANVAS / 2, CANVAS / 2)
    side = round(COMPANION * UNIT)
    small = large.resize((side, side), Picture.Resampling.BOX)
    inside = round(BORDER * UNIT)
    canvas.paste(small, (inside, CANVAS - inside - side), mask=small.getchannel("A"))


def compose(hexcode: str, levels: dict[str, int], size: int = SIZE) -> Picture.Image:
    """A picture of an emoji of OpenMoji under given factors; the same on every machine.

    The object lies on the background, and a companion on a corner of it; the cast is a light of
    that colour on all of them; border and mark are put on top.

    Args:
        hexcode: as in ``draw_emoji``; levels: factor → its level, from 0 to LEVELS − 1; without
            style the object has its own colours, without companion it is alone; size: pixels a
            side.

    Returns:
        RGB image, size × size.
    """
    canvas = paper(levels["background"]).copy()
    right, down = (CANVAS / 2 + UNIT * shift for shift in OBJECT_POSITIONS[levels["position"]])
    style = STYLES[levels.get("style", 0)]
    if style is None:
        draw_glyph(canvas, hexcode, right, down)
    else:
        draw_styled(canvas, hexcode, right, down, style)
    if "companion" in levels:
        place_companion(canvas, COMPANIONS[levels["companion"]])
    small = canvas.resize((size, size), Picture.Resampling.LANCZOS)
    lit = numpy.asarray(small) * CASTS[levels["cast"]]  # (S, S, 3)
    picture = Picture.fromarray(lit.round().astype(numpy.uint8))
    top = cover(levels["border"], levels["mark"], size)
    picture.paste(top, mask=top)
    return picture


# ---- which levels ----


def levels_of(
    hexcode: str,
    label: int,
    split: str,
    version: str = "independent",
    correlated: str = "",
    correlation: float = 0.0,
) -> dict[str, int]:
    """The factors of an emoji's picture, drawn from a generator that belongs to the emoji and the
    split.

    A class's own level of any factor is its label modulo LEVELS. Of one emoji all factors but the
    correlated one have the same level in every version and whichever factor is correlated;
    ``independent`` is the same for all ``AROUND`` the object.

    Args:
        split: ``train``, ``val`` or ``test``.
        version: one of ``VERSIONS``, or ``biased``: the own level with probability ``correlation``,
            else any other one.
        correlated: one of ``FACTORS``; in ``independent`` only ``MISLEADING`` ones are looked at.

    Returns:
        factor → level, from 0 to LEVELS − 1, of those ``AROUND`` and the correlated one.
    """
    generator = draws_of(hexcode, f"OpenMojiFactors {split}")
    levels = dict(zip(AROUND, generator.integers(LEVELS, size=len(AROUND)).tolist()))
    chance = generator.random()
    shift = int(generator.integers(1, LEVELS))
    if correlated in MISLEADING:
        levels[correlated] = int(generator.integers(LEVELS))
    is_aligned = version == "aligned" or version == "biased" and chance < correlation
    if version != "independent":
        levels[correlated] = (label + (0 if is_aligned else shift)) % LEVELS
    return levels


# ---- the data set ----


@DATASET_REGISTRY.register()
class OpenMojiFactors(DrawnDataset):
    """OpenMoji's classes and emojis; ``cfg.DATASET.FACTORS`` says which factor is correlated and
    which version is tested.

    Train and val have the same bias: only tests see other images. ``aligned`` and ``reversed`` have
    no exceptions.
    """

    dataset_dir = "openmoji_factors"

    @classmethod
    def list_images(cls, folder: str, settings: CfgNode = DEFAULTS) -> Lists:
        """As ``ImageDataset``; settings: ``cfg.DATASET.FACTORS``."""
        lists: Lists = ()
        for split, images in zip(PARTS, super().list_images(folder)):
            place = f"{folder}/{part_name(split, settings)}"
            moved = [image._replace(impath=image_path(place, code_of(image))) for image in images]
            lists = *lists, moved
        return lists

    def choose(self, cfg: CfgNode, *_: list[Image]) -> Images:
        settings = cfg.DATASET.get("FACTORS", DEFAULTS)
        lists = self.list_images(self.dataset_dir, settings)
        for split, images in zip(PARTS, lists):
            labels = {code_of(image): image.label for image in images}
            version = settings.TEST if split == "test" else "biased"
            bias = version, settings.CORRELATED, settings.CORRELATION

            def composed(code: str, size: int) -> Picture.Image:
                return compose(code, levels_of(code, labels[code], split, *bias), size)

            draw_folder(
                f"{self.dataset_dir}/{part_name(split, settings)}", sorted(labels), composed
            )
        # not DrawnDataset's, which draws one picture of each emoji
        return ImageDataset.choose(self, cfg, *lists)


def part_name(split: str, settings: CfgNode) -> str:
    """Folder of a split's pictures: its name says all that they depend on, and so tells runs' split
    hashes apart."""
    if split != "test":
        return f"{split}_{settings.CORRELATED}_{settings.CORRELATION:g}"
    if settings.TEST == "independent" and settings.CORRELATED in AROUND:
        return "independent"
    return f"{settings.TEST}_{settings.CORRELATED}"
