"""What a picture costs is bounded by its bytes, wherever it comes from; every other picture has the
pixels that Pillow gives."""

import io
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy
import pytest
import torch
from PIL import Image, features

import predict
from tests.children import PROCESSES
from tests.limits import decode_at_once, limited
from tests.runs import PATIENCE, call, refuses
from tests.test_bounds import sent_to_the_page
from trainers.common import image_files
from trainers.common.errors import exit_code
from trainers.common.image_files import (
    MAX_PIXELS,
    ROOM,
    Room,
    decoded,
    is_image,
    left_out,
    look_through,
    read_picture,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def saved_as(kind, size, mode="RGB", **options):
    """A picture of one colour as a file's bytes."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height):
    return saved_as("PNG", (width, height))


def claiming(width, height):
    """A PNG that says it has that many pixels."""
    content = bytearray(png(1, 1))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def jpeg(scans):
    """A progressive JPEG whose last scan is there again and again."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    there = content.count(b"\xff\xda")
    return content[:-2] + content[last:-2] * (scans - there) + b"\xff\xd9"


def tiff(*more):
    """A grey TIFF of 64 × 64 pixels, in one strip but for the tags (tag, values, value) in ``more``."""
    tags = {
        256: (1, 64),
        257: (1, 64),
        258: (1, 8),
        259: (1, 5),
        262: (1, 1),
        273: (1, 8),
        279: (1, 2),
    }
    tags |= {tag: rest for tag, *rest in more}
    entries = [struct.pack("<HHII", tag, 4, *tags[tag]) for tag in sorted(tags)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries)
    return b"II*\0" + struct.pack("<I", 10) + b"\x80\1" + directory + bytes(4)


HOSTILE = {
    "tile.tif": (
        tiff((322, 1, 23_008), (323, 1, 23_008), (324, 1, 8), (325, 1, 2)),
        "64 × 64 pixels in tiles of 529368064: the limit is 89 million",
    ),
    "values.tif": (tiff((273, 2**28, 8)), "its TIFF tag 273 has 268435456 values"),
    "plain.ppm": (b"P3 1900 1900 255\n" + b"1 " * 5_000_000, "in plain text of more than 8 MB"),
    "slow.jp2": (saved_as("JPEG2000", (5100, 5000)), "the limit is 25 million"),
    "tall.png": (png(1, 100_000), "one side may be 50 times the other"),
    "wide.png": (png(5100, 100), "one side may be 50 times the other"),
    "many.png": (claiming(12_000, 12_000), "the limit is 89 million"),
    "scans.jpg": (jpeg(5000), "a JPEG of more than 100 scans"),
    "comment.ppm": (b"P6\n#" + b"x" * 2**21 + b"\n1 1\n255\nabc", "more than 64 kB"),
    "late.ppm": (b"P5 1 1\n" + b"# x\n" * 2**16 + b"255\na", "more than 64 kB"),
    "sparse.png": (png(40, 40), "it has 6144 MB, the limit is 1024 MB"),
}


@pytest.fixture
def hostile(tmp_path):
    (tmp_path / "hostile").mkdir()
    for name, (content, _) in HOSTILE.items():
        (tmp_path / f"hostile/{name}").write_bytes(content)
    os.truncate(f"{tmp_path}/hostile/sparse.png", 6 * 2**30)
    return tmp_path / "hostile"


def test_a_hostile_picture_is_refused_in_a_line_wherever_it_is_read(hostile, monkeypatch):
    reads = []
    monkeypatch.setattr(image_files, "file_hash", reads.append)
    seen = look_through([f"{hostile}/{name}" for name in HOSTILE])
    for (name, (_, message)), picture in zip(HOSTILE.items(), seen):
        assert message in picture.reason and not picture.digest
        with refuses(message):
            read_picture(f"{hostile}/{name}")
        if name != "sparse.png":
            with refuses(message):
                sent_to_the_page((hostile / name).read_bytes())
    assert not reads and MAX_PIXELS == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("shape", [(1, 60), (60, 1), (8, 401)])
def test_shapes_of_arrays_are_bounded_too(loaded, shape):
    classifier, sound = loaded("CoOp"), numpy.zeros((8, 400, 3), dtype=numpy.uint8)
    array = numpy.zeros((*shape, 3), dtype=numpy.uint8)
    kinds = [array, torch.from_numpy(array).permute(2, 0, 1), Image.fromarray(array)]
    broken = []
    answers = classifier.predict([sound, *kinds, Image.fromarray(sound)], broken)
    assert len(broken) == 3 and len(answers.labels) == 2
    assert all("one side may be 50 times the other" in str(error) for error in broken)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "1", "LA"])
@pytest.mark.parametrize("size", [(50, 1), (3, 150), (37, 41)])
def test_all_others_keep_their_pixels_to_the_bit(tmp_path, mode, size):
    """Transparent parts are put on white, and grey of 16 bits is not cut off at 255."""
    pixels = numpy.random.default_rng(0).integers(0, 256, (*size[::-1], 4), dtype=numpy.uint8)
    image = Image.fromarray(pixels, "RGBA")
    grey = pixels[..., :2].copy().view("uint16")[..., 0]
    if mode == "I;16":
        image = Image.fromarray(grey)
    elif mode != "RGBA":
        image = image.convert(mode)
    path = f"{tmp_path}/x.png"
    image.save(path)
    assert read_picture(path).tobytes() == Image.open(path).convert("RGB").tobytes()
    seen = numpy.asarray(read_picture(path, "white"))
    if mode == "I;16":
        assert (seen == (grey // 256)[..., None]).all()
    if mode == "RGBA":
        white = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
        with decoded(image, "white") as picture:
            assert picture.tobytes() == seen.tobytes() == white.tobytes()


@pytest.mark.parametrize("number", [1, 10, 100])
def test_a_jpeg_of_as_many_scans_as_cameras_make_is_read(tmp_path, number):
    content = jpeg(number)
    (tmp_path / "x.jpg").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        assert read_picture(f"{tmp_path}/x.jpg").tobytes() == image.convert("RGB").tobytes()


def test_a_large_jpeg_is_decoded_at_half_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "AT_ONCE", 60 * 60)
    for name in ("x.jpg", "x.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    assert read_picture(f"{tmp_path}/x.jpg").size == (32, 32)
    assert read_picture(f"{tmp_path}/x.png").size == (64, 64)


def test_only_so_many_pixels_are_decoded_at_a_time_and_a_larger_picture_alone():
    room, inside, most = Room(10), [], []
    both_are_in = Barrier(2, timeout=PATIENCE)

    def meet(pixels):
        with room.taken(pixels):
            both_are_in.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(meet, [3, 7]))

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
    with pytest.raises(KeyError), room.taken(7):
        raise KeyError
    assert room.free == 10


def test_pictures_are_transformed_before_the_next_ones_are_decoded(loaded, data_root):
    """The room is held until the pixels have their final size."""
    classifier, free = loaded("CoOp"), []
    transform = classifier.transform
    classifier.transform = lambda image: free.append(ROOM.free) or transform(image)
    classifier.predict(f"{data_root}/dtd/images/woven/00.png")
    assert free == [image_files.AT_ONCE - 40 * 40] and ROOM.free == image_files.AT_ONCE


def test_memory_that_is_used_up_ends_the_command_and_says_nothing_of_the_picture(
    trained, data_root, monkeypatch, capsys
):
    def full(*_):
        raise MemoryError

    run = trained("CoOp")
    capsys.readouterr()
    monkeypatch.setattr(image_files, "as_seen", full)
    folder = f"{data_root}/dtd/images/woven"
    assert call(predict.main, "--run", run, folder) == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: memory is used up: end other programs" in err
    monkeypatch.setattr(image_files, "open_image", full)
    for read in (look_through, image_files.with_alpha):
        with pytest.raises(MemoryError):
            read([f"{folder}/00.png"])
    assert exit_code(full) == 2


@pytest.mark.parametrize(
    "ending, codec", [(".avif", "avif"), (".jp2", "jpg_2000"), (".j2k", "jpg_2000"), (".heic", "")]
)
def test_formats_of_further_libraries_are_read(tmp_path, loaded, ending, codec):
    if not codec:
        pytest.importorskip("pillow_heif")
    elif not features.check(codec):
        pytest.skip(f"this Pillow has no {codec}")
    path = tmp_path / f"x{ending}"
    Image.new("RGB", (64, 48), (10, 200, 30)).save(path)
    assert left_out([str(path)]) == "" and is_image(str(path))
    pixels = numpy.asarray(read_picture(str(path), "white")).astype(int)
    assert pixels.shape == (48, 64, 3) and numpy.abs(pixels - (10, 200, 30)).max() < 12
    assert loaded("CoOp").predict(path).images == [str(path)]


# ---- memory, in processes of their own ----

LIMIT = 2000  # megabytes that a process takes for pictures: docs/reliability.md


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, size, mode",
    [
        ("PNG", (9400, 9400), "RGB"),
        ("PNG", (9400, 9400), "RGBA"),
        ("TIFF", (9400, 9400), "RGB"),
        ("WEBP", (7000, 7000), "RGBA"),
        ("AVIF", (7000, 7000), "RGBA"),
        ("JPEG2000", (4900, 4900), "RGBA"),
        ("JPEG", (9400, 9400), "RGB"),
    ],
)
def test_four_of_the_largest_pictures_at_once_take_no_more_memory_than_documented(
    tmp_path, kind, size, mode
):
    if kind not in image_files.FORMATS:
        pytest.skip(f"this Pillow has no {kind}")
    options = {"lossless": True, "quality": 0, "method": 0} if kind == "WEBP" else {}
    options |= {"speed": 10} if kind == "AVIF" else {}
    (tmp_path / "x").write_bytes(saved_as(kind, size, mode, **options))
    outcome = limited(decode_at_once, [f"{tmp_path}/x"] * 4, seconds=300)
    large = kind == "JPEG"
    assert outcome.value == [tuple(side // 2 if large else side for side in size)] * 4
    assert outcome.megabytes < LIMIT


def test_memory_of_pictures_is_given_back(tmp_path):
    """Four of 25 megapixels, one after the other in threads of their own: as much as one."""
    (tmp_path / "x.png").write_bytes(saved_as("PNG", (5000, 5000), "RGBA"))
    one = limited(decode_at_once, [f"{tmp_path}/x.png"])
    four = limited(decode_at_once, [f"{tmp_path}/x.png"] * 4)
    assert one.value * 4 == four.value == [(5000, 5000)] * 4
    assert four.megabytes < one.megabytes * 1.5


SIDES = (4900, 4900)


@pytest.mark.parametrize("kind", image_files.FORMATS)
def test_a_lack_of_memory_is_never_told_as_a_broken_picture(tmp_path, kind):
    """Whether the picture can be read with so much memory or not: it is never called broken."""
    (tmp_path / "x").write_bytes(saved_as(kind, SIDES))
    outcomes = [
        limited(decode_at_once, [f"{tmp_path}/x"], megabytes=room, context=PROCESSES)
        for room in (20, 120, 300, 900)
    ]
    read = [outcome.value == [SIDES] for outcome in outcomes]
    assert all(
        was_read or outcome.name == "MemoryError" for was_read, outcome in zip(read, outcomes)
    ), outcomes
    assert not read[0] and read[-1]


def test_a_picture_that_is_larger_than_its_file_says_is_decoded_alone(tmp_path, monkeypatch):
    if "AVIF" not in image_files.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    content = saved_as("AVIF", (64, 48), speed=10)
    (tmp_path / "x.avif").write_bytes(content)
    with decoded(f"{tmp_path}/x.avif"):
        assert ROOM.free == 0
    assert ROOM.free == image_files.AT_ONCE


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_32_bits_are_refused_and_not_taken_as_black(tmp_path, loaded, mode):
    picture = Image.new(mode, (40, 40), 1)
    picture.save(f"{tmp_path}/x.tif")
    for image in (picture, f"{tmp_path}/x.tif"):
        with refuses("numbers of 32 bits, of which nothing says what is white"):
            loaded("CoOp").predict(image)


def test_an_image_without_pixels_is_refused(loaded):
    with refuses("it has 0 × 0 pixels"):
        loaded("CoOp").predict(Image.new("RGB", (0, 0)))


@pytest.mark.parametrize("kind", ["meta", "conj", "complex", "sparse", "nan", "object"])
def test_tensors_and_arrays_that_are_no_pictures_are_refused_in_a_line(loaded, kind):
    image = {
        "meta": torch.zeros(3, 8, 8, device="meta"),
        "conj": torch.zeros(3, 8, 8, dtype=torch.complex64).conj(),
        "complex": numpy.zeros((8, 8, 3), dtype=complex),
        "sparse": torch.zeros(3, 8, 8).to_sparse(),
        "nan": torch.full((3, 8, 8), float("nan")),
        "object": numpy.full((8, 8, 3), None),
    }[kind]
    with refuses("is not an image"):
        loaded("CoOp").predict(image)
