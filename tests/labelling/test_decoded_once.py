"""One's own pictures: each file is decoded once, at a scale that is the same in training and labelling."""

import io
import os
from collections import Counter

import numpy
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageFile

import predict
from labelling import PromptedClassifier
from labelling.commands import train
from labelling.pictures import transform_each
from tests.conftest import slow_but_for
from tests.runs import call
from tests.same_run import kept_answers
from trainers.common import image_files
from trainers.common.boxes import Box, boxed, file_of
from trainers.common.image_files import look_through, read_picture
from trainers.data import kept
from trainers.data.kept import THUMBNAIL, PictureCache, Pictures, for_crops
from trainers.data.transforms import least_side, pixels_of_test
from trainers.engine import build
from trainers.prompting.backbone import load_backbone
from trainers.settings import run_config

SIZE = 32  # of the small CLIP


def draw_photo(path, seed, colour):
    """A JPEG that is drafted at a quarter for a CLIP of 32 pixels."""
    generator = numpy.random.default_rng(seed)
    patches = numpy.clip(generator.normal(0, 60, (6, 8, 3)) + colour, 0, 255).astype("uint8")
    photo = Image.fromarray(patches).resize((400, 300), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, quality=95)


@pytest.fixture
def parts(tmp_path):
    """12 photos to train on and 24 to test on, of two classes."""
    for label, (name, colour) in enumerate((("ant", (140, 120, 120)), ("bee", (120, 120, 140)))):
        for index in range(18):
            part = "train" if index < 6 else "test"
            draw_photo(tmp_path / f"mine/{part}/{name}/{index}.jpg", 100 * label + index, colour)
    return tmp_path / "mine"


@pytest.fixture
def decodes(monkeypatch):
    """How many times the pixels of each file were read."""
    counts = Counter()
    load = ImageFile.ImageFile.load

    def counting(image):
        if image.tile:  # they are still to be read
            counts[os.path.normpath(image.fp.name)] += 1
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counting)
    return counts


def test_the_untrained_clip_of_a_report_is_not_loaded_again(parts, train_on, monkeypatch):
    loaded = []

    def counting(name):
        loaded.append(name)
        return load_backbone(name)

    monkeypatch.setattr(build, "load_backbone", counting)
    code, _, said = train_on(parts / "test")
    assert code == 0, said
    assert "zero-shot" in said
    assert len(loaded) == 1


@pytest.mark.parametrize(
    "trainer, is_divided",
    [
        ("LinearProbe", False),
        ("CDC", True),
        pytest.param("LinearProbe", True, marks=pytest.mark.slow),
        pytest.param("CDC", False, marks=pytest.mark.slow),
    ],
)
def test_a_training_and_its_report_decode_each_file_once(
    parts, train_on, decodes, tmp_path, trainer, is_divided
):
    """The look, the fit, the folds, the test, the untrained CLIP, the map of features, where templates look,
    and all thumbnails; then labelling decodes each once."""
    folder = parts if is_divided else parts / "test"
    files = sorted(map(str, folder.rglob("*.jpg")))
    code, record, said = train_on(folder, trainer=trainer)
    assert code == 0, said
    assert "can't be drawn" not in said
    assert decodes == Counter(files)
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("data:image/jpeg") >= 16, "thumbnails"
    decodes.clear()
    csv = tmp_path / "labels.csv"
    assert call(predict.main, "--run", tmp_path / "out", "--csv", csv, *files) == 0
    assert decodes == Counter(files)


def test_a_training_on_several_labels_decodes_each_file_once(parts, small_clip_file, decodes):
    files = sorted(map(str, parts.rglob("*.jpg")))
    rows = [f"{file},{('ant', 'bee', 'ant;bee')[number % 3]}" for number, file in enumerate(files)]
    table = parts / "labels.csv"
    table.write_text("\n".join(["image,label", *rows, ""]))
    words = [table, "--backbone", small_clip_file, "--output-dir", parts.parent / "out"]
    assert call(train.main, *words, "--settings", "INPUT.SIZE", f"({SIZE}, {SIZE})") == 0
    assert decodes == Counter(files)


@pytest.fixture
def boxes(parts):
    """A table of four boxes in each of 12 photos, of one class and the other in turn."""
    rows = []
    for file in sorted(parts.glob("train/*/*.jpg")):
        for number in range(4):
            box = Box(100 * number, 50, 90, 200)
            rows.append(f'"{boxed(str(file), box)}",{("ant", "bee")[number % 2]}')
    table = parts / "boxes.csv"
    table.write_text("\n".join(["image,label", *rows, ""]))
    return table


@pytest.mark.parametrize("words", [(), pytest.param(("--multi-label",), marks=pytest.mark.slow)])
def test_a_photograph_is_decoded_once_for_all_its_boxes(
    boxes, small_clip_file, decodes, tmp_path, words
):
    """By a training once, and by a labelling once in each batch that has a part of its boxes."""
    pictures = [row.split('"')[1] for row in boxes.read_text().splitlines()[1:]]
    files = [*dict.fromkeys(map(file_of, pictures))]
    command = [boxes, "--backbone", small_clip_file, "--output-dir", tmp_path / "out", *words]
    settings = ["INPUT.SIZE", f"({SIZE}, {SIZE})", "DATALOADER.TEST.BATCH_SIZE", 30]
    assert call(train.main, *command, "--settings", *settings) == 0
    assert decodes == Counter(files)
    decodes.clear()
    PromptedClassifier.load(tmp_path / "out").predict(pictures)
    assert decodes == Counter([*files, file_of(pictures[30])])


@pytest.mark.slow
def test_boxes_without_room_in_memory_are_decoded_once_more_for_each_class_of_a_photograph(
    boxes, small_clip_file, decodes, tmp_path, monkeypatch
):
    """Images are encoded class by class."""
    monkeypatch.setattr(kept, "SHOWN_BYTES", 0)
    command = [boxes, "--backbone", small_clip_file, "--output-dir", tmp_path / "out"]
    settings = ["INPUT.SIZE", f"({SIZE}, {SIZE})", "DATALOADER.NUM_WORKERS", 0]
    assert call(train.main, *command, "--settings", *settings) == 0
    assert {*decodes.values()} == {1 + 2} and len(decodes) == 12


@slow_but_for(("LinearProbe",), ("LinearProbe", "CoOp"), "trainer")
def test_a_test_and_labelling_give_a_large_photo_the_same_answer(parts, train_on, trainer):
    assert train_on(parts, trainer=trainer)[0] == 0
    kept_ones = kept_answers(parts.parent / "out", "test")
    classifier = PromptedClassifier.load(parts.parent / "out")
    paths = [str(parts / "test" / name) for name in kept_ones["image"]]
    answers = classifier.predict_proba(paths)
    top = kept_ones["top"]
    expected = numpy.take_along_axis(answers, top, axis=1)
    assert numpy.allclose(kept_ones["top_probability"], expected, atol=1e-5)
    exact = classifier.features([Image.open(path) for path in paths])
    cosines = (exact * classifier.features(paths)).sum(axis=1)
    assert 0.99 < cosines.min() < 1 - 1e-5, "the scale makes a small difference"


@slow_but_for(("CoOp",), ("LinearProbe", "CoOp"), "trainer")
def test_pictures_that_there_is_no_room_for_are_decoded_again_to_the_same_numbers(
    parts, train_on, decodes, monkeypatch, trainer
):
    _, record, _ = train_on(parts, trainer=trainer)
    decodes.clear()
    for room in ("SHOWN_BYTES", "DECODED_BYTES", "MOST_SMALL"):
        monkeypatch.setattr(kept, room, 0)
    _, again, _ = train_on(parts, trainer=trainer, name="again")
    assert min(decodes.values()) > 1
    for key in ("metrics", "learned", "prompts_hash"):
        assert record[key] == again[key]


def test_the_comparison_is_what_the_untrained_clip_says_by_itself(parts, train_on):
    """It takes the features that the probe was fitted to, which no option of the probe changes."""
    assert train_on(parts, trainer="LinearProbe")[0] == 0
    assert train_on(parts, trainer="ZeroshotCLIP", name="alone")[0] == 0
    beside = kept_answers(parts.parent / "out/ZeroshotCLIP", "test")
    alone = kept_answers(parts.parent / "alone", "test")
    assert (beside["image"] == alone["image"]).all()
    assert numpy.allclose(beside["top_probability"], alone["top_probability"], atol=1e-6)


@given(st.integers(8, 700), st.integers(8, 700), st.integers(1, 64))
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(width, height, least):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    assume(max(width, height) <= image_files.MAX_RATIO * min(width, height))
    sizes = {}
    for scale in (1, 2, 4, 8):
        size = (-(-width // scale), -(-height // scale))
        if scale == 1 or (width // scale >= least and height // scale >= least):
            sizes[scale] = size
    assert read_picture(file, "white", least).size == sizes[max(sizes)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=8),
    room=st.integers(0, 200_000),
)
def test_kept_pictures_take_no_more_than_their_room(sizes, room):
    pictures = Pictures(room)
    for number, size in enumerate(sizes):
        assert pictures.take(str(number), Image.new("RGB", size)).size == size
    taken = [4 * image.width * image.height for image in pictures.images.values()]
    assert sum(taken) == room - pictures.room <= room
    pictures.keep_only({"0"})
    assert {*pictures.images} <= {"0"}
    pictures.keep_only(set())
    assert pictures.room == room


@given(st.integers(1, 900), st.integers(1, 900))
def test_random_crops_are_of_pictures_two_to_three_times_the_size(width, height):
    settings = run_config().INPUT
    settings.SIZE = (SIZE, SIZE)
    image = Image.new("RGB", (width, height))
    assert for_crops(least_side(settings)).take("exact", image) is image, "of the field's data sets"
    settings.DECODED_AT = 2
    made = for_crops(least_side(settings)).take("own", image)
    if min(image.size) > 3 * SIZE:
        assert min(made.size) == 2 * SIZE
        assert made.width / made.height == pytest.approx(width / height, rel=0.02)
    else:
        assert made is image


def test_a_picture_is_read_exactly_where_no_scale_is_given(tmp_path):
    draw_photo(tmp_path / "x.jpg", 0, (90, 90, 90))
    with Image.open(tmp_path / "x.jpg") as image:
        exact = numpy.asarray(image)
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.jpg")) == exact).all()


TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {  # mode, and how it is written
    "photo": ("RGB", {"format": "JPEG"}),
    "turned": ("RGB", {"format": "JPEG", "exif": TURNED}),
    "grey": ("L", {"format": "JPEG"}),
    "for print": ("CMYK", {"format": "JPEG"}),
    "transparent": ("RGBA", {"format": "PNG"}),
    "16 bits": ("I;16", {"format": "PNG"}),
    "palette": ("P", {"format": "GIF"}),
    "moving": ("P", {"format": "GIF", "save_all": True, "append_images": [Image.new("P", (9, 9))]}),
}


@pytest.mark.parametrize("background", ["white", "red", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_look_keeps_are_the_pixels_that_labelling_reads(tmp_path, kind, background):
    mode, how = KINDS[kind]
    noise = numpy.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype="uint8")
    large = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    if mode == "I;16":
        large = Image.fromarray(numpy.asarray(large)[..., 0].astype("uint16") * 257)
    elif mode != "RGBA":
        large = large.convert("RGB").convert(mode)
    path = f"{tmp_path}/x"
    large.save(path, **how)
    settings = run_config().INPUT
    settings.SIZE = (SIZE, SIZE)
    settings.DECODED_AT = 2
    shown = pixels_of_test(settings)
    keeper = PictureCache(settings, background, has_crops=True)
    (seen,) = look_through([path], keeper)
    assert not seen.reason
    (expected,) = transform_each([path], background, shown, least_side(settings))
    assert torch.equal(shown(keeper.shown.images[path]), expected)
    assert min(keeper.crops.images[path].size) in (2 * SIZE, 300 // 4)
    assert max(Image.open(io.BytesIO(keeper.small[path])).size) <= THUMBNAIL
