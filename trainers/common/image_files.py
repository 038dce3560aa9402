"""Opens image files, which may be damaged or hostile; nothing else opens them.

The cost of a picture is bounded: its file, its header (``image_headers.py``), its pixels, its shape;
and a process decodes ``AT_ONCE`` pixels at a time. docs/reliability.md has the total.
"""

import contextlib
import hashlib
import math
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, NamedTuple, Protocol, TypeVar

import numpy
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from .boxes import Box, box_of, file_of
from .console import first_few, printable
from .errors import UserError, raise_machines
from .files import file_hash
from .image_headers import check_header

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
EXTENSIONS = Image.registered_extensions()  # ending → format
# Pillow would open many more formats, and start a PostScript interpreter for some.
DECODED_FORMATS = [
    name
    for name in "JPEG PNG WEBP BMP GIF TIFF PPM HEIF AVIF JPEG2000".split()
    if name in Image.OPEN
]
# of files that are taken for images
IMAGE_ENDINGS = tuple(
    ending for format_ in DECODED_FORMATS for ending, name in EXTENSIONS.items() if name == format_
)
HEIC = (".heic", ".heif")  # of photos of an iPhone, which need pillow-heif
MAX_BYTES = 2**30  # of a file; a picture of MAX_PIXELS that is not compressed has 720 MB at most
MAX_PIXELS = 89_478_485  # of an image: from there on Pillow warns of a decompression bomb
AT_ONCE = 25_000_000  # pixels that a process decodes at a time; a larger picture is decoded alone
MAX_RATIO = 50  # of the sides: the shorter one becomes INPUT.SIZE, and the longer one grows with it
BYTES_A_PIXEL = (
    24  # of memory for a pixel that is decoded, at most: a transparent WebP, with its copies
)
OF_16_BITS = ("PNG", "PPM")  # whose grey pixels Pillow opens as numbers of 32 bits
ORIENTATION = ExifTags.Base.Orientation
SIDEWAYS = (5, 6, 7, 8)  # orientations whose width is shown as the height
TILE_TAGS = 322, 323  # a TIFF's tags with the sides of a tile, which is decoded whole
# whose pictures are decoded before anything knows that they are larger than their file says, up to
# the libraries' own limits
MAY_LIE = ("AVIF", "HEIF")
# formats whose pixels take more time, four seconds for AT_ONCE, or more memory
MOST_PIXELS = {"JPEG2000": AT_ONCE, "AVIF": 2 * AT_ONCE}
# Size of Pillow's blocks of memory: a picture of MAX_PIXELS is one, which the C library gives back
# as soon as it is free. Of less than 32 MB, as is the end of a picture in several blocks, it keeps
# some for each thread that has decoded pictures.
MEMORY_BLOCK = 2**29
COARSE = 24  # pixels of a side, at which pictures are compared
FINE = 2 * COARSE  # in grey, at which it is confirmed that two of them are copies
# of which a JPEG is decoded for that: its own reduction to fewer shows fine detail in another light than a mean does
CLEAR = 4 * COARSE
T = TypeVar("T")


class Room:
    """A number of pixels that threads share; who comes first is served first."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.queue = threading.Lock()
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Waits until that many are free, all of them for a picture that is larger, and keeps them
        to the end of the block."""
        pixels = min(pixels, self.size)
        with self.queue, self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


ROOM = Room(AT_ONCE)


@contextlib.contextmanager
def open_image(file: str | IO[bytes]) -> Iterator[Image.Image]:
    """The image of a path or an open file, not decoded yet, to the end of the block.

    Raises:
        OSError: no file, or none of ``DECODED_FORMATS``; ValueError: it is larger than the limits above,
            or a pipe or a device; and any error that damaged bytes can make Pillow raise.
    """
    if isinstance(file, str):
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ValueError(
                f"it has {status.st_size // 2**20} MB, the limit is {MAX_BYTES // 2**20} MB"
            )
    with open(file, "rb") if isinstance(file, str) else contextlib.nullcontext(file) as content:
        pixels = check_header(content)
        room = ROOM.taken(pixels) if pixels else contextlib.nullcontext()
        with room, Image.open(content, formats=DECODED_FORMATS) as image:
            check_shape(image)
            yield image


def check_shape(image: Image.Image) -> None:
    """Check that a picture is not too long for its width.

    Raises:
        ValueError: it has no pixel or more than ``MAX_PIXELS``, one side is more than ``MAX_RATIO``
            times the other, or nothing says which of its numbers is white.
    """
    most = MOST_PIXELS.get(str(image.format), MAX_PIXELS)
    width, height = image.size
    pixels = pixels_of(image)
    if not 0 < pixels <= most or max(image.size) > MAX_RATIO * min(image.size):
        shown = "" if pixels == width * height else f" in tiles of {pixels}"
        raise ValueError(
            f"it has {width} × {height} pixels{shown}: the limit is {most // 10**6} million, and one side may be "
            f"{MAX_RATIO} times the other"
        )
    if image.mode == "F" or (image.mode == "I" and image.format not in OF_16_BITS):
        raise ValueError(
            "its pixels are numbers of 32 bits, of which nothing says what is white: save it with 8 or 16 bits"
        )


def pixels_of(image: Image.Image) -> int:
    """Return the number of pixels that an open image decodes: at least a tile for a TIFF."""
    tags = getattr(image, "tag_v2", {})
    tile = math.prod(int(tags.get(tag, 0)) for tag in TILE_TAGS)
    return max(image.width * image.height, tile)


@contextlib.contextmanager
def room_for(image: Image.Image) -> Iterator[None]:
    """Wait until there is room for an image's pixels, and keep it to the end of the block, which decodes
    the image."""
    Image.core.set_block_size(MEMORY_BLOCK)  # type: ignore[attr-defined]  # Pillow exports no allocator
    pixels = AT_ONCE if image.format in MAY_LIE else pixels_of(image)
    # a WebP has its room since it was opened
    with contextlib.nullcontext() if image.format == "WEBP" else ROOM.taken(pixels):
        yield


def draft(image: Image.Image, least: int) -> None:
    """Let Pillow decode a JPEG at the smallest scale at which its sides have ``least`` pixels. With 0 it is
    decoded as it is, and at half its size if it has more than ``AT_ONCE`` pixels."""
    if least:
        image.draft(image.mode, (least, least))
    if image.width * image.height > AT_ONCE:
        image.draft(image.mode, (image.width // 2, image.height // 2))


@contextlib.contextmanager
def loaded(image: Image.Image, file: object, least: int) -> Iterator[Image.Image]:
    """Decode an open image that is the picture of a path, or has its box, to the end of the block: a whole one at
    the scale of ``draft``, a photograph with boxes upright."""
    is_whole = box_in(file) is None
    if is_whole:
        draft(image, least)
    with room_for(image):
        image.load()
        yield image if is_whole else upright(image)


def each_decoded(
    files: Sequence[str | IO[bytes] | Image.Image], background: str | None, least: int
) -> Generator[Image.Image | UserError, None, None]:
    """Yield the RGB image of each box of a photograph, which is decoded once, or why it can't be read.

    files: paths of boxes in one file; or a single picture, arguments as in ``decoded``.

    Raises:
        MemoryError, which says nothing of the picture.
    """
    image = None
    with contextlib.ExitStack() as stack:
        try:
            first = files[0]
            if isinstance(first, Image.Image):
                check_shape(first)
                image = photo = first  # which stays open
                stack.enter_context(room_for(image))
            else:
                image = stack.enter_context(open_image(file_in(first)))
                photo = stack.enter_context(loaded(image, first, least))
        except Exception as error:  # damaged bytes can raise anything in Pillow's many readers
            yield from [unreadable(file, error, image) for file in files]
            return
        for file in files:
            try:
                picture = on_background(part_of(photo, file), background)
            except Exception as error:  # as above
                yield unreadable(file, error, image)
                continue
            yield picture


def unreadable(file: object, error: Exception, image: Image.Image | None) -> UserError:
    """Return the error of a picture that can't be read; image: as in ``reason``, which raises the machine's."""
    refusal = UserError(
        f"image {file} can't be read ({reason(error, image)}): replace it, or leave it out"
    )
    refusal.__cause__ = error
    return refusal


@contextlib.contextmanager
def decoded(
    file: str | IO[bytes] | Image.Image, background: str | None = "", least: int = 0
) -> Iterator[Image.Image]:
    """The RGB image of a path, an open file or a PIL image, of a path with a box its crop (``boxes``); to
    the end of the block it counts among the ``AT_ONCE`` pixels.

    Args:
        background: a colour, or None: the picture as a viewer shows it (``as_seen``); "": as it
            is stored, which is CoOp's way.
        least: as in ``draft``.

    Raises:
        UserError: it can't be read; MemoryError, which says nothing of the picture.
    """
    with contextlib.closing(each_decoded([file], background, least)) as pictures:
        picture = next(pictures)
        if isinstance(picture, UserError):
            raise picture
        yield picture


def file_in(file: str | IO[bytes]) -> str | IO[bytes]:
    """Return the file that is to be opened for a picture."""
    return file_of(file) if isinstance(file, str) else file


def box_in(file: object) -> Box | None:
    """Return the box of a picture; None where it is a whole file, an open one or an image."""
    return box_of(file) if isinstance(file, str) else None


def by_photograph(files: Sequence[object]) -> list[list[int]]:
    """Return the places of pictures that are read together: of the boxes of each photograph; others are alone."""
    places: dict[object, list[int]] = {}
    for place, file in enumerate(files):
        path = os.fspath(file) if isinstance(file, os.PathLike) else file
        key = file_of(path) if isinstance(path, str) and box_of(path) else place
        places.setdefault(key, []).append(place)
    return [*places.values()]


def part_of(image: Image.Image, file: object) -> Image.Image:
    """Return a photograph's part that is the picture of a path: of one without a box the same image.

    image: of a path with a box the photograph as ``loaded`` has it.

    Raises:
        ValueError: the box ends outside of the photograph, or one side is too long for the other.
    """
    box = box_in(file)
    if box is None:
        return image
    _, _, right, bottom = box.corners
    if right > image.width or bottom > image.height:
        raise ValueError(
            f"the box ends at {right} × {bottom}, the photograph has {image.width} × {image.height} pixels"
        )
    part = image.crop(box.corners)
    part.format = image.format
    check_shape(part)
    return part


def read_picture(file: str | IO[bytes], background: str = "", least: int = 0) -> Image.Image:
    """Return the RGB image of a path or an open file, to be kept; arguments as in ``decoded``. (Dassl's own
    ``read_image`` tries again, for ever.)"""
    with decoded(file, background, least) as image:
        return image


def reason(error: Exception, image: Image.Image | None = None) -> str:
    """Why a picture can't be read, in a few words; ``image``: the picture, if it could be opened.

    Raises:
        MemoryError, OSError: memory is used up, or the machine fails otherwise, which says nothing of
            the picture.
    """
    if not isinstance(error, PermissionError):  # which tells of this picture alone
        raise_machines(error)
    if image is not None:  # most decoders tell a lack of memory as damage
        numpy.empty(BYTES_A_PIXEL * pixels_of(image), numpy.uint8)
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


class LastPhotograph:
    """The photograph that a box was cut from last, kept decoded: often the next box lies in it, too."""

    def __init__(self) -> None:
        self.file = ""
        self.image: Image.Image | None = None

    def read(self, path: str, background: str) -> Image.Image:
        """Return the RGB image of a path with a box; background and errors: as in ``decoded``."""
        try:
            if self.image is None or self.file != file_of(path):
                self.image = None  # before the next one, so that there are never two
                self.file = file_of(path)
                with open_image(self.file) as image, loaded(image, path, 0) as photo:
                    self.image = photo
            return on_background(part_of(self.image, path), background)
        except Exception as error:  # as in ``each_decoded``
            raise unreadable(path, error, self.image) from error


def on_background(image: Image.Image, background: str | None) -> Image.Image:
    """Convert an open image to RGB; background: as in ``decoded``."""
    return in_rgb(image) if background == "" else as_seen(image, background)


def as_seen(image: Image.Image, background: str | None) -> Image.Image:
    """Return an image in RGB as a viewer shows it: ``upright``, transparent parts on a colour; without
    a colour in RGBA, if it has such parts."""
    image = upright(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if background is None:
            return image
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return in_rgb(image)


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF data say, 16 bits of grey as 8; the same one, if that is how it is."""
    image.load()
    try:
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # as in ``decoded``; EXIF data that are damaged turn nothing
        reason(error)
    if image.mode == "I" or image.mode.startswith("I;16"):  # which ``convert`` would cut off at 255
        image = Image.fromarray(
            (numpy.asarray(image).astype(numpy.uint32) >> 8).astype(numpy.uint8)
        )
    return image


def in_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB; the same one, if it is."""
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


# ---- a folder of pictures ----


def files_below(folder: str) -> Iterator[str]:
    """Paths of all files in a folder and those below, sorted folder by folder; without hidden ones."""
    places = [folder]
    while places:
        place = places.pop()
        # of this folder alone: a walk through more levels than Python's stack has would fail
        _, folders, names = next(os.walk(place), ("", [], []))
        yield from (os.path.join(place, name) for name in sorted(names) if not name.startswith("."))
        inner = [os.path.join(place, name) for name in folders if not name.startswith(".")]
        places += sorted((path for path in inner if not os.path.islink(path)), reverse=True)


def is_image(path: str) -> bool:
    """Whether a file, or the file of a box, is taken for an image, by its name."""
    return file_of(path).lower().endswith(IMAGE_ENDINGS)


def left_out(paths: Iterable[str]) -> str:
    """One line on the files that are ignored, counted by their endings; "" where there are none.

    Args:
        paths: of all files; those taken for images count where they are animated, for all but their
            first picture.
    """
    ignored: dict[str, list[str]] = defaultdict(list)  # by ending
    moving = []
    for path in paths:
        if not is_image(path):
            ignored[os.path.splitext(path)[1].lower() or "without an ending"].append(path)
        elif path.lower().endswith((".gif", ".webp", ".tif", ".tiff", ".avif")) and look_at(
            path, lambda image: getattr(image, "is_animated", False)
        ):
            moving.append(path)
    lines = [
        f"{len(files)} {ending} ({first_names(files)})" for ending, files in sorted(ignored.items())
    ]
    sentences = [f"Left out: {'; '.join(lines)}"] if lines else []
    if heic := needs_heic(sum(ignored.values(), [])):
        sentences.append(heic)
    if moving:
        sentences.append(
            f"Of {len(moving)} moving pictures the first frame is taken ({first_names(moving)})"
        )
    return ". ".join(sentences)


def needs_heic(paths: Iterable[str]) -> str:
    """Return the advice on installing a reader for iPhone photos, if some can't be read; else ""."""
    unread = any(path.lower().endswith(HEIC) and not is_image(path) for path in paths)
    return "To take HEIC: pip install pillow-heif" if unread else ""


def first_names(paths: Iterable[str]) -> str:
    """The first few files by their names."""
    return first_few([printable(os.path.basename(path)) for path in paths])


def transparent_parts(background: str) -> str:
    """Describe the treatment of transparent parts; ``background``: as in ``read_picture``."""
    return f"put on {background}" if background else "taken as stored, whatever colour lies there"


def with_alpha(paths: Iterable[str]) -> int:
    """Count the pictures that can have transparent parts by their headers; unreadable ones don't
    count."""
    return sum(look_at(path, lambda image: image.has_transparency_data) for path in paths)


def look_at(path: str, question: Callable[[Image.Image], bool]) -> bool:
    """Answer a question by a picture's header; False where it can't be read."""
    try:
        with open_image(file_of(path)) as image:
            return question(image)
    except Exception as error:  # as in ``decoded``
        reason(error)
        return False


class PictureFacts(NamedTuple):
    """Facts of a decoded picture.

    Attributes:
        reason: why it can't be read; then all else is empty.
        is_transparent: whether it has transparent parts.
        digest: its ``content_hash``.
        coarse, fine: as in ``thumbnails_of``.
    """

    reason: str = ""
    is_transparent: bool = False
    digest: bytes = b""
    coarse: numpy.ndarray | None = None
    fine: numpy.ndarray | None = None


class PictureSink(Protocol):
    """An object that is given each decoded picture, and keeps the parts that it needs later.

    Attributes:
        least: as in ``draft``.
        facts: hash of a file's bytes → facts of a picture that need not be decoded.
    """

    @property
    def least(self) -> int: ...

    @property
    def facts(self) -> Mapping[bytes, PictureFacts]: ...

    def take(self, path: str, image: Image.Image, seen: Image.Image) -> None:
        """Keep the needed parts of a picture.

        Args:
            image: as it is decoded; seen: in RGB, as a viewer sees it on white.
        """


def look(path: str) -> PictureFacts:
    """Look at one picture, as ``look_at_each``."""
    (facts,) = look_at_each([path], None)
    return facts


def look_at_each(paths: Sequence[str], keeper: PictureSink | None) -> list[PictureFacts]:
    """Decode a picture, or a photograph for all its boxes, unless its ``keeper`` knows their facts; a large picture
    without a ``keeper`` as coarsely as its format allows.

    paths: as in ``each_decoded``.
    """
    image = None
    try:
        with open_image(file_of(paths[0])) as image:
            digests = [bytes.fromhex(digest) for digest in content_hashes(paths)]
            known = {} if keeper is None else keeper.facts
            if all(digest in known for digest in digests):
                return [known[digest] for digest in digests]
            with loaded(image, paths[0], CLEAR if keeper is None else keeper.least) as photo:
                return [
                    known[digest] if digest in known else facts_of(photo, path, digest, keeper)
                    for path, digest in zip(paths, digests)
                ]
    except Exception as error:  # as in ``each_decoded``
        return [PictureFacts(reason(error, image))] * len(paths)


def facts_of(
    photo: Image.Image, path: str, digest: bytes, keeper: PictureSink | None
) -> PictureFacts:
    """Return the facts of a path's picture, which is or lies in a decoded image."""
    try:
        image = part_of(photo, path)
        is_transparent = (
            image.has_transparency_data
            and min(image.convert("RGBA").getchannel("A").tobytes()) < 255
        )
        seen = as_seen(image, "white")
        coarse, fine = thumbnails_of(seen)
        if keeper is not None:
            keeper.take(path, image, seen)
        return PictureFacts("", is_transparent, digest, coarse, fine)
    except Exception as error:  # as in ``each_decoded``
        return PictureFacts(reason(error, photo))


def thumbnails_of(picture: Image.Image) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return an RGB picture as a viewer sees it from afar: in colour (3 · ``COARSE``²,) and in grey (``FINE``²,),
    uint8."""
    small = picture.resize((FINE, FINE), Image.Resampling.BOX)
    return numpy.asarray(small.reduce(2)).ravel(), numpy.asarray(small.convert("L")).ravel()


def upright_size(path: str) -> tuple[int, int]:
    """Return the width and the height of a picture's file as a viewer shows it, by its header."""
    with open_image(file_of(path)) as image:
        is_turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
        return (image.height, image.width) if is_turned else image.size


def content_hash(path: str) -> str:
    """Return the SHA-256 of a file's bytes, of a box's picture of these and the box; 64 hex digits."""
    (digest,) = content_hashes([path])
    return digest


def content_hashes(paths: Sequence[str]) -> list[str]:
    """Return the ``content_hash`` of each path; paths: as in ``each_decoded``."""
    content = file_hash(file_of(paths[0]))
    boxes = [box_of(path) for path in paths]
    return [
        hashlib.sha256(f"{content} {box.corners}".encode()).hexdigest() if box else content
        for box in boxes
    ]


def state_of(path: str) -> tuple[int, int]:
    """A file's size and when it was changed, in ns; zeros where it is not there."""
    with contextlib.suppress(OSError, ValueError):
        known = os.stat(file_of(path))
        return known.st_size, known.st_mtime_ns
    return 0, 0


def look_through(paths: Sequence[str], keeper: PictureSink | None = None) -> list[PictureFacts]:
    """Decode pictures, each file once; the keeper is given them in threads."""
    photographs = by_photograph(paths)
    looks = thread_map(  # Pillow decodes without Python's lock
        lambda places: look_at_each([paths[place] for place in places], keeper),
        photographs,
        tqdm_class=tqdm,
        desc="looking through the images",
        unit="image",
        delay=2,
        dynamic_ncols=True,
    )
    return in_places(photographs, looks)


def in_places(places: Sequence[Sequence[int]], parts: Iterable[Sequence[T]]) -> list[T]:
    """Return the items of all parts in one list, each at its place; places: of each part's items."""
    items = dict(zip(chain(*places), chain(*parts)))
    return [items[place] for place in range(len(items))]
