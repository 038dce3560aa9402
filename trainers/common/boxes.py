"""Boxes in photographs, named as the W3C's Media Fragments are: ``photo.jpg#xywh=10,20,300,200``.

A name with such an ending is a picture of its own, the box's crop. ``image_files`` cuts it out where
pictures are decoded; everything else takes it as it takes any path.
"""

import math
import os
import re
from typing import NamedTuple

FRAGMENT = re.compile(r"#xywh=(\d+),(\d+),(\d+),(\d+)\Z")


class Box(NamedTuple):
    """A rectangle of whole pixels in a photograph as a viewer shows it, turned as its EXIF data say.

    Attributes:
        left, top: of its first pixel, from 0; width, height: 1 or more.
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, of which the last two lie outside, as Pillow's ``crop`` takes them."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def whole_pixels(left: float, top: float, width: float, height: float) -> Box | None:
    """Return the smallest box of whole pixels around a rectangle, cut off where the photograph begins;
    None where no area is left.

    Raises:
        ValueError: a number is not finite.
    """
    numbers = left, top, width, height
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"the box {numbers}, of which a number is not finite")
    if width <= 0 or height <= 0:
        return None
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    right, bottom = math.ceil(left + width), math.ceil(top + height)
    return Box(x, y, right - x, bottom - y) if right > x and bottom > y else None


def cut_off(box: Box, width: int, height: int) -> Box | None:
    """Return the part of a box that lies in a photograph of that many pixels; None where there is none."""
    right, bottom = min(box.corners[2], width), min(box.corners[3], height)
    if right <= box.left or bottom <= box.top:
        return None
    return Box(box.left, box.top, right - box.left, bottom - box.top)


def boxed(path: str, box: Box) -> str:
    """Return the name of a box's picture in the photograph of a path."""
    return f"{path}#xywh={','.join(map(str, box))}"


def file_of(path: str) -> str:
    """Return the file of a picture: without a box the path itself."""
    return FRAGMENT.sub("", path)


def real_path(path: str) -> str:
    """Return the path of a picture without links: of a box its photograph's, with the box."""
    file = os.path.realpath(file_of(path))
    box = box_of(path)
    return file if box is None else boxed(file, box)


def box_of(path: str) -> Box | None:
    """Return the box of a picture; None where it is a whole file."""
    found = FRAGMENT.search(path)
    return Box(*map(int, found.groups())) if found else None
