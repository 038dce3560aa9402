"""PromptedClassifier: a run's own answers without its data, from any kind of image, and for other
classes."""

import json
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
from tests.conftest import CASES, FEW, slow_but_for
from tests.runs import CLASSES, change_record, prompts_of, python, record_of, refuses
from tests.same_run import kept_answers
from tests.trainers.test_every_trainer import BASE, NEW, TRAINERS
from trainers import PromptedClassifier
from trainers.evaluation.doubts import wilson


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
        votes, probabilities = [*expected["vote"]], [*expected["vote_probability"]]
        if "image_vote" in expected:  # the last one
            votes.append(expected["image_vote"])
            probabilities.append(expected["image_vote_probability"])
        numpy.testing.assert_array_equal(answers.votes.argmax(axis=2).T, votes)
        numpy.testing.assert_array_equal(answers.votes.max(axis=2).T, probabilities)
        numpy.testing.assert_array_equal(answers.vote_weights, expected["vote_weight"])
        assert len(answers.voters) == len(votes) and answers.vote_weights.sum() == pytest.approx(1)


@pytest.fixture
def classifier(loaded):
    return loaded("CDC")


@pytest.fixture
def pictures(data_root):
    """Paths of six pictures of 40 × 40 pixels."""
    return [f"{data_root}/dtd/images/{name}/00.png" for name in CLASSES]


def test_it_shows_what_it_is(classifier):
    assert repr(classifier).startswith("<PromptedClassifier: CDC on ")
    assert repr(classifier).endswith(", 6 classes>") and ", seed 1, " in repr(classifier)


# ---- the run's own answers ----


@pytest.mark.parametrize(
    "options",
    [(), ("TRAINER.CDC.PREC", "amp", "TRAINER.MAPLE.PREC", "fp16", "TRAINER.COOP.PREC", "fp16")],
)
@slow_but_for(FEW, TRAINERS)
def test_it_says_what_the_runs_own_test_said(
    just_trained, assert_same, monkeypatch, name, options, fp16_anywhere
):
    """Also for runs in other precisions, as some of the trainers' are."""
    trainer, folder = just_trained(name, *options)
    # it must do without
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
    known = kept_answers(new, "test")["top_probability"]
    assert known.sum(axis=1) == pytest.approx(1, abs=1e-5), "all three classes were compared"


@slow_but_for(("CDC", "LinearProbe"), TRAINERS)
def test_a_reloaded_run_answers_its_names_in_any_order(loaded, pictures, name):
    """Also after it was asked for others; see trainers/test_names.py."""
    classifier = loaded(name)
    first = classifier.predict(pictures).probabilities
    turned = classifier.with_classes(["cat", "dog"]).with_classes(CLASSES[::-1])
    found = turned.predict(pictures).probabilities
    numpy.testing.assert_allclose(found[:, ::-1], first, rtol=1e-3, atol=1e-5)


def test_class_specific_contexts_answer_for_their_own_classes_only(trained, assert_same):
    folder = trained("CoOp", "TRAINER.COOP.CSC", "True")
    classifier = PromptedClassifier.load(folder)
    assert_same(classifier, folder)
    for names in (["cat", "dog"], [*classifier.classnames, "cat"]):
        with refuses(r"are class-specific \(TRAINER.COOP.CSC\): they say nothing of classes"):
            classifier.with_classes(names)


# ---- kinds of images ----


def test_all_kinds_of_images_are_the_same_image(classifier, pictures):
    expected = classifier.predict(pictures)
    pillow = [Image.open(path) for path in pictures]
    arrays = numpy.stack([numpy.asarray(image) for image in pillow])
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    floats = tensor.float() / 255
    mixed = [pictures[0], pillow[1], arrays[2], tensor[3], floats[4], pictures[5]]
    stacks = arrays, tensor, floats, floats.double()
    for many in (pillow, *stacks, *map(list, stacks[:2]), iter(pictures), mixed):
        same_probabilities(classifier.predict(many), expected)
    alone = classifier.predict(pictures[1:2])
    for one in (pictures[1], pillow[1], arrays[1], tensor[1], floats[1]):
        same_probabilities(classifier.predict(one), alone)
    assert expected.images == pictures
    assert classifier.predict([pictures[0], arrays[0]]).images == [pictures[0], None]


def same_probabilities(answers, expected):
    numpy.testing.assert_array_equal(answers.probabilities, expected.probabilities)


def test_colours_and_shapes_are_brought_to_what_the_test_takes(classifier, pictures, tmp_path):
    wide = Image.open(pictures[0]).resize((90, 50)).convert("LA")
    wide.save(f"{tmp_path}/wide.png")
    expected = classifier.predict(numpy.asarray(wide.convert("RGB")))
    for picture in (tmp_path / "wide.png", wide):
        same_probabilities(classifier.predict(picture), expected)


@pytest.mark.parametrize("image, message", CASES["no images"])
def test_what_is_no_image(classifier, image, message):
    if isinstance(image, dict):
        ((kind, (dtype, shape, value)),) = image.items()
        library = {"array": numpy, "tensor": torch}[kind]
        image = library.full(shape, value, dtype=getattr(library, dtype))
    with refuses(re.escape(message)):
        classifier.predict(image)


@pytest.mark.parametrize(
    "names",
    ["cat", ["cat"], [], None, 5, b"cat", float("nan"), Path("cat"), ["cat", None], ["cat", b"dog"]]
    + [["cat", float("nan")], [["cat"], ["dog"]], object()],
)
def test_what_are_no_classes(classifier, names):
    with refuses("give a list of at least two names"):
        classifier.with_classes(names)
    with refuses("the class name .* is too long: with it a prompt has"):
        classifier.with_classes(["cat", "very " * 90 + "long"])


def test_a_table_for_pandas(classifier, loaded, pictures):
    answers = classifier.predict(pictures)
    table, names = answers.to_pandas(), ["image", "label", "probability", "uncertainty"]
    votes = [f"template_{m}" for m in range(1, 5)]
    vacuities = [f"{vote}_vacuity" for vote in votes]
    assert list(table) == [*names, "vacuity", "conflict", *votes, *vacuities]
    assert table["image"].tolist() == pictures and table["label"].tolist() == answers.labels
    assert table["probability"].tolist() == answers.probabilities.max(axis=1).tolist()
    assert table["template_2"][3] == answers.classnames[answers.votes[3, 1].argmax()]
    assert table["template_2_vacuity"][3] == answers.vote_vacuity[3, 1]
    # α = p S, of which at least one per class is the prior, so K / S ≤ K p for the least p
    assert (answers.vote_vacuity <= answers.votes.shape[-1] * answers.votes.min(-1) + 1e-6).all()
    assert list(loaded("CoOp").predict(pictures).to_pandas()) == names


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
    assert probabilities.shape == (len(pictures), len(names)) and {*names} == {*truth}
    assert (names[probabilities.argmax(axis=1)] == answers).all()
    right = sum(name == label for name, label in zip(truth, answers.labels))
    for found in (
        classifier.evaluate(folder),
        classifier.evaluate(pandas.DataFrame({"path": pictures, "label": truth})),
        classifier.evaluate(pictures, truth),
    ):
        assert found.images == len(pictures) == len(found.answers)
        assert found.accuracy == accuracy_score(truth, answers) == right / len(pictures)
        assert (found.confusion == confusion_matrix(truth, answers, labels=names)).all()
        assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))
        assert found.ece == pytest.approx(calibration_error(probabilities, truth, names), abs=1e-6)
    assert found.interval == wilson(right, found.images)


def calibration_error(probabilities, truth, names):
    """Guo et al. (2017), eq. 3, image by image."""
    bins = [[] for _ in range(15)]
    for row, label in zip(probabilities, truth):
        bins[min(int(15 * row.max()), 14)].append((row.max(), names[row.argmax()] == label))
    gaps = (abs(sum(right for _, right in of) - sum(sure for sure, _ in of)) for of in bins)
    return sum(gaps) / len(truth)


def test_labels_that_can_not_be_evaluated_are_named(classifier, pictures):
    with refuses("the label 'wovn' is none of the classes .did you mean woven.*: they are banded"):
        classifier.evaluate(pictures[:1], ["wovn"])
    with refuses("there are 2 images and 1 labels: give one for each"):
        classifier.evaluate(pictures[:2], ["woven"])


# ---- the run's folder ----


@pytest.fixture
def copy_of(copied):
    """A run's folder to be changed, with another record; see ``change_record``."""

    def copy(name, **changed):
        folder = copied(name)
        change_record(folder, **changed)
        return folder

    return copy


def refused(folder, message):
    with refuses(message):
        PromptedClassifier.load(folder)


def test_a_folder_without_a_finished_run_or_without_prompts(copy_of):
    refused(
        "nowhere",
        "nowhere holds no finished run, there is no results.json: give the folder of a training",
    )
    folder = copy_of("CoOp", config=None)
    odd = r"results.json is no run record of this version \(its {} is missing or of another kind\): use"
    refused(folder, odd.format("config"))
    refused(copy_of("CoOp", classnames=[]), odd.format("classnames"))
    (folder / "results.json").write_text("{")
    refused(folder, "results.json is no run record of this version")
    shutil.rmtree(copy_of("CoOp") / "prompt_learner")
    refused(folder, "holds no prompts: it tested those of another run, give the folder of that")


def test_prompts_of_another_run_are_refused(copy_of, trained, data_root, error_of):
    """Of the same trainer, CLIP and classes; what ``--max-error`` allows was measured with others."""
    folder = copy_of("CoOp")
    other = trained("CoOp", "SEED", "7") / "prompt_learner"
    shutil.copytree(other, folder / "prompt_learner", dirs_exist_ok=True)
    message = "holds other prompts than those that .*results.json tells of: put the run's own"
    refused(folder, message)
    words = "--run", folder, "--max-error", "0.9", f"{data_root}/dtd/images/woven"
    assert re.search(message, error_of(predict.main, *words))


def test_a_trainer_that_is_not_ours(copy_of):
    made = "made by the trainer {!r}, which is not known here: import the module that registers it"
    # a module of ours that is none of a trainer, and what no name leads to
    for name in ("Tcp2", "Base", "..results.table", "os", "prompting.backbone", "ä.b"):
        refused(copy_of("CoOp", trainer=name), made.format(name))


def test_settings_are_read_as_the_record_has_them(copy_of, trained, pictures, loaded):
    config = record_of(trained("CDC"))["config"]
    config["OUTPUT_DIR"] = "7"  # a name that yacs would take for a number
    read = PromptedClassifier.load(copy_of("CDC", config=config))
    assert read.cfg.OUTPUT_DIR == "7" and read.cfg.INPUT.SIZE == (32, 32)
    same_probabilities(read.predict(pictures), loaded("CDC").predict(pictures))


def test_a_clip_that_was_moved(copy_of, small_clip_file):
    config = record_of(copy_of("CoOp"))["config"]
    config["MODEL"]["BACKBONE"]["NAME"] = "moved.pt"
    folder = copy_of("CoOp", config=config)
    refused(folder, "MODEL.BACKBONE.NAME is 'moved.pt', which is neither a file")
    assert len(PromptedClassifier.load(folder, backbone=small_clip_file).classnames) == 6


def test_a_run_is_loaded_and_asked_where_there_is_no_dassl(trained, pictures, tmp_path, loaded):
    program = f"""
        import sys
        sys.modules["dassl"] = None
        import numpy
        from cdc_trainers import PromptedClassifier
        classifier = PromptedClassifier.load(r"{trained("CDC")}")
        numpy.save("said.npy", classifier.predict({[*map(str, pictures)]}).probabilities)
        assert len(classifier.with_classes(["cat", "bus"]).classnames) == 2
    """
    done = python("-W", "ignore", "-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said, expected = numpy.load(tmp_path / "said.npy"), loaded("CDC").predict(pictures)
    assert said == pytest.approx(expected.probabilities, abs=1e-6)


def test_as_a_guest_it_registers_nothing_but_the_runs_trainer_and_prints_nothing(
    trained, pictures, tmp_path, loaded
):
    program = f"""
        import cdc_trainers, sys
        from dassl.engine import TRAINER_REGISTRY
        assert not [name for name in sys.modules if name.startswith("cdc_trainers.")]
        before = set(TRAINER_REGISTRY.registered_names())
        from cdc_trainers import PromptedClassifier
        assert set(TRAINER_REGISTRY.registered_names()) == before
        for folder, ours in (({str(trained("CDC"))!r}, {{"CDC"}}),
                             ({str(trained("ZeroshotCLIP"))!r}, {{"CDC", "ZeroshotCLIP", "ZeroshotCLIP2"}})):
            classifier = PromptedClassifier.load(folder)
            assert set(TRAINER_REGISTRY.registered_names()) - before == ours
            print(classifier.predict({pictures[0]!r}).labels)
        try:
            cdc_trainers.nothing
        except AttributeError as error:
            print(error)
    """
    done = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    labels = [loaded(name).predict(pictures[0]).labels for name in ("CDC", "ZeroshotCLIP")]
    unknown = "module 'cdc_trainers' has no attribute 'nothing'"
    assert done.stdout.splitlines() == [*map(str, labels), unknown]


def test_batches_are_the_runs_and_images_are_taken_two_batches_ahead(
    classifier, pictures, monkeypatch
):
    read, seen, answer = [], [], classifier.method.answer

    def noted(images, encoded):
        seen.append((images.shape[1], len(read)))
        return answer(images, encoded)

    monkeypatch.setattr(classifier.method, "answer", noted)
    answers = classifier.predict(read.append(path) or path for path in (pictures * 11)[:64])
    assert answers.probabilities.shape == (64, 6)
    assert seen == [(16, 48), (16, 64), (16, 64), (16, 64)]
