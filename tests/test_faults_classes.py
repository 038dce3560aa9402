"""Class names of every kind, one class, ten thousand; split files that point elsewhere."""

import json
import os

import pytest
import torch

from datasets.splits import read_split
from tests.conftest import FEW, REFUSALS, make_method, random_clip, slow_but_for
from tests.runs import make_textures, refuses
from tests.trainers.test_every_trainer import TRAINERS
from trainers.evaluation.prediction import measure
from trainers.prompting.backbone import build_backbone
from trainers.prompting.tokens import tokenize_classes

WORLD = REFUSALS[
    "world"
]  # Chinese, an emoji, two from right to left, a combining accent, a script with conjuncts


# ---- names ----


@pytest.mark.parametrize("trainer", ["CDC", "ZeroshotCLIP"])
def test_names_in_every_script_are_trained_tested_and_recorded_as_they_are(run, tmp_path, trainer):
    make_textures(tmp_path, classes=WORLD)
    _, record, _ = run(trainer, "DATASET.ROOT", str(tmp_path))
    assert record["classnames"] == WORLD
    assert list(record["metrics"]["test"]["per_class_accuracy"]) == WORLD


@pytest.mark.parametrize("name, message", REFUSALS["class names"])
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


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_run_with_a_name_of_over_77_tokens_ends_with_that_name(refusal, tmp_path, trainer):
    make_textures(tmp_path, classes=("fine", "word " * 40 + "end"))
    split = tmp_path / "dtd/split_zhou_DescribableTextures.json"
    split.write_text(
        split.read_text().replace('word end"]', "word " * 40 + 'end"]')
    )  # twice as long as a folder may be called
    assert "the class name 'word word" in refusal(trainer=trainer, root=tmp_path)


# ---- one class ----


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    make_textures(root, classes=("banded",))
    return str(root)


@slow_but_for(FEW, TRAINERS, "trainer")
def test_one_class_is_always_right_and_what_is_undefined_is_null(run, one_class, trainer):
    _, record, _ = run(trainer, "DATASET.ROOT", one_class)
    found = record["metrics"]["test"]
    assert found["per_class_accuracy"] == {"banded": 100.0}
    figures = [found[name] for name in ("accuracy", "macro_f1", "ece", "nll", "brier")]
    assert figures == [100, 100, 0, 0, 0]
    for measure_of_doubt in found["uncertainty"].values():
        assert measure_of_doubt == {"aurc": 0.0, "error_auroc": None}
    if trainer == "CDC":
        assert 0 < found["mean_vacuity"] <= 1 and 0 <= found["mean_conflict"] < 1


def test_one_class_has_no_second_half(refusal, one_class):
    assert "DATASET.SUBSAMPLE_CLASSES new leaves no class of 1: give all" in refusal(
        "DATASET.SUBSAMPLE_CLASSES", "new", root=one_class
    )


# ---- ten thousand ----


def test_ten_thousand_classes_are_trained_on_and_told_apart(one_thread):
    """A step with texts encoded in parts, answers, and metrics."""
    small = random_clip(vision_layers=1, transformer_layers=1, transformer_width=64)
    names = [f"kind {number}" for number in range(10_000)]
    settings = {"PROMPT_DEPTH": 1, "N_TEMPLATES": 2, "TEXT_CHUNK": 1000}
    model = make_method("CDC", build_backbone(small.state_dict()), names, **settings)
    images, labels = torch.randn(1, 4, 3, 32, 32), torch.tensor([0, 17, 9_998, 9_999])
    loss, _ = model.loss(model(images), labels)
    loss.backward()
    gradient = model.learner.ctx.grad
    assert loss.isfinite() and gradient.isfinite().all() and gradient.any()
    with torch.no_grad():
        answer = model.eval().answer(images)
    assert answer.probability.shape == (4, 10_000)
    assert answer.probability.sum(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-4)
    found = measure(answer.cpu(), labels, names)
    assert list(found["per_class_accuracy"]) == ["kind 0", "kind 17", "kind 9998", "kind 9999"]


# ---- split files ----


def write_split(folder, *entries):
    path = folder / "split.json"
    path.write_text(
        json.dumps({"train": [["in/a.png", 0, "ant"], *entries], "val": [], "test": []})
    )
    return str(path)


@pytest.fixture
def images(tmp_path):
    """A folder with a picture in it, and one outside."""
    for place in ("images/in", "outside"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / f"{place}/a.png").write_bytes(b"never opened")
    return tmp_path / "images"


@pytest.mark.parametrize("name", REFUSALS["outside"])
def test_a_split_file_that_points_outside_its_folder_is_refused(images, name):
    (images / "folder_link").symlink_to(images.parent / "outside")
    (images.parent / "images_2").mkdir()
    path = write_split(images.parent, [name.format(outside=images.parent / "outside"), 0, "ant"])
    with refuses("lies outside .*images: it is refused"):
        read_split(path, images)


def test_links_to_images_elsewhere_are_followed(images):
    (images / "one.png").symlink_to(images.parent / "outside/a.png")
    (images / "more").symlink_to(images.parent / "outside")
    os.symlink(images, f"{images.parent}/elsewhere")
    path = write_split(
        images.parent, ["one.png", 0, "ant"], ["more/a.png", 0, "ant"], ["in/a.png", 0, "ant"]
    )
    for folder in (images, images.parent / "elsewhere"):
        assert len(read_split(path, folder)[0]) == 4


@pytest.mark.parametrize("entry, message", REFUSALS["split entries"])
def test_an_entry_that_is_none_is_named(images, entry, message):
    with refuses(message):
        read_split(write_split(images.parent, entry), images)


def test_a_test_image_of_a_class_without_training_images_is_named(images):
    path = images.parent / "split.json"
    image, other = ["in/a.png", 0, "ant"], ["in/a.png", 1, "bee"]
    path.write_text(json.dumps({"train": [image], "val": [], "test": [other]}))
    with refuses("in/a.png has the label 1, training images have 1 classes"):
        read_split(path, images)


def test_hand_crafted_prompts_of_many_classes_are_encoded_in_parts(vit, monkeypatch):
    names = [f"kind {number}" for number in range(10)]
    whole, sizes, encode = vit.encode_classes("a {}.", names), [], vit.text.encode_tokens
    monkeypatch.setattr("trainers.prompting.backbone.CLASSES", 4)
    monkeypatch.setattr(
        vit.text, "encode_tokens", lambda tokens: sizes.append(len(tokens)) or encode(tokens)
    )
    torch.testing.assert_close(vit.encode_classes("a {}.", names), whole, rtol=1e-5, atol=1e-6)
    assert sizes == [4, 4, 2]
