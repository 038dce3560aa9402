"""Checks of a picture's first bytes, which Pillow would act on as soon as it opens the file.

A picture whose opening would cost more than its pixels do is refused before Pillow sees it.
"""

import re
import struct
from typing import IO

import numpy

# of a JPEG, each over all its pixels; cameras and libraries make ten
MAX_SCANS = 100
# bytes of a JPEG that are looked at at a time; between them threads wait for one another
HEADER_BLOCK = 2**20
MAX_HEADER = 2**16  # bytes of a PPM's, which Pillow reads one by one
MAX_PLAIN = 2**23  # bytes of a PPM in plain text, which Pillow reads in Python: five seconds
# of a TIFF's tag; all become Python's numbers; tiles of 16 pixels need fewer
MAX_VALUES = 2**20
# the TIFF's types that stay bytes
OF_BYTES = 1
OF_TEXT = 2
UNDEFINED = 7
CANVAS_BYTES = 8  # bytes a pixel, which Pillow takes when it opens a WebP
MAX_WEBP = 50_000_000  # pixels of a WebP, each of more memory than another format's


def check_header(file: IO[bytes]) -> int:
    """Looks at a picture from its start, and goes back there.

    Returns:
        pixels for which Pillow takes memory when it opens the file: of a WebP all, of others none.

    Raises:
        ValueError: a JPEG has too many scans, a PPM's header is too long or its text is, a TIFF's
            tag has too many values, or a WebP too many pixels; MemoryError: it does not fit.
    """
    magic = file.read(2)
    pixels = 0
    if magic == b"\xff\xd8":
        check_jpeg(file)
    elif magic in (b"II", b"MM"):
        check_tiff(file, "<" if magic == b"II" else ">")
    elif magic.startswith(b"P"):
        check_ppm(file, is_plain=magic in (b"P1", b"P2", b"P3"))
    elif magic == b"RI":
        pixels = check_webp(file.read(28))
    file.seek(0)
    return pixels


def check_jpeg(file: IO[bytes]) -> None:
    # including the scans of the few pictures in its data
    scans = 0
    last = b""
    while block := file.read(HEADER_BLOCK):
        content = numpy.frombuffer(last + block, numpy.uint8)  # four times as fast as ``count``
        scans += int(numpy.count_nonzero((content[:-1] == 0xFF) & (content[1:] == 0xDA)))
        last = block[-1:]
    if scans > MAX_SCANS:
        raise ValueError(f"it is a JPEG of more than {MAX_SCANS} scans: save it again")


def check_ppm(file: IO[bytes], is_plain: bool) -> None:
    head = file.read(MAX_HEADER)
    # width, height, and the largest value or the bytes after it
    if len(re.sub(rb"#[^\r\n]*", b"", head).split(maxsplit=3)) < 3 and len(head) == MAX_HEADER:
        raise ValueError(f"its header has more than {MAX_HEADER // 2**10} kB")
    if is_plain and file.seek(0, 2) > MAX_PLAIN:
        raise ValueError(
            f"it is a PPM in plain text of more than {MAX_PLAIN // 2**20} MB: save it in binary"
        )


def check_tiff(file: IO[bytes], order: str) -> None:
    """Check a TIFF's header; order: of its bytes, as ``struct`` has it."""
    try:
        (version,) = struct.unpack(f"{order}H", file.read(2))
        is_big = version == 43
        pointer, number, entry = ("4xQ", "Q", "HHQ8x") if is_big else ("I", "H", "HHI4x")
        (first,) = struct.unpack(f"{order}{pointer}", file.read(struct.calcsize(f"={pointer}")))
        file.seek(first)
        (entries,) = struct.unpack(f"{order}{number}", file.read(struct.calcsize(f"={number}")))
        size = struct.calcsize(f"={entry}")
        for _ in range(min(entries, 2**16)):
            tag, kind, values = struct.unpack(f"{order}{entry}", file.read(size))
            if values > MAX_VALUES and kind not in (OF_BYTES, OF_TEXT, UNDEFINED):
                raise ValueError(f"its TIFF tag {tag} has {values} values")
    except (struct.error, OverflowError, OSError):
        return  # it is cut: Pillow says so


def check_webp(head: bytes) -> int:
    """Return a WebP's number of pixels, which is checked; ``head``: its bytes 2 to 30."""
    kind = head[10:14]
    body = head[18:]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(body[4:7], "little")
        height = 1 + int.from_bytes(body[7:10], "little")
    elif kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        width = 1 + packed % 2**14
        height = 1 + (packed >> 14) % 2**14
    else:
        width = int.from_bytes(body[6:8], "little") % 2**14
        height = int.from_bytes(body[8:10], "little") % 2**14
    if width * height > MAX_WEBP:
        raise ValueError(
            f"it has {width} × {height} pixels: the limit of a WebP is {MAX_WEBP // 10**6} million"
        )
    numpy.empty(
        CANVAS_BYTES * width * height, numpy.uint8
    )  # where Pillow would say that it is damaged
    return width * height
