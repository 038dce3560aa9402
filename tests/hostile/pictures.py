"""Pictures: sound ones in every format and mode, whole and with little memory; damaged, lying and
oversized ones; arrays, tensors and PIL images of every kind."""

import io
import random
import struct
import zlib
from functools import partial

import numpy
import torch
from PIL import Image

from tests.hostile import Case
from trainers.common import image_files
from trainers.common.image_files import decoded, look_through, read_picture

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "I", "YCbCr", "HSV", "PA")
OF_32_BITS = ("F", "I")
SIZES = ((1, 1), (37, 41), (50, 1))
HARD = {"JPEG2000": "jp2", "TIFF": "tif"}  # format → ending, where it is not its name


def drawn(mode, size, seed=0):
    """Noise in a mode of Pillow's."""
    pixels = numpy.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), dtype=numpy.uint8)
    picture = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(numpy.uint16) * 257)
    if mode in OF_32_BITS:
        return Image.fromarray(pixels[..., 0].astype("int32" if mode == "I" else "float32"))
    if mode == "PA":
        return picture.convert("P").convert("PA")
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def saved(picture, kind, **options):
    """A picture as a file's bytes; None where the format has no such mode."""
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind, **options)
    except (OSError, KeyError, ValueError, RuntimeError):
        return None
    return buffer.getvalue()


def seen(path):
    """What ``decoded`` and ``look_through`` say of a file, which has to be the same."""
    (looked,) = look_through([path])
    with decoded(path, "white") as picture:
        size = picture.size
    read_picture(path)
    return looked.reason, size, picture.mode


def is_read(size, found):
    return found == ("", size, "RGB")


def png_of(width, height, *chunks):
    """A PNG that claims its size, with chunks (name, content) before its pixels."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )  # fmt: skip


def tiff_of(order="<", **more):
    """A grey TIFF of 64 × 64 pixels in one strip, with other or further tags ``t<number>``: (type, values, value)."""
    tags = {256: (4, 1, 64), 257: (4, 1, 64), 258: (3, 1, 8), 259: (3, 1, 5), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, 64), 279: (4, 1, 2)}
    tags |= {int(name[1:]): entry for name, entry in more.items()}
    entries = b""
    for tag in sorted(tags):
        kind, values, value = tags[tag]
        packed = struct.pack(
            f"{order}{'HH' if kind == 3 else 'I'}", *((value, 0) if kind == 3 else (value,))
        )
        entries += struct.pack(f"{order}HHI", tag, kind, values) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 10)
    return head + b"\x80\1" + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def lying(content, size):
    """An AVIF, HEIC or JPEG 2000 whose header says another size than its pixels have."""
    for name, before in ((b"ispe", 8), (b"ihdr", 4)):
        at = content.find(name)
        if at >= 0:
            order = (size[1], size[0]) if name == b"ihdr" else size
            start = at + before
            return content[:start] + struct.pack(">II", *order) + content[start + 8 :]
    return content


def hostile():
    """Name → bytes of files that are refused, or read at a bounded cost."""
    tile = {"t324": (4, 1, 8), "t325": (4, 1, 2)}
    most = 2**32 - 1
    found = {
        f"tiles {side}": tiff_of(t322=(4, 1, side), t323=(4, 1, side), **tile)
        for side in (0, 1, 15, 16, 9_400, 23_008, 65_536, 2**31, most)
    }
    for tag in (
        254,
        256,
        257,
        258,
        259,
        262,
        273,
        277,
        278,
        279,
        284,
        317,
        320,
        338,
        339,
        700,
        34675,
    ):
        for entry in (
            (4, 1, most),
            (4, 2**28, 8),
            (3, 2**20, 8),
            (5, 2**16, 8),
            (1, most, 8),
            (16, 2**27, 8),
        ):
            found[f"tag {tag} {entry}"] = tiff_of(
                order=">" if tag % 2 else "<", **{f"t{tag}": entry}
            )
    for width, height in (
        (most, 1),
        (1, most),
        (2**16, 2**16),
        (12_000, 12_000),
        (0, 5),
        (9_400, 9_400),
        (70, 1),
    ):
        found[f"png {width} × {height}"] = png_of(width, height)
        found[f"bmp {width} × {height}"] = b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, *(min(side, 2**31 - 1) for side in (width, height)), 1, 24, 0, 0, 0, 0, 0, 0)  # fmt: skip
        found[f"gif {width} × {height}"] = b"GIF89a" + struct.pack("<HHBBB", width % 2**16, height % 2**16, 0, 0, 0) + b",\0\0\0\0" + struct.pack("<HHB", width % 2**16, height % 2**16, 0) + b"\2\2\x4c\1\0;"  # fmt: skip
        for magic in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF"):
            found[f"{magic.decode()} {width} × {height}"] = magic + b" %d %d 255\n" % (
                width,
                height,
            )
        size = (
            struct.pack("<I", (width - 1) % 2**24)[:3] + struct.pack("<I", (height - 1) % 2**24)[:3]
        )
        found[f"webp {width} × {height}"] = (
            b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + size + bytes(8)
        )
    bomb = zlib.compress(bytes(2**26))
    for name in (b"zTXt", b"iCCP", b"iTXt"):
        content = {b"zTXt": b"a\0\0", b"iCCP": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}[name] + bomb
        found[f"png {name.decode()} that inflates"] = png_of(64, 64, (name, content))
    found["png exif of itself"] = png_of(
        64,
        64,
        (
            b"eXIf",
            b"II*\0\x08\0\0\0" + b"\xff\xff" + b"\x12\1\4\0\xff\xff\xff\xff\x08\0\0\0" * 5000,
        ),
    )
    found["plain text"] = b"P3 1900 1900 255\n" + b"1 " * 5_000_000
    found["plain bits"] = b"P1 3000 3000\n" + b"1" * 9_000_000
    found["comment"] = b"P6\n#" + b"x" * 2**21 + b"\n1 1\n255\nabc"
    for kind, options in (("AVIF", {"speed": 10}), ("HEIF", {}), ("JPEG2000", {})):
        if kind in image_files.FORMATS:
            content = saved(Image.new("RGB", (2048, 2048)), kind, **options)
            for size in ((64, 64), (1, 1), (65_535, 65_535), (2047, 2048), (0, 0)):
                found[f"{kind} of 2048² that says {size}"] = lying(content, size)
    return found


def cases(place):
    """place: a folder to work in."""
    found = {}

    def file(name, content, **facts):
        path = place / str(len(found))
        path.write_bytes(content)
        found[name] = Case(partial(seen, str(path)), **facts)

    for kind in image_files.FORMATS:
        for mode in MODES:
            for size in SIZES:
                content = saved(drawn(mode, size), kind)
                if content and mode not in OF_32_BITS:
                    holds = partial(is_read, size)
                    file(f"{kind} {mode} {size}", content, holds=holds, may_refuse=False)
                elif content:
                    file(f"{kind} {mode} {size}", content)
        content = saved(drawn("RGB", (64, 48)), kind)
        draw = random.Random(kind)
        for number in range(12):
            cut = content[: draw.randrange(len(content))]
            changed = bytearray(content)
            for _ in range(draw.randint(1, 8)):
                changed[draw.randrange(len(content))] = draw.randrange(256)
            file(f"{kind} cut {number}", cut)
            file(f"{kind} changed {number}", bytes(changed))
        large = saved(Image.new("RGB", (3000, 3000)), kind)
        for room in (10, 40, 100, 200, 400):
            holds = partial(is_read, (3000, 3000))
            file(f"{kind} in {room} MB", large, holds=holds, may_refuse=False, room=room)
    for name, content in hostile().items():
        file(name, content)
    return found


# ---- in memory ----


def given():
    """Name → what somebody may give in place of a picture, made in the case's process."""
    dtypes = "bool int8 uint8 int16 uint16 int32 int64 float16 float32 float64 complex64 object U1 M8[s]".split()
    shapes = [
        (8, 8, 3),
        (8, 8),
        (8, 8, 1),
        (8, 8, 4),
        (3, 8, 8),
        (0, 0, 3),
        (0, 8, 3),
        (8, 401, 3),
        (1, 1, 3),
        (3,),
        (),
    ]
    found = {}
    for dtype in dtypes:
        for shape in shapes:
            found[f"array {dtype} {shape}"] = partial(numpy.zeros, shape, dtype)
    for kind in ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "complex64"):
        for shape in ((3, 8, 8), (1, 8, 8), (8, 8), (3, 0, 0), (3, 8, 401), (2, 3, 8, 8), ()):
            found[f"tensor {kind} {shape}"] = partial(
                torch.zeros, shape, dtype=getattr(torch, kind)
            )
    found |= {
        "tensor nan": lambda: torch.full((3, 8, 8), float("nan")),
        "tensor inf": lambda: torch.full((3, 8, 8), float("inf")),
        "tensor meta": lambda: torch.zeros(3, 8, 8, device="meta"),
        "tensor conj": lambda: torch.zeros(3, 8, 8, dtype=torch.complex64).conj(),
        "tensor neg": lambda: torch._neg_view(torch.zeros(3, 8, 8)),
        "tensor sparse": lambda: torch.zeros(3, 8, 8).to_sparse(),
        "tensor with gradient": lambda: torch.zeros(3, 8, 8, requires_grad=True),
        "tensor expanded": lambda: torch.zeros(1).expand(3, 100_000, 100_000),
        "array expanded": lambda: numpy.broadcast_to(numpy.uint8(1), (100_000, 100_000, 3)),
        "array reversed": lambda: numpy.zeros((8, 8, 3), "uint8")[::-1, ::-1],
        "array masked": lambda: numpy.ma.masked_all((8, 8, 3)),
    }
    for mode in MODES:
        found[f"PIL {mode}"] = partial(drawn, mode, (9, 7))
        found[f"PIL {mode} of nothing"] = partial(Image.new, mode, (0, 0))
    for what in (
        None,
        5,
        1.5,
        b"x.png",
        {},
        {1: 2},
        [],
        [None],
        [[]],
        "",
        ".",
        "\0",
        "a" * 5000,
        "nowhere.png",
        float("nan"),
        True,
        object(),
        range(3),
        {"a.png"},
    ):
        found[f"{type(what).__name__} {str(what)[:20]}"] = partial(copy, what)
    return found


def copy(what):
    return what


def given_cases(classifier):
    """Everything above, given to a classifier's ``predict``."""

    def ask(make):
        return classifier.predict(make()).probabilities.sum(axis=1).tolist()

    def sums_to_one(found):
        return all(abs(total - 1) < 1e-4 for total in found)

    return {name: Case(partial(ask, make), sums_to_one) for name, make in given().items()}
