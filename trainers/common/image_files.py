"""Opens image files, which may be damaged or hostile; nothing else opens them."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm
from yacs.config import CfgNode

from .errors import UserError
from .files import file_hash

# Pillow would open many more formats, and start a PostScript interpreter for some.
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
ENDINGS: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
)  # of files that are taken for images
HEIC = (".heic", ".heif")
try:
    from pillow_heif import register_heif_opener
except ImportError:
    pass
else:
    register_heif_opener()
    FORMATS, ENDINGS = [*FORMATS, "HEIF"], ENDINGS + HEIC
POLICIES = (
    "error",
    "skip",
)  # of DATALOADER.BROKEN_IMAGES: an unreadable image ends the run, or is left out
NAMED = 5  # left out files of a kind, at most
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation
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
        raise ValueError(
            f"it has {image.width} × {image.height} pixels, the limit is {MAX_PIXELS // 10**6} million"
        )
    return image


def read_picture(file: str | IO[bytes], background: str = "") -> Image.Image:
    """The RGB image of a path or an open file.

    Args:
        background: a colour: the picture as a viewer shows it, see ``as_seen``; "": as it is stored, which is CoOp's way.

    Raises:
        UserError: it can't be read. (Dassl's own ``read_image`` tries again, for ever.)
    """
    try:
        with open_image(file) as image:
            return as_seen(image, background) if background else image.convert("RGB")
    except Exception as error:  # damaged bytes can raise anything in Pillow's many readers
        raise UserError(
            f"image {file} can't be read ({reason(error)}): replace it, or leave it out"
        ) from error


def reason(error: Exception) -> str:
    """Why a picture can't be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


def as_seen(image: Image.Image, background: str) -> Image.Image:
    """An image in RGB as a viewer shows it: turned as its EXIF data say, transparent parts on a colour, 16 bits of grey as 8."""
    turn = TURNS.get(orientation(image))
    if image.mode == "I" or image.mode.startswith("I;16"):  # which ``convert`` would cut off at 255
        image = Image.fromarray(
            (numpy.asarray(image).astype(numpy.uint32) >> 8).astype(numpy.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """What EXIF data say of how an image is to be turned, 1 to 8; 1, not at all, where they are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in ``read_picture``
        return 1


# ---- a folder of pictures ----


def files_below(folder: str) -> Iterator[str]:
    """Paths of all files in a folder and those below, sorted folder by folder; without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))


def is_image(path: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return path.lower().endswith(ENDINGS)


def left_out(paths: Iterable[str]) -> str:
    """One line on the files that are ignored, counted by their endings; "" where there are none.

    Args:
        paths: of all files; those taken for images count where they are animated, for all but their first picture.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    moving: list[str] = []
    for path in paths:
        if not is_image(path):
            kinds[os.path.splitext(path)[1].lower() or "without an ending"].append(path)
        elif path.lower().endswith((".gif", ".webp", ".tif", ".tiff")) and frames(path) > 1:
            moving.append(path)

    def names(files: list[str]) -> str:
        return f"({', '.join(map(os.path.basename, files[:NAMED]))}{', …' * (len(files) > NAMED)}"

    lines = [
        f"{len(files)} {kind} {names(files)}"
        f"{'; to take these: pip install pillow-heif' if kind in HEIC else ''})"
        for kind, files in sorted(kinds.items())
    ]
    return ". ".join(
        [f"Left out: {'; '.join(lines)}"] * bool(lines)
        + [f"Of {len(moving)} moving pictures the first frame is taken {names(moving)})"] * bool(moving)
    )


def transparent_parts(background: str) -> str:
    """What becomes of transparent parts, in words; ``background``: see ``read_picture``."""
    return f"put on {background}" if background else "taken as stored, whatever colour lies there"


def with_alpha(paths: Iterable[str]) -> int:
    """How many pictures can have transparent parts, as their headers say; those that can't be opened don't count."""

    def look(path: str) -> bool:
        try:
            with open_image(path) as image:
                return image.has_transparency_data
        except Exception:  # as in ``read_picture``
            return False

    return sum(map(look, paths))


def frames(path: str) -> int:
    """How many pictures a file holds; 0 where it can't be read."""
    try:
        with open_image(path) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # as in ``read_picture``
        return 0


def look_through(paths: Iterable[str]) -> tuple[dict[str, str], int, list[bytes]]:
    """Decodes pictures, large ones as coarsely as their format allows.

    Returns:
        path → what is wrong, of those that can't be read; how many have transparent parts; and a hash of each one's bytes,
        empty where it can't be read.
    """

    def look(path: str) -> tuple[bool | str, bytes]:
        try:
            with open_image(path) as image:
                image.draft("RGB", (image.width // 8, image.height // 8))
                image.load()
                is_transparent = (
                    image.has_transparency_data
                    and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
                )
            return is_transparent, bytes.fromhex(file_hash(path))
        except Exception as error:  # as in ``read_picture``
            return reason(error), b""

    paths = list(paths)
    with ThreadPoolExecutor() as pool:  # Pillow decodes without Python's lock
        try:
            found = list(
                tqdm(
                    pool.map(look, paths),
                    total=len(paths),
                    desc="looking through the images",
                    unit="image",
                    delay=2,
                    dynamic_ncols=True,
                )
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return (
        {path: said for path, (said, _) in zip(paths, found) if isinstance(said, str)},
        sum(said is True for said, _ in found),
        [own for _, own in found],
    )


def skips_broken_images(cfg: CfgNode) -> bool:
    """Whether a run goes on without images that can't be read; another toolbox's config may not have the key."""
    return cfg.DATALOADER.get("BROKEN_IMAGES", "error") == "skip"


def background_of(cfg: CfgNode) -> str:
    """``INPUT.BACKGROUND``, see ``read_picture``; another toolbox's config may not have the key."""
    return cfg.INPUT.get("BACKGROUND", "")
