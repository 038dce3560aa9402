"""Class names of every kind, one class, many; split files that point elsewhere."""

import json

import pytest
import torch

from datasets.splits import read_split
from tests.conftest import FEW, slow_but_for
from tests.runs import make_textures, refuses
from trainers import METHODS
from trainers.prompting.tokens import tokenize_classes

# Chinese, an emoji, two from right to left, a combining accent, a script with conjuncts
WORLD = ["猫", "🦊", "חתול", "قطة", "e\u0301tude", "कुत्ता"]


# ---- names ----


def test_names_in_every_script_are_trained_tested_and_recorded_as_they_are(run, tmp_path):
    make_textures(tmp_path, classes=WORLD)
    _, record, _ = run("CDC", "DATASET.ROOT", str(tmp_path))
    assert record["classnames"] == WORLD
    assert list(record["metrics"]["test"]["per_class_accuracy"]) == WORLD


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "very " * 90 + "long",
            r"the class name 'very very .* … is too long: with it a prompt has",
        ),
        ("_", "nothing of the class name '_' is left"),
        ("cat <|endoftext|> dog", "holds one of the marks"),
        ("&lt;|StartOfText|&gt;", "holds one of the marks"),
        ("cat \ud800", r"the class name 'cat \\ud800' is no UTF-8"),
    ],
)
def test_a_name_that_no_prompt_can_hold_is_quoted(vit, name, message):
    """Whether its prompt is learned or hand-crafted."""
    with refuses(message):
        tokenize_classes(["fine", name], "{}.", 71)
    with refuses(message):
        vit.encode_classes("a photo of a {}.", ["fine", name])


def test_the_longest_name_that_fits_is_taken_and_one_word_more_is_not(vit):
    """77 positions: start, one token a word, the full stop, end-of-text."""
    fits = " ".join(["cat"] * 74)
    for take in (
        lambda name: vit.encode_classes("{}.", [name]),
        lambda name: tokenize_classes([name], "{}.", 77),
    ):
        take(fits)
        with refuses("has 78 tokens, and 77 fit"):
            take(f"{fits} cat")


# ---- one class ----


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    make_textures(root, classes=("banded",))
    return str(root)


@slow_but_for(FEW, METHODS, "trainer")
def test_one_class_is_always_right_and_what_is_undefined_is_null(run, one_class, trainer):
    _, record, _ = run(trainer, "DATASET.ROOT", one_class)
    found = record["metrics"]["test"]
    assert found["per_class_accuracy"] == {"banded": 100.0}
    figures = [found[name] for name in ("accuracy", "macro_f1", "ece", "nll", "brier")]
    assert figures == [100, 100, 0, 0, 0]
    for measure_of_doubt in found["uncertainty"].values():
        assert measure_of_doubt == {"aurc": 0.0, "error_auroc": None}
    if trainer == "CDC":
        assert 0 < found["mean_vacuity"] <= 1
        assert 0 <= found["mean_conflict"] < 1


def test_one_class_has_no_second_half(refusal, one_class):
    assert "DATASET.SUBSAMPLE_CLASSES new leaves no class of 1: give all" in refusal(
        "DATASET.SUBSAMPLE_CLASSES", "new", root=one_class
    )


# ---- many ----


def test_hand_crafted_prompts_of_many_classes_are_encoded_in_parts(vit, monkeypatch):
    names = [f"kind {number}" for number in range(10)]
    whole = vit.encode_classes("a {}.", names)
    sizes = []
    encode = vit.text.encode_tokens
    monkeypatch.setattr("trainers.prompting.backbone.CLASSES", 4)
    monkeypatch.setattr(
        vit.text, "encode_tokens", lambda tokens: sizes.append(len(tokens)) or encode(tokens)
    )
    torch.testing.assert_close(vit.encode_classes("a {}.", names), whole, rtol=1e-5, atol=1e-6)
    assert sizes == [4, 4, 2]


# ---- split files ----


@pytest.fixture
def images(tmp_path):
    """A folder with a picture in it, and one outside."""
    for place in ("images/in", "outside"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / f"{place}/a.png").write_bytes(b"never opened")
    return tmp_path / "images"


@pytest.fixture
def split_with(images):
    """Writes a split file of a sound training image and further ones; returns its path."""

    def write(*entries, test=()):
        path = images.parent / "split.json"
        train = [["in/a.png", 0, "ant"], *entries]
        path.write_text(json.dumps({"train": train, "val": [], "test": test}))
        return str(path)

    return write


@pytest.mark.parametrize("name", ["../outside/a.png", "{outside}/a.png", "../images_2/a.png"])
def test_a_split_file_that_points_outside_its_folder_is_refused(images, split_with, name):
    (images.parent / "images_2").mkdir()
    path = split_with([name.format(outside=images.parent / "outside"), 0, "ant"])
    with refuses("lies outside .*images: it is refused"):
        read_split(path, images)


def test_links_to_images_elsewhere_are_followed(images, split_with):
    (images / "one.png").symlink_to(images.parent / "outside/a.png")
    (images / "more").symlink_to(images.parent / "outside")
    (images.parent / "elsewhere").symlink_to(images)
    path = split_with(["one.png", 0, "ant"], ["more/a.png", 0, "ant"])
    for folder in (images, images.parent / "elsewhere"):
        assert len(read_split(path, folder)[0]) == 3


@pytest.mark.parametrize(
    "entry, message",
    [
        (
            ["in/b.png", 2, "bee"],
            "b.png has the label 2, training images have 2 classes: labels must",
        ),
        (["in/b.png", -1, "bee"], "has the label -1, training images have 2 classes"),
        (["in/b.png", 1.5, "bee"], "split.json can't be read .ValueError: invalid literal.*'1.5'"),
        (["in/b.png", 1, None], "None is no class name"),
        ([5, 1, "bee"], "split.json can't be read .TypeError"),
        (None, "split.json can't be read .TypeError"),
    ],
)
def test_an_entry_that_is_none_is_named(images, split_with, entry, message):
    with refuses(message):
        read_split(split_with(entry), images)


def test_a_test_image_of_a_class_without_training_images_is_named(images, split_with):
    path = split_with(test=[["in/a.png", 1, "bee"]])
    with refuses("in/a.png has the label 1, training images have 1 classes"):
        read_split(path, images)
