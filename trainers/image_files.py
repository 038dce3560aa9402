"""Opens image files: the one place that does, since what is in them is often somebody else's."""
import os
import stat
from typing import IO

from PIL import Image

from .errors import UserError

# Pillow would open many more formats, and start a PostScript interpreter for some.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # of an image: from there on Pillow warns of a decompression bomb; decoded it takes 340 MB


def open_image(file: str | IO[bytes]) -> Image.Image:
    """The image of a path or an open file, not decoded yet; it has to be closed.

    Raises:
        OSError: no file, or none of ``FORMATS``; ValueError: it has too many pixels, or is a pipe or a device; and whatever else damaged bytes
            can make Pillow raise.
    """
    if isinstance(file, str) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("it is no regular file")
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"it has {image.width} × {image.height} pixels, the limit is {MAX_PIXELS // 10 ** 6} million")
    return image


def read_picture(file: str | IO[bytes]) -> Image.Image:
    """The RGB image of a path or an open file.

    Raises:
        UserError: it can't be read. (Dassl's own ``read_image`` tries again, for ever.)
    """
    try:
        with open_image(file) as image:
            return image.convert("RGB")
    except Exception as error:  # damaged bytes can raise anything in Pillow's many readers
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image {file} can't be read ({reason}): replace it, or leave it out") from error
