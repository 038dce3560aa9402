"""Bad input is answered with one clear line on standard error and exit code 2, nothing is left
half-written, and the advice works."""

import json
import os
import re
import shlex

import pytest
from dassl.engine import TRAINER_REGISTRY
from dassl.evaluation import EVALUATOR_REGISTRY

import predict
import run
from tests.conftest import GOLDEN
from tests.runs import (
    REPOSITORY,
    call,
    change_split,
    contents_of,
    make_textures,
    prompts_of,
    python,
)
from train import main
from trainers import METHODS
from trainers.common.errors import UserError, exit_code

MESSAGES = {
    section: GOLDEN["messages"][section]
    for section in ("after a command", "alone", "predict", "run")
}


# ---- settings ----


@pytest.mark.parametrize(
    "section, words", [(section, words) for section in MESSAGES for words in MESSAGES[section]]
)
def test_input_that_cannot_work_is_answered_by_its_line_and_leaves_nothing(
    section, words, arguments, trained, small_clip_file, tmp_path, monkeypatch, error_of
):
    """Those of messages.yaml."""
    names = {
        "TMP": str(tmp_path),
        "HERE": tmp_path.name,
        "REPO": str(REPOSITORY),
        "WEIGHTS": small_clip_file,
        "EVALUATORS": str(EVALUATOR_REGISTRY.registered_names()),
        "METHODS": ", ".join(sorted(METHODS)),
        # the tests' own among them
        "REGISTERED": ", ".join(sorted({*METHODS, *TRAINER_REGISTRY.registered_names()})),
    }
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    line = "error: " + pattern.sub(lambda name: names[name[0]], MESSAGES[section][words])
    command, before = main, []
    if section == "after a command":
        before = arguments("CDC")
    elif section == "predict":
        command, before = predict.main, ["--run", trained("CoOp")]
    elif section == "run":
        command = run.main
    else:
        monkeypatch.chdir(tmp_path)
    assert error_of(command, *before, *shlex.split(words)) == line
    assert "--resume" in words or not list(tmp_path.iterdir())


def test_what_is_wrong_with_a_config_file_is_named(refusal, tmp_path):
    path = tmp_path / "file.yaml"
    for content, message in (
        ("DATASET: {NAME: OxfordPet}", "unknown data set 'OxfordPet' (did you mean OxfordPets?)"),
        ("- OPTIM", "file.yaml: it must hold lines KEY: value"),
    ):
        path.write_text(content)
        assert message in refusal("--dataset-config-file", path)


def test_folders_made_on_the_way_to_a_refused_runs_folder_are_gone_but_those_of_another_run(
    tmp_path, arguments, monkeypatch, error_of
):
    ours = tmp_path / "o/CoOp/seed1"
    others = tmp_path / "o/CDC"

    def refuse(cfg):
        others.mkdir()
        raise UserError("no such data")

    monkeypatch.setattr("protocols.training.build_trainer", refuse)
    assert error_of(main, *arguments("CoOp", folder=ours)) == "error: no such data"
    assert others.is_dir()
    assert not ours.parent.exists()


def test_where_no_weights_can_be_had_the_advice_works_as_it_is_typed(
    refusal, monkeypatch, tmp_path, arguments
):
    def no_network(*request, **settings):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", f"{tmp_path}/home"))
    message = refusal("--backbone", "ViT-B/16")
    assert "the weights of ViT-B/16 can't be downloaded" in message
    # a toolbox that this package is a guest of has neither
    assert "run.py" not in message
    assert "configs/" not in message
    name, size = re.search(r"(MODEL\S+ tiny) and\s+(INPUT\S+ \(.*?\)) among", message).groups()
    advice = [*name.split(), *size.split(" ", 1)]
    monkeypatch.chdir(REPOSITORY)
    before = arguments("CDC", "--backbone", "ViT-B/16", "--no-train")
    assert call(main, *before, *advice) == 0


@pytest.mark.parametrize(
    "command",
    [
        "train.py --trainer CDD",
        "train.py --trainer CDC --images /nope",
        "run.py --wrong",
        "predict.py --run x y.png --max-error 0.1 --min-certainty 0.5",
        "serve.py --wrong",
        "-m results.table --wrong",
        "-m report --wrong",
    ],
)
def test_a_wrong_argument_is_answered_before_what_takes_seconds_is_imported(command):
    done = python("-X", "importtime", *command.split())
    lines = done.stderr.splitlines()
    starts = [line for line in lines if line.startswith("import time:")]
    imported = {line.split("|")[-1].strip() for line in starts}
    assert done.returncode == 2
    assert "error: " in lines[-1]
    assert "Traceback" not in done.stderr
    assert "argparse" in imported
    assert not imported & {"torch", "dassl", "clip", "matplotlib", "scipy", "sklearn"}


# ---- data ----


@pytest.fixture
def textures(tmp_path):
    """The miniature, to be changed: its folder of images, and its split as a file."""
    make_textures(tmp_path)
    return tmp_path / "dtd/images", tmp_path / "dtd/split_zhou_DescribableTextures.json"


def test_images_that_are_missing_and_validation_images_that_are_the_tests_are_named(
    refusal, textures, tmp_path
):
    images, _ = textures
    message = "TEST.FINAL_MODEL best_val needs validation images that are not the test's, "
    for val in ([], change_split(tmp_path)["test"]):
        change_split(tmp_path, val=val)
        assert message in refusal("TEST.FINAL_MODEL", "best_val", root=tmp_path)
    (images / "dotted/03.png").unlink()
    assert "dotted/03.png is missing" in refusal(root=tmp_path)


def test_doubtful_data_are_warned_of(textures, tmp_path, arguments):
    images, path = textures
    split = json.loads(path.read_text())
    split["test"].append(split["train"][0])
    path.write_text(json.dumps(split).replace('"grid"]', '"dotted"]'))
    assert main(arguments("ZeroshotCLIP", "DATASET.NUM_SHOTS", "-1", root=tmp_path)) == 0
    log = (tmp_path / "out/log.txt").read_text()
    assert "these classes are one and the same: 'dotted' = 'dotted'" in log
    assert f"train and test share 1 image, such as {images}/banded/00.png" in log


# ---- what is in a folder already ----


def test_a_folder_that_holds_another_run_is_left_as_it_is(trained, error_of, arguments):
    for other, words, message in (
        ("CoOp", ["OPTIM.MAX_EPOCH", 9, "SEED", 5], "(OPTIM.MAX_EPOCH 3 → 9, SEED 1 → 5): give "),
        ("CoOp", prompts_of("nowhere"), "holds a training, whose record the test would replace"),
        ("CoCoOp", ["RESUME", trained("CoOp")], "prompt_learner belongs to another run (TRAINER"),
    ):
        folder = trained(other)
        before = contents_of(folder, "log.txt")
        assert message in error_of(main, *arguments("CoOp", *words, folder=folder))
        assert contents_of(folder, "log.txt") == before


# ---- other commands ----


def test_a_reader_that_has_enough_ends_a_tool_in_silence(monkeypatch, capfd):
    """As ``| head`` does: what is still to be written, also at the end of the process, has nowhere
    to go."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert exit_code(print, "a line") == 141
        print("another", flush=True)
        monkeypatch.undo()
    assert capfd.readouterr().err == ""


def test_classes_that_swallow_the_images_are_noticed(trained, data_root, error_of, capsys):
    run, image = str(trained("CoOp")), f"{data_root}/dtd/images/grid/00.png"
    names = ("--classes", "cat", "dog")
    for words in ((*names, image), names):
        line = error_of(predict.main, "--run", run, *words)
        assert "before --classes, which takes all words after it" in line
    for words in ((image, *names), (*names, "--", image)):  # the advice
        assert call(predict.main, "--run", run, *words) == 0
        assert image in capsys.readouterr().out
