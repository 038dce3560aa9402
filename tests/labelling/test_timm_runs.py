"""Whole runs on an image encoder of timm: names of classes are names, and no text is looked at."""

import json

import numpy
import pytest
import torch

from labelling import PromptedClassifier
from tests.labelling.cases import NAMES, SINGLE, over_tasks, train
from tests.runs import record_of, refuses

timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The name of timm's smallest network with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return f"timm:test_resnet/{path}"


@over_tasks
def test_a_run_learns_answers_and_knows_its_classes_alone(task, pictures_of, encoder, tmp_path):
    folder, pictures = tmp_path / "run", pictures_of(task)
    small = ("MODEL.BACKBONE.INTERPOLATE_POSITIONS", True)
    assert train(task, pictures / "labels.csv", folder, encoder, settings=small) == 0
    record = record_of(folder)
    assert record["metrics"]["test"][task.metric] > 70
    assert not (folder / "ZeroshotCLIP").exists(), "without texts there is no zero-shot"
    classifier = PromptedClassifier.load(folder)
    paths = [f"{pictures}/{number}.png" for number in range(12)]
    answers = classifier.predict_proba(paths)
    turned = classifier.with_classes(NAMES[::-1]).predict_proba(paths)
    numpy.testing.assert_allclose(turned, answers[:, ::-1], rtol=1e-5)
    with refuses("not trained for: its backbone, an image encoder without texts .ResNet."):
        classifier.with_classes([*NAMES, "sun"])


@over_tasks
def test_names_alone_and_descriptions_are_refused(task, encoder, tmp_path):
    others = "BinaryProbe" if task.task.multi_label else "LinearProbe, TipAdapter, TipAdapterF, GDA"
    with refuses(f"needs texts of the class names.*: choose {others}, or a CLIP"):
        PromptedClassifier.zero_shot(NAMES, encoder, multi_label=task.task.multi_label)


def test_descriptions_are_refused(pictures_of, encoder, tmp_path, capsys):
    sentences = tmp_path / "sentences.json"
    sentences.write_text(json.dumps({name: ["a colour"] for name in NAMES}))
    file = pictures_of(SINGLE) / "labels.csv"
    settings = ("MODEL.BACKBONE.INTERPOLATE_POSITIONS", True, "DATASET.DESCRIPTIONS", sentences)
    assert train(SINGLE, file, tmp_path / "run", encoder, settings=settings) == 2
    assert "DATASET.DESCRIPTIONS are sentences" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", ["GDA", "TipAdapter"])
def test_other_classifiers_of_features_learn_too(trainer, pictures_of, encoder, tmp_path):
    file = pictures_of(SINGLE) / "labels.csv"
    small = ("MODEL.BACKBONE.INTERPOLATE_POSITIONS", True)
    assert train(SINGLE, file, tmp_path / "run", encoder, "--trainer", trainer, settings=small) == 0
    assert record_of(tmp_path / "run")["metrics"]["test"]["accuracy"] > 60
