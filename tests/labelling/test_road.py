"""From pictures to a run there is one road: train.py --images, cdc-train and fit ask for the same, are
refused in the same words and make the same run; Dassl's trainer has its numbers."""

import logging
import re

import numpy
import pytest
import torch
from PIL import Image

import run as protocol_run
import train
from labelling import PromptedClassifier
from labelling.commands import train as cdc_train
from labelling.own_run import trainer_and_clip_of
from tests.conftest import FEW, IN_EPOCHS, slow_but_for
from tests.runs import base_arguments, call, contents_of, make_pictures, record_of, refuses
from tests.same_run import assert_equal, contents
from trainers.common.config_files import CONFIGS
from trainers.common.recipes import IMAGE_FOLDER
from trainers.engine.checkpoint import MODEL_NAME, load, newest, write


@pytest.fixture
def mine(tmp_path):
    return make_pictures(tmp_path / "mine")


# ---- one run ----


def numbers(folder):
    """All that a run says but what its config and its notes are called, and what is kept of one's own pictures
    beside it."""
    found = contents(folder)
    found["record"].pop("files", None)
    found["record"].pop("notes", None)
    for state in found["checkpoints"].values():
        del state["config"]
    return found


@slow_but_for(("CDC", FEW[-1]), IN_EPOCHS)
def test_dassls_trainer_and_ours_make_the_same_run_to_the_bit(
    name, mine, train_on, tmp_path, small_clip_file
):
    """On our road the others are tested on all images, in folds."""
    words = base_arguments(name, mine, small_clip_file, tmp_path / "dassl")
    words[words.index("--dataset-config-file") + 1] = f"{CONFIGS}/datasets/{IMAGE_FOLDER}.yaml"
    assert call(train.main, *words, "DATASET.NUM_SHOTS", "-1") == 0
    code, _, said = train_on(mine, trainer=name)
    assert code == 0, said
    assert_equal(numbers(tmp_path / "out"), numbers(tmp_path / "dassl"), name)


# ---- the same words for what can't be ----


@pytest.mark.parametrize(
    "place, where",
    [
        ("{images}/", "the folder of the images, {images}"),
        ("{images}/../mine/.", "the folder of the images, {images}"),
        ("{images}/out/deep", "which lies in {images}, where they pass for a class"),
        ("{images}/..", "which holds the images, {images}"),
    ],
)
def test_a_run_goes_neither_among_nor_around_its_images(mine, error_of, place, where):
    folder = place.format(images=mine)
    before = sorted(mine.parent.rglob("*"))
    line = f"the results would go to .*{where.format(images=mine)}: give another output folder"
    with refuses(line):
        PromptedClassifier.fit(mine, trainer="GDA", folder=folder)
    words = "--trainer", "GDA", "--output-dir", folder
    assert re.search(line, error_of(train.main, "--images", mine, *words))
    assert re.search(line, error_of(cdc_train.main, mine, *words))
    assert sorted(mine.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "given, line",
    [
        ({"seed": "1"}, "the seed is '1': give a whole number"),
        ({"seed": True}, "the seed is True: give a whole number"),
        ({"seed": -1}, "the seed is -1, it must be 0 or more"),
        ({"backbone": 5}, "the backbone is 5: give a text"),
        ({"trainer": "CDX"}, "unknown trainer 'CDX'.*did you mean CDC"),
        ({"recipe": "tiny"}, "the recipe tiny is of one trainer: say which"),
        ({"folder": "a\0b"}, "the output folder is .*: give a text or a path"),
        ({"settings": ["OPTIM.MAX_EPOCH", 5]}, "the settings are .*: give keys and their values"),
        ({"settings": {"OUTPUT_DIR": "x"}}, "the setting OUTPUT_DIR is the output folder, which"),
    ],
    ids=str,
)
def test_an_argument_of_another_kind_or_out_of_its_range_is_a_line(mine, given, line):
    before = sorted(mine.parent.rglob("*"))
    with refuses(line):
        PromptedClassifier.fit(mine, **given)
    assert sorted(mine.parent.rglob("*")) == before


def test_each_command_leaves_out_small_classes_by_the_flag_that_its_refusal_names(mine, error_of):
    for number in range(3, 10):
        (mine / f"ant/{number}.bmp").unlink()
    make_pictures(mine, names=("cat",))
    given = ["--trainer", "ZeroshotCLIP", "--backbone", "tiny", "--output-dir"]
    for main, start in ((train.main, ["--images", mine]), (cdc_train.main, [mine])):
        words = [*start, *given, mine.parent / main.__module__]
        assert "leave these out with --skip-small" in error_of(main, *words)
        assert call(main, *words, "--skip-small") == 0
        assert record_of(words[-1])["classnames"] == ["bee", "cat"]


# ---- the same call again ----


def test_the_same_call_on_images_with_labels_loads_what_is_there(tmp_path):
    generator = numpy.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), "uint8")) for _ in range(16)
    ]
    labels = ["ant", "bee"] * 8
    given = {"trainer": "ZeroshotCLIP", "backbone": "tiny", "folder": tmp_path / "run"}
    first = PromptedClassifier.fit(pictures, labels, **given)
    kept = contents_of(tmp_path / "run-images")
    again = PromptedClassifier.fit(pictures, labels, **given)
    assert again.record == first.record, "the run was done"
    with refuses("run-images exists already, where the images would go, and holds others"):
        PromptedClassifier.fit(pictures, labels[::-1], **given)
    with refuses("unknown config key OPTIM.X"):
        PromptedClassifier.fit(pictures, labels, **given, settings={"OPTIM.X": 1})
    assert contents_of(tmp_path / "run-images") == kept


def test_the_clip_of_a_training_that_was_begun_is_found_under_any_name(copied):
    name = "C:\\it's mine.pt"
    place = copied("CoOp") / MODEL_NAME
    checkpoint = newest(place)
    state = load(f"{place}/{checkpoint}")
    state["config"]["MODEL.BACKBONE.NAME"] = repr(name)
    write(state, str(place), checkpoint)
    assert trainer_and_clip_of(str(place.parent)) == ("CoOp", name)


def test_fit_keeps_a_log_and_leaves_the_program_s_settings(mine, tmp_path):
    before = torch.backends.cudnn.benchmark
    PromptedClassifier.fit(mine, trainer="ZeroshotCLIP", backbone="tiny", folder=tmp_path / "run")
    assert torch.backends.cudnn.benchmark is before
    handlers = logging.getLogger("trainers").handlers
    assert not any(isinstance(each, logging.FileHandler) for each in handlers)
    log = (tmp_path / "run/log.txt").read_text()
    for part in ("** Config **", "Your images: ", "Evaluate on the *test* set"):
        assert part in log


# ---- what can't be, said before it is tried ----


def test_no_run_says_that_it_learns_nothing_and_then_does(mine, train_on):
    _, record, said = train_on(mine, trainer="TipAdapterF")
    assert record["parameters"]["learnable"] > 0
    assert "TipAdapterF: its learnable parameters are made of the training images" in said


@pytest.mark.parametrize(
    "words, line",
    [
        ("OPTIM.LR -1", "OPTIM.LR is -1.0, it must be above 0"),
        ("OPTIMM.LR 1", "unknown config key OPTIMM.LR (did you mean OPTIM.LR?)"),
        ("TRAINER.COOP.N_CTX 0", "TRAINER.COOP.N_CTX is 0, it must be at least 1"),
    ],
)
def test_a_plan_refuses_what_its_runs_would_refuse(error_of, words, line):
    plan = "--protocol fewshot --trainer CoOp --plan --".split()
    assert line in error_of(protocol_run.main, *plan, *words.split())
    assert call(protocol_run.main, *plan, "OPTIM.LR", "1", "TRAINER.COOP.N_CTX", "4") == 0


def test_what_an_optimiser_refuses_is_the_fault_of_the_config(mine, train_on, tmp_path):
    words = "OPTIM.NAME sgd OPTIM.MOMENTUM 0.0 OPTIM.SGD_NESTEROV True"
    code, _, said = train_on(mine, *words.split())
    assert code == 2
    assert "the config can't work: Nesterov momentum" in said
    assert not (tmp_path / "out").exists()
