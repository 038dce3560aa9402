"""TEST.FEATURE_CACHE: features that are kept change no figure, and are not taken where anything that they follow from is another."""

import json
import os
import shutil

import numpy
import pytest
import torch
from PIL import Image

from protocols import training as train
from tests.conftest import base_arguments, in_turn, make_textures, random_clip
from tests.same_run import assert_same_run
from tests.trainers.test_every_trainer import BASE, IMAGE_ONLY, NEW, TEXT_ONLY, TRAINERS
from trainers.base import PromptTrainer
from trainers.data import feature_cache
from trainers.prompting.image import ImageEncoder


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of images that the image encoder was given, one a call outside of training."""
    calls, original = [], ImageEncoder.forward

    def counted(self, images, *prompts):
        if not torch.is_grad_enabled():
            calls.append(images.shape[1])
        return original(self, images, *prompts)

    monkeypatch.setattr(ImageEncoder, "forward", counted)
    return calls


FIT_ON_VAL = (
    "CDC",
    "CDCPromptSRC",
    "CDCTCP",
    "LinearProbe",
    "TipAdapter",
    "TipAdapterF",
)  # which set something by the features of val, too


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def zero_shot(small_clip_file, tmp_path, cache, encoded, capsys):
    """Tests ZeroshotCLIP on a miniature of its own with the cache; returns (number of images that were encoded, metrics, log)."""
    make_textures(tmp_path / "own")

    def start(*options, backbone=small_clip_file):
        encoded.clear()
        output = tmp_path / "zero_shot"
        shutil.rmtree(output, ignore_errors=True)
        arguments = base_arguments("ZeroshotCLIP", str(tmp_path / "own"), backbone, output)
        assert train.main([*arguments, "TEST.FEATURE_CACHE", str(cache), *options]) == 0
        return (
            sum(encoded),
            json.loads((output / "results.json").read_text())["metrics"],
            (output / "log.txt").read_text(),
        )

    return start


@pytest.mark.parametrize("name", in_turn(name for name in TRAINERS if name not in IMAGE_ONLY))
def test_with_kept_features_every_run_is_the_same_to_the_bit(run, cache, encoded, name):
    """Also where validation images choose the epoch. The first run with a cache fills it, the second encodes no test image.

    A method that wants images where others take features has them.
    """
    options = (
        *TEXT_ONLY.get(name, ()),
        *BASE,
        "TEST.FINAL_MODEL",
        "best_val" if name != "ZeroshotCLIP" and name != "ZeroshotCLIP2" else "last_step",
    )
    kept = ("TEST.FEATURE_CACHE", str(cache))
    trainer, expected, plain = run(name, *options, name="plain")
    whole, is_kept = sum(encoded), type(trainer).takes_features is PromptTrainer.takes_features
    others = (
        whole - 12 - 9 * (4 if "best_val" in options else 1)
    )  # of test, and of val after each epoch and at the end
    others -= 9 if name in FIT_ON_VAL else 0
    encoded.clear()
    _, _, first = run(name, *options, *kept, name="first")
    assert sum(encoded) == (others + 12 + 9 if is_kept else whole)
    assert len(list(cache.glob("*"))) == (2 if is_kept else 0)
    encoded.clear()
    _, record, second = run(name, *options, *kept, name="second")
    assert sum(encoded) == (others if is_kept else whole)
    assert (record["test_images_per_second"] is None) == is_kept and expected[
        "test_images_per_second"
    ] > 0
    if "best_val" in options:
        assert_same_run(plain, first)
        assert_same_run(plain, second)
    assert record["metrics"] == expected["metrics"]


@pytest.mark.parametrize("name", in_turn(["CDC", *IMAGE_ONLY]))
def test_of_prompted_images_nothing_is_kept(run, cache, name):
    run(name, "TEST.FEATURE_CACHE", str(cache))
    assert not cache.exists()


def test_one_trainers_features_serve_another(run, cache, encoded):
    run("ZeroshotCLIP", "TEST.FEATURE_CACHE", str(cache), name="first")
    encoded.clear()
    _, expected, folder = run("CoOp", name="trained")
    encoded.clear()
    flags = ("--eval-only", "--model-dir", str(folder))
    _, record, _ = run("CoOp", "TEST.FEATURE_CACHE", str(cache), name="again", flags=flags)
    assert encoded == [] and record["metrics"]["test"] == expected["metrics"]["test"]


def change_an_image(images):
    pixels = numpy.asarray(Image.open(images / "banded" / "13.png"))
    Image.fromarray(255 - pixels).save(images / "banded" / "13.png")


def test_another_image_is_computed_anew_though_its_name_and_date_are_the_same(zero_shot, tmp_path):
    images = tmp_path / "own" / "dtd" / "images"
    stat = os.stat(images / "banded" / "13.png")
    count, before, _ = zero_shot()
    assert count == 42 and zero_shot()[:2] == (0, before)
    change_an_image(images)
    os.utime(images / "banded" / "13.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    count, after, _ = zero_shot()
    assert count == 24 and after["test"]["nll"] != before["test"]["nll"], (
        "of val, which has not changed, nothing"
    )
    shutil.rmtree(tmp_path / "cache")
    assert zero_shot()[1] == after


def test_what_features_follow_from_is_told_apart(zero_shot, tmp_path, monkeypatch):
    """Weights may differ in one number of the image encoder; what names a CLIP in the record is the text encoder's."""
    settings = [
        ("TRAINER.ZEROSHOTCLIP.PREC", "amp"),
        ("INPUT.INTERPOLATION", "bilinear"),
        ("DATALOADER.TEST.BATCH_SIZE", "5"),
        ("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"),
        BASE,
        NEW,
    ]
    assert [zero_shot(*options)[0] for options in ((), *settings)] == [42, 42, 42, 42, 42, 21, 21]
    assert [zero_shot(*options)[0] for options in ((), *settings)] == [0] * 7
    other = random_clip()
    with torch.no_grad():
        other.visual.proj[0, 0] += 1e-3
    torch.save(other.state_dict(), tmp_path / "other.pt")
    assert zero_shot(backbone=str(tmp_path / "other.pt"))[0] == 42
    monkeypatch.setattr(feature_cache, "code_hash", lambda: "another")
    assert zero_shot()[0] == 42


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def exchange_a_number(path):
    """A sound file, whose content is not what its hash says."""
    with numpy.load(path) as found:
        arrays = dict(found)
    arrays["features"][3, 3] += 1e-3
    numpy.savez(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        exchange_a_number,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: numpy.savez(path, other=numpy.zeros(3)),
    ],
    ids=["bit", "number", "empty", "nonsense", "cut", "other"],
)
def test_damaged_features_are_told_by_their_hash_and_computed_anew(zero_shot, cache, damage):
    _, expected, _ = zero_shot()
    sizes = {path: path.stat().st_size for path in cache.iterdir()}
    for path in sizes:
        damage(path)
    count, found, log = zero_shot()
    assert count == 42 and found == expected and log.count("is damaged: the features of its") == 2
    assert {path: path.stat().st_size for path in cache.iterdir()} == sizes and zero_shot()[:2] == (
        0,
        expected,
    )


def test_where_nothing_can_be_written_a_run_goes_on_and_warns(zero_shot, cache):
    cache.write_text("a file in the folder's place")
    count, _, log = zero_shot()
    assert count == 42 and "The features of 24 images are not kept" in log


def test_a_split_with_a_skipped_image_is_not_kept(zero_shot, cache, tmp_path):
    (tmp_path / "own" / "dtd" / "images" / "banded" / "12.png").unlink()
    assert zero_shot("DATALOADER.BROKEN_IMAGES", "skip")[0] == 41
    assert len(list(cache.iterdir())) == 1
    (tmp_path / "own" / "dtd" / "images" / "banded" / "13.png").write_bytes(b"no image, but a file")
    assert zero_shot("DATALOADER.BROKEN_IMAGES", "skip")[0] == 22, (
        "of the test; those of val are kept"
    )
    assert len(list(cache.iterdir())) == 1
