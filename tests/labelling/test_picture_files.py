"""What a picture costs is bounded by its file's bytes; every other picture has the pixels that Pillow
gives."""

import io
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from PIL import Image

from tests.conftest import slow_but_for
from tests.limits import decode_at_once, limited
from tests.runs import refuses
from trainers.common import image_files, image_headers
from trainers.common.image_files import ROOM, Room, is_image, look_through, read_picture


def saved_as(kind, size, mode="RGB", **options):
    """A picture of one colour as a file's bytes."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


# ---- bounds ----

TOO_MUCH = {  # kind → a file's bytes, and why it is refused
    "pixels": (b"P6 12000 12000 255\n", "the limit is 89 million"),
    "a side": (b"P6 1 1000 255\n", "one side may be 50 times the other"),
    "plain text": (b"P3 1900 1900 255\n" + bytes(2**23), "in plain text of more than 8 MB"),
    "scans": (b"\xff\xd8" + b"\xff\xda" * 101, "a JPEG of more than 100 scans"),
    "values": (
        b"II*\0" + struct.pack("<IHHHII", 8, 1, 273, 4, 2**28, 8),
        "its TIFF tag 273 has 268435456 values",
    ),
    "canvas": (
        b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\xff\xff\0" * 2,
        "the limit of a WebP is 50 million",
    ),
    # not taken as black
    "32 bits": (
        saved_as("TIFF", (40, 40), "F"),
        "numbers of 32 bits, of which nothing says what is white",
    ),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_picture_that_would_cost_too_much_is_refused_in_a_line(tmp_path, kind):
    content, message = TOO_MUCH[kind]
    path = tmp_path / "x"
    path.write_bytes(content)
    (seen,) = look_through([str(path)])
    assert message in seen.reason
    with refuses(message):
        read_picture(str(path))


def test_scans_are_counted_that_begin_in_one_block_and_end_in_the_next(tmp_path, monkeypatch):
    block = 8
    monkeypatch.setattr(image_headers, "HEADER_BLOCK", block)
    path = tmp_path / "x.jpg"
    for scans in (100, 101):
        path.write_bytes(
            b"\xff\xd8"
            + bytes(block - 1)
            + b"\xff"
            + (b"\xda" + bytes(block - 2) + b"\xff") * scans
        )
        (seen,) = look_through([str(path)])
        assert ("more than 100 scans" in seen.reason) == (scans > 100)


def test_pictures_in_memory_have_the_same_bounds(loaded):
    for kind, picture in (
        ("a side", numpy.zeros((8, 401, 3), dtype=numpy.uint8)),
        ("32 bits", Image.new("I", (40, 40), 1)),
    ):
        with refuses(TOO_MUCH[kind][1]):
            loaded("CoOp").predict(picture)


# ---- pixels ----


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_a_stored_picture_has_pillows_pixels_to_the_bit(tmp_path, mode):
    noise = numpy.random.default_rng(0).integers(0, 256, (37, 41, 3), dtype=numpy.uint8)
    path = f"{tmp_path}/x.tif"
    Image.fromarray(noise).convert(mode).save(path)
    assert read_picture(path).tobytes() == Image.open(path).convert("RGB").tobytes()


def test_grey_of_16_bits_is_not_cut_off_at_255(tmp_path):
    grey = numpy.random.default_rng(0).integers(0, 2**16, (37, 41), dtype=numpy.uint16)
    Image.fromarray(grey).save(f"{tmp_path}/x.png")
    seen = numpy.asarray(read_picture(f"{tmp_path}/x.png", "white"))
    assert (seen == (grey // 256)[..., None]).all()


@pytest.mark.parametrize("ending", [".avif", ".jp2", ".j2k", ".heic"])
def test_formats_of_further_libraries_are_read(tmp_path, loaded, ending):
    path = f"{tmp_path}/x{ending}"
    if not is_image(path):
        pytest.skip(f"nothing here reads {ending}")
    Image.new("RGB", (64, 48), (10, 200, 30)).save(path)
    pixels = numpy.asarray(read_picture(path, "white")).astype(int)
    assert pixels.shape == (48, 64, 3)
    assert numpy.abs(pixels - (10, 200, 30)).max() < 12
    assert loaded("CoOp").predict(path).images == [path]


# ---- how many at a time ----


def test_only_so_many_pixels_are_decoded_at_a_time_and_a_larger_picture_alone():
    room = Room(10)
    inside = []
    most = []

    def read(pixels):
        with room.taken(pixels):
            inside.append(pixels)
            most.append(list(inside))
            time.sleep(0.001)  # in which others come in, as far as they may
            inside.remove(pixels)

    sizes = [3, 25, 4, 3, 10, 1, 40, 2, 2, 2, 2, 2, 9] * 3
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(read, sizes))
    assert len(most) == len(sizes)
    assert all(sum(present) <= 10 or len(present) == 1 for present in most)
    with room.taken(3), room.taken(7):
        assert room.free == 0
    with pytest.raises(KeyError), room.taken(7):
        raise KeyError
    assert room.free == 10


def test_pictures_are_transformed_before_the_next_ones_are_decoded(loaded, data_root):
    """The room is held until the pixels have their final size."""
    classifier = loaded("CoOp")
    free = []
    transform = classifier.transform
    classifier.transform = lambda image: free.append(ROOM.free) or transform(image)
    classifier.predict(f"{data_root}/dtd/images/woven/00.png")
    assert free == [image_files.AT_ONCE - 40 * 40]
    assert ROOM.free == image_files.AT_ONCE


# ---- memory ----


@slow_but_for(("PNG",), image_files.DECODED_FORMATS, "kind")
def test_a_lack_of_memory_is_never_told_as_a_broken_picture(tmp_path, kind):
    """Most decoders say that a picture is damaged where they get no memory for it."""
    path = tmp_path / "x"
    path.write_bytes(saved_as(kind, (2500, 2500)))

    def outcome(megabytes):
        return limited(decode_at_once, [str(path)], megabytes=megabytes)

    assert outcome(20).error.startswith("MemoryError")
    assert outcome(900).value == [(2500, 2500)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, side, mode",
    [
        ("PNG", 9400, "RGB"),
        ("PNG", 9400, "RGBA"),
        ("TIFF", 9400, "RGB"),
        ("WEBP", 7000, "RGBA"),
        ("AVIF", 7000, "RGBA"),
        ("JPEG2000", 4900, "RGBA"),
        ("JPEG", 9400, "RGB"),
    ],
)
def test_four_of_the_largest_pictures_at_once_take_no_more_memory_than_documented(
    tmp_path, kind, side, mode
):
    if kind not in image_files.DECODED_FORMATS:
        pytest.skip(f"this Pillow has no {kind}")
    fast = {"WEBP": {"lossless": True, "quality": 0, "method": 0}, "AVIF": {"speed": 10}}
    (tmp_path / "x").write_bytes(saved_as(kind, (side, side), mode, **fast.get(kind, {})))
    outcome = limited(decode_at_once, [f"{tmp_path}/x"] * 4)
    size = side // 2 if kind == "JPEG" else side
    assert outcome.value == [(size, size)] * 4
    assert outcome.megabytes < 2000, "docs/reliability.md"
