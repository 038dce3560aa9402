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
from tests.conftest import GOLDEN
from tests.runs import (
    REPOSITORY,
    call,
    change_split,
    contents_of,
    make_textures,
    prompts_of,
    python,
    record_of,
    refuses,
)
from train import main
from trainers import METHODS
from trainers.common.errors import UserError, exit_code
from trainers.data.class_folders import read_classnames

MESSAGES = GOLDEN["messages"]


# ---- settings ----


@pytest.fixture
def line_of(tmp_path, small_clip_file):
    """The line that ``messages.yaml`` has for a command: ``line_of(section, words)``."""
    names = {"TMP": str(tmp_path), "HERE": tmp_path.name, "REPO": str(REPOSITORY)}
    names |= {"WEIGHTS": small_clip_file, "EVALUATORS": str(EVALUATOR_REGISTRY.registered_names())}
    names["METHODS"] = ", ".join(sorted(METHODS))
    # the tests' own among them
    names["REGISTERED"] = ", ".join(sorted({*METHODS, *TRAINER_REGISTRY.registered_names()}))

    def line(section, words):
        pattern = re.compile(rf"\b({'|'.join(names)})\b")
        return "error: " + pattern.sub(lambda name: names[name[0]], MESSAGES[section][words])

    return line


@pytest.mark.parametrize("words", MESSAGES["after a command"])
def test_a_setting_that_cannot_work(refusal, line_of, words):
    assert refusal(*shlex.split(words)) == line_of("after a command", words)
    assert "--resume" in words or not refusal.output.exists()


@pytest.mark.parametrize("words", MESSAGES["alone"])
def test_a_command_that_cannot_work(tmp_path, line_of, monkeypatch, error_of, words):
    monkeypatch.chdir(tmp_path)
    assert error_of(main, *shlex.split(words)) == line_of("alone", words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content, message",
    [
        ("OPTIM:\n  LEARNING_RATE: 1\n", "unknown config key OPTIM.LEARNING_RATE"),
        (
            "DATASET:\n  NAME: OxfordPet\n",
            "unknown data set 'OxfordPet' (did you mean OxfordPets?)",
        ),
        ("- OPTIM\n", "file.yaml: it must hold lines KEY: value"),
    ],
)
def test_what_is_wrong_with_a_config_file_is_named(refusal, tmp_path, content, message):
    (tmp_path / "file.yaml").write_text(content)
    assert message in refusal("--dataset-config-file", f"{tmp_path}/file.yaml")


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
        "demo_app.py --wrong",
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


def test_a_missing_image_and_a_missing_split_are_named(refusal, textures, tmp_path):
    images, split = textures
    (images / "dotted/03.png").unlink()
    assert "dotted/03.png is missing" in refusal(root=tmp_path)
    split.unlink()
    assert f"{split.name} can't be read (FileNotFoundError" in refusal(root=tmp_path)


@pytest.mark.parametrize("val", [[], None])
def test_best_val_needs_validation_images_of_its_own(refusal, textures, tmp_path, val):
    test = change_split(tmp_path, val=val)["test"]
    if val is None:
        change_split(tmp_path, val=test)
    message = "TEST.FINAL_MODEL best_val needs validation images that are not the test's, "
    assert message in refusal("TEST.FINAL_MODEL", "best_val", root=tmp_path)


def test_class_names_are_read_as_utf_8_and_refused_in_another_encoding(tmp_path):
    path = tmp_path / "classnames.txt"
    path.write_text("a Kühe\nb Pferde\n", encoding="latin-1")
    with refuses("classnames.txt can't be read .ValueError: it is not UTF-8 .*: save it as UTF-8"):
        read_classnames(path)
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("a Kühe\nb Pferde\n", encoding=encoding)
        assert read_classnames(path) == {"a": "Kühe", "b": "Pferde"}


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


def test_a_folder_that_holds_another_run_is_not_continued(trained, error_of, arguments):
    folder = trained("CoOp")
    before = contents_of(folder, "log.txt")
    changed = "OPTIM.MAX_EPOCH 9 SEED 5".split()
    error = error_of(main, *arguments("CoOp", *changed, folder=folder))
    assert "OPTIM.MAX_EPOCH 3 → 9, SEED 1 → 5" in error
    assert "give another output folder" in error
    assert contents_of(folder, "log.txt") == before


def test_a_refused_test_leaves_the_record_of_the_finished_one(run, trained, arguments):
    _, record, folder = run("CoOp", flags=prompts_of(trained("CoOp")))
    assert main(arguments("CoOp", *prompts_of("nowhere"))) == 2
    assert record_of(folder) == record


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


@pytest.mark.parametrize("words", MESSAGES["predict"])
def test_what_predict_cannot_be_asked_for(trained, line_of, error_of, words):
    line = error_of(predict.main, "--run", trained("CoOp"), *shlex.split(words))
    assert line == line_of("predict", words)


def test_classes_that_swallow_the_images_are_noticed(trained, data_root, error_of, capsys):
    run, image = str(trained("CoOp")), f"{data_root}/dtd/images/grid/00.png"
    names = ("--classes", "cat", "dog")
    for words in ((*names, image), names):
        line = error_of(predict.main, "--run", run, *words)
        assert "before --classes, which takes all words after it" in line
    for words in ((image, *names), (*names, "--", image)):  # the advice
        assert call(predict.main, "--run", run, *words) == 0
        assert image in capsys.readouterr().out
