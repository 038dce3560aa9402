"""What a picture costs is bounded by its bytes, wherever it comes from; every other picture has the
pixels that Pillow gives."""

import io
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from PIL import Image, features

import predict
from datasets import image_folder
from tests.runs import call, refuses
from tests.test_bounds import sent_to_the_page
from trainers.common import image_files
from trainers.common.errors import exit_code
from trainers.common.image_files import (
    MAX_PIXELS,
    ROOM,
    Room,
    decoded,
    left_out,
    look_through,
    read_picture,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


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


HOSTILE = {
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

    def read(pixels):
        with room.taken(pixels):
            inside.append(pixels)
            most.append(list(inside))
            time.sleep(0.001)
            inside.remove(pixels)

    sizes = [3, 25, 4, 3, 10, 1, 40, 2, 2, 2, 2, 2, 9] * 3
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(read, sizes))
    assert len(most) == len(sizes) and max(map(len, most)) > 1
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

    monkeypatch.setattr(image_files, "as_seen", full)
    folder = f"{data_root}/dtd/images/woven"
    assert call(predict.main, "--run", trained("CoOp")[1], folder) == 2
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
    assert left_out([str(path)]) == "" and image_folder.is_image(str(path))
    pixels = numpy.asarray(read_picture(str(path), "white")).astype(int)
    assert pixels.shape == (48, 64, 3) and numpy.abs(pixels - (10, 200, 30)).max() < 12
    assert loaded("CoOp").predict(path).images == [str(path)]
