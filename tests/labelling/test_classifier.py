"""PromptedClassifier: a run's own answers without its data, from any kind of image, and for other
classes."""

import json
import math
import re
import shutil
import textwrap
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import predict
from labelling import PromptedClassifier
from tests.conftest import BASE, FEW, NEW, TRAINERS, slow_but_for
from tests.runs import CLASSES, change_record, prompts_of, python, record_of, refuses
from tests.same_run import kept_answers


@pytest.fixture
def assert_same(data_root):
    """``assert_same(classifier, folder)``: it says what that run's test said of its images, to the bit.

    The probabilities of the classes that were kept, and all that methods with templates say.
    """

    def compare(classifier, folder):
        expected = kept_answers(folder, "test")
        pictures = [f"{data_root}/dtd/images/{name}" for name in expected["image"]]
        assert_same_answers(classifier.predict(pictures), expected)

    return compare


def assert_same_answers(answers, expected):
    top = expected["top"]
    assert (numpy.diff(expected["top_probability"]) <= 0).all()
    numpy.testing.assert_array_equal(
        numpy.take_along_axis(answers.probabilities, top, axis=1), expected["top_probability"]
    )
    assert answers.labels == [answers.classnames[label] for label in top[:, 0]]
    numpy.testing.assert_array_equal(answers.uncertainty, expected["max_probability"])
    for name in ("vacuity", "conflict"):
        assert (name in expected) == (getattr(answers, name) is not None)
        if name in expected:
            numpy.testing.assert_array_equal(getattr(answers, name), expected[name])
    assert ("vote" in expected) == (answers.votes is not None)
    if "vote" in expected:
        numpy.testing.assert_array_equal(answers.votes.argmax(axis=2).T, expected["vote"])
        numpy.testing.assert_array_equal(answers.votes.max(axis=2).T, expected["vote_probability"])
        numpy.testing.assert_array_equal(answers.vote_weights, expected["vote_weight"])
        assert answers.vote_weights.sum() == pytest.approx(1)
        assert len(answers.voters) == len(expected["vote"])


@pytest.fixture
def classifier(loaded):
    return loaded("CDC")


@pytest.fixture
def pictures(data_root):
    """Paths of six pictures of 40 × 40 pixels."""
    return [f"{data_root}/dtd/images/{name}/00.png" for name in CLASSES]


# ---- the run's own answers ----


IN_HALF = ["CDC amp", "MaPLe fp16", "CoOp fp16"]


@slow_but_for((*FEW, "CDC amp", "CoOp fp16"), [*TRAINERS, *IN_HALF])
def test_it_says_what_the_runs_own_test_said(
    just_trained, assert_same, monkeypatch, name, fp16_anywhere
):
    """Also in other precisions; without what only a training needs."""
    trainer_name, _, precision = name.partition(" ")
    options = [f"TRAINER.{trainer_name.upper()}.PREC", precision] if precision else []
    trainer, folder = just_trained(trainer_name, *options)
    for part in ("Evaluator", "Checkpoints", "build_optimizer", "build_schedule"):
        monkeypatch.setattr(f"trainers.engine.run.{part}", None)
    classifier = PromptedClassifier.load(folder)
    assert json.dumps(classifier.cfg, sort_keys=True) == json.dumps(trainer.cfg, sort_keys=True)
    assert classifier.classnames == trainer.model.classnames
    assert_same(classifier, folder)


@slow_but_for(FEW, TRAINERS)
def test_with_other_classes_it_says_what_a_test_on_them_says(trained, run, assert_same, name):
    base = trained(name, *BASE)
    _, _, new = run(name, *NEW, flags=prompts_of(base))
    classifier = PromptedClassifier.load(base)
    assert_same(classifier.with_classes(["woven", "zigzagged", "grid"]), new)
    assert_same(classifier, base)  # it is as it was


def test_class_specific_contexts_answer_for_their_own_classes_only(trained, assert_same):
    folder = trained("CoOp", "TRAINER.COOP.CSC", "True")
    classifier = PromptedClassifier.load(folder)
    assert_same(classifier, folder)
    for names in (["cat", "dog"], [*classifier.classnames, "cat"]):
        with refuses(r"was not trained for: its contexts are class-specific \(TRAINER.COOP.CSC\)"):
            classifier.with_classes(names)


# ---- kinds of images ----


def test_all_kinds_of_images_are_the_same_image(classifier, pictures):
    expected = classifier.predict(pictures)
    pillow = [Image.open(path) for path in pictures]
    arrays = numpy.stack([numpy.asarray(image) for image in pillow])
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    floats = tensor.float() / 255
    mixed = [pictures[0], pillow[1], arrays[2], tensor[3], floats[4], pictures[5]]
    for many in (pillow, arrays, tensor, floats, floats.double(), iter(pictures), mixed):
        same_probabilities(classifier.predict(many), expected)
    alone = classifier.predict(pictures[1:2])
    for one in (pictures[1], pillow[1], arrays[1], tensor[1]):
        same_probabilities(classifier.predict(one), alone)
    assert classifier.predict([pictures[0], arrays[0]]).images == [pictures[0], None]


def same_probabilities(answers, expected):
    numpy.testing.assert_array_equal(answers.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    "image, message",
    [
        ("nowhere.png", "image nowhere.png can't be read .* No such file .*: replace it, or leave"),
        ([], "there is no image to look at"),
        (5, "this int is not an image .* give a path, a PIL image, an array .* or a tensor"),
        ([None], "this NoneType is not an image"),
        (numpy.zeros((3, 8, 8), "uint8"), "this ndarray is not an image .its shape is .3, 8, 8"),
        (numpy.full((8, 8, 3), 1.5), "has values from 1.5 to 1.5"),
        (torch.zeros(3, 0, 8), "this ndarray is not an image"),
        (torch.full((3, 8, 8), math.nan), "has values from nan to nan"),
    ],
)
def test_what_is_no_image(classifier, image, message):
    with refuses(message):
        classifier.predict(image)


@pytest.mark.parametrize("names", ["cat", ["cat"], None, ["cat", None], [["cat"], ["dog"]]])
def test_what_are_no_classes(classifier, names):
    with refuses("give a list of at least two names"):
        classifier.with_classes(names)


def test_a_table_for_pandas(classifier, pictures):
    answers = classifier.predict(pictures)
    table = answers.to_pandas()
    assert table["image"].tolist() == pictures
    assert table["label"].tolist() == answers.labels
    assert table["probability"].tolist() == answers.probabilities.max(axis=1).tolist()
    for name in ("uncertainty", "vacuity", "conflict"):
        assert table[name].tolist() == getattr(answers, name).tolist()
    assert table["template_2"][3] == answers.classnames[answers.votes[3, 1].argmax()]
    assert table["template_2_vacuity"][3] == answers.vote_vacuity[3, 1]


# ---- as scikit-learn's users expect it ----


def test_it_has_scikit_learns_names_and_shapes_and_its_answers_serve_its_functions(
    classifier, data_root
):
    folder = Path(data_root, "dtd/images")
    pictures = sorted(folder.glob("*/*.png"))
    truth = [path.parent.name for path in pictures]
    names = classifier.classes_
    probabilities = classifier.predict_proba(pictures)
    answers = classifier.predict(pictures)
    assert probabilities.shape == (len(pictures), len(names))
    assert (names[probabilities.argmax(axis=1)] == answers).all()
    table = pandas.DataFrame({"path": pictures, "label": truth})
    for given in ([folder], [table], [pictures, truth]):
        found = classifier.evaluate(*given)
        assert found.images == len(pictures)
        assert found.accuracy == accuracy_score(truth, answers)
        assert (found.confusion == confusion_matrix(truth, answers, labels=names)).all()
        assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))


def test_labels_that_can_not_be_evaluated_are_named(classifier, pictures):
    with refuses("the label 'wovn' is none of the classes .did you mean woven.*: they are banded"):
        classifier.evaluate(pictures[:1], ["wovn"])


# ---- the run's folder ----


def refused(folder, message):
    with refuses(message):
        PromptedClassifier.load(folder)


def test_a_folder_without_a_finished_run_or_without_prompts(copied):
    refused("nowhere", "nowhere holds no finished run, there is no results.json: give the folder")
    folder = copied("CoOp")
    shutil.rmtree(folder / "prompt_learner")
    refused(folder, "holds no prompts: it tested those of another run, give the folder of that")
    change_record(folder, classnames=[])
    odd = r"results.json is no run record of this version \(its classnames is missing or of another"
    refused(folder, odd)


def test_prompts_of_another_run_are_refused(copied, trained, data_root, error_of):
    """Of the same trainer, CLIP and classes; what ``--max-error`` allows was measured with others."""
    folder = copied("CoOp")
    other = trained("CoOp", "SEED", "7") / "prompt_learner"
    shutil.copytree(other, folder / "prompt_learner", dirs_exist_ok=True)
    message = "was trained with other settings than .*results.json tells of .SEED 7 → 1.: put the run's own"
    refused(folder, message)
    words = "--run", folder, "--max-error", "0.9", f"{data_root}/dtd/images/woven"
    assert re.search(message, error_of(predict.main, *words))
    folder = copied("CoOp")
    change_record(folder, prompts_hash="of another training with the same settings")
    refused(
        folder, "holds other prompts than those that .*results.json tells of: put the run's own"
    )


def test_a_trainer_that_is_not_ours(copied):
    """Also a module of ours that is none of a trainer."""
    folder = copied("CoOp")
    for name in ("Tcp2", "os", "prompting.backbone"):
        change_record(folder, trainer=name)
        refused(folder, f"made by the trainer {name!r}, which is not known here: import the module")


def test_a_clip_that_was_moved(copied, small_clip_file):
    folder = copied("CoOp")
    config = record_of(folder)["config"]
    config["MODEL"]["BACKBONE"]["NAME"] = "moved.pt"
    change_record(folder, config=config)
    refused(folder, "MODEL.BACKBONE.NAME is 'moved.pt', which is neither a file")
    assert len(PromptedClassifier.load(folder, backbone=small_clip_file).classnames) == 6


def test_as_a_guest_it_registers_nothing_but_the_runs_trainer_and_prints_nothing(
    trained, pictures, tmp_path, loaded
):
    program = f"""
        import cdc_trainers, sys
        from dassl.engine import TRAINER_REGISTRY
        assert not [name for name in sys.modules if name.startswith("cdc_trainers.")]
        before = set(TRAINER_REGISTRY.registered_names())
        from cdc_labelling import PromptedClassifier
        assert set(TRAINER_REGISTRY.registered_names()) == before
        for folder, ours in (({str(trained("CDC"))!r}, {{"CDC"}}),
                             ({str(trained("ZeroshotCLIP"))!r}, {{"CDC", "ZeroshotCLIP", "ZeroshotCLIP2"}})):
            classifier = PromptedClassifier.load(folder)
            assert set(TRAINER_REGISTRY.registered_names()) - before == ours
            print(classifier.predict({pictures[0]!r}).labels)
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    labels = [loaded(name).predict(pictures[0]).labels for name in ("CDC", "ZeroshotCLIP")]
    assert done.stdout.splitlines() == [*map(str, labels)]
