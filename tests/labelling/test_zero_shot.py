"""Labels by class names alone: no labelled picture, no run."""

import json

import numpy
import pytest
import torch
from PIL import Image

import predict
from labelling import PromptedClassifier
from tests.conftest import make_method
from tests.runs import call, refuses
from trainers.data.transforms import pixels_of_test
from trainers.prompting.backbone import load_backbone

NAMES = ["red square", "blue square"]


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(colour, (16, 16, 48, 48))
        picture.save(tmp_path / f"{name}.png")
        paths.append(str(tmp_path / f"{name}.png"))
    return paths


def test_it_answers_as_clip_does_with_the_sentences_of_the_field(pictures):
    classifier = PromptedClassifier.zero_shot(NAMES, "tiny")
    method = make_method("ZeroshotCLIP2", load_backbone("tiny"), NAMES, dataset="").eval()
    shown = pixels_of_test(classifier.cfg.INPUT)
    pixels = torch.stack([shown(Image.open(path).convert("RGB")) for path in pictures])
    expected = method.answer(pixels[None]).probability.numpy()
    numpy.testing.assert_allclose(classifier.predict_proba(pictures), expected, rtol=1e-5)
    swapped = PromptedClassifier.zero_shot(NAMES[::-1], "tiny").predict_proba(pictures)
    numpy.testing.assert_allclose(swapped[:, ::-1], expected, rtol=1e-5)


def test_the_command_takes_names_in_place_of_a_run_and_promises_nothing(pictures, capsys, error_of):
    words = ["--backbone", "tiny", "--json", *pictures, "--classes", *NAMES]
    assert call(predict.main, *words) == 0
    said = capsys.readouterr()
    assert {row["label"] for row in json.loads(said.out)} <= {*NAMES}
    assert all(row["doubtful"] is None for row in json.loads(said.out))
    assert "promise" not in said.err
    line = error_of(predict.main, "--max-error", "best", *words)
    assert "they say nothing of" in line
    assert "give --run, the folder of a training, or --classes" in error_of(
        predict.main, pictures[0]
    )


def test_one_name_tells_nothing_apart():
    with refuses("give a list of at least two names"):
        PromptedClassifier.zero_shot(["cat"], "tiny")
