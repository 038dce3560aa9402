"""What people get wrong: one line, exit code 2, and advice that works when it is followed."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

import predict
from datasets.imagenet import read_classnames
from protocols import training as train
from results.report import __main__ as report
from tests.conftest import REPOSITORY, base_arguments
from tests.datasets.miniatures import image_folder
from tests.datasets.test_every_dataset import build
from trainers.common.errors import UserError, exit_code
from trainers.common.files import write_text
from trainers.engine import checkpoint


@pytest.mark.parametrize(
    "encoding, expected",
    [("utf-8-sig", None), ("latin-1", "it is not UTF-8"), ("utf-16", "it is not UTF-8")],
)
def test_class_names_in_any_encoding_are_read_or_refused(tmp_path, encoding, expected):
    path = tmp_path / "classnames.txt"
    path.write_text("a Kühe\nb Pferde\n", encoding=encoding)
    if expected is None:
        assert read_classnames(str(path)) == {"a": "Kühe", "b": "Pferde"}
        return
    with pytest.raises(
        UserError, match=f"classnames.txt can't be read: {expected} .*: save it as UTF-8"
    ):
        read_classnames(str(path))
    path.write_text(path.read_text(encoding=encoding), encoding="utf-8")  # the advice
    assert read_classnames(str(path)) == {"a": "Kühe", "b": "Pferde"}


@pytest.mark.parametrize(
    "more, message",
    [
        (("OPTIM.LR", "-0.1"), "OPTIM.LR is -0.1, it must be above 0"),
        (("OPTIM.WEIGHT_DECAY", "-1.0"), "OPTIM.WEIGHT_DECAY is -1.0, it must not be negative"),
        (("OPTIM.MOMENTUM", "-0.9"), "OPTIM.MOMENTUM is -0.9, it must not be negative"),
        (
            ("OPTIM.NAME", "adam", "OPTIM.ADAM_BETA1", "7.0"),
            "OPTIM.ADAM_BETA1 is 7.0, it must be at most 1",
        ),
        (("TRAIN.PRINT_FREQ", "0"), "TRAIN.PRINT_FREQ is 0, it must be at least 1"),
        (("INPUT.GB_K", "4"), "INPUT.GB_K is 4, a blur takes an odd number of pixels: give 5"),
        (
            ("DATASET.NUM_SHOTS", str(2**64)),
            "DATASET.NUM_SHOTS is 18446744073709551616, it takes a whole number of at most 64 bits",
        ),
        (("OPTIM.LR", "1" + "0" * 400), "OPTIM.LR"),
        (("--seed", str(2**32)), "--seed is 4294967296, it must be below 4294967296"),
        (("--trainer", ""), "no trainer is given: give --trainer; known: CDC, "),
        (
            ("INPUT.BACKGROUND", "whit"),
            "INPUT.BACKGROUND is 'whit', it takes a colour such as white",
        ),
    ],
)
def test_a_setting_that_cannot_work(refusal, more, message):
    assert message in (
        refusal(replace={more[0]: more[1]})
        if more[0] in ("--seed", "--trainer")
        else refusal(*more)
    )
    assert not refusal.output.exists()


def test_an_output_that_is_a_folder_or_a_pipe_is_refused_and_stays(tmp_path, capsys):
    from tests.results.conftest import make_answers, write_run

    write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(1, templates=2))
    (tmp_path / "there").mkdir()
    assert report.main([str(tmp_path / "runs"), "--output", str(tmp_path / "there")]) == 2
    assert (
        f"error: --output {tmp_path / 'there'} is a folder, it must be a file: give another"
        in capsys.readouterr().err
    )
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is not a regular file"):
        write_text(str(tmp_path / "pipe"), "text")
    assert (tmp_path / "pipe").is_fifo()


def test_a_reader_that_has_enough_ends_a_tool_in_silence(monkeypatch, capfd):
    """As ``| head`` does: what is still to be written, also at the end of the process, has nowhere to go."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert exit_code(print, "a line") == 141
        print("another", flush=True)
        monkeypatch.undo()
    assert capfd.readouterr().err == ""


def test_classes_that_swallow_the_images_are_noticed(trained, data_root, capsys, monkeypatch):
    run, image = str(trained("CoOp")[1]), f"{data_root}/dtd/images/grid/00.png"

    def refused(*arguments):
        capsys.readouterr()
        assert predict.main(["--run", run, *arguments]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    for arguments in (
        ("--classes", "cat", "dog", image),
        (image, "--classes", "cat", "dog", image),
    ):
        assert (
            f"error: --classes takes all words after it as names, {image} too: give the images before it, or after --"
            in refused(*arguments)
        )
    assert "error: there is no image to label: give files" in refused("--classes", "cat", "dog")
    for arguments in (
        (image, "--classes", "cat", "dog"),
        ("--classes", "cat", "dog", "--", image),
    ):  # the advice
        assert predict.main(["--run", run, *arguments]) == 0 and image in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, value",
    [
        ("classnames", 7),
        ("classnames", [1, 2]),
        ("epoch", "three"),
        ("config", []),
        ("trainer", None),
        ("state_dict", {"ctx": "text"}),
        ("backbone_hash", 1),
    ],
)
def test_a_whole_checkpoint_of_wrong_kinds_is_refused(trained, tmp_path, key, value):
    path = tmp_path / "model.pth.tar-3"
    torch.save(
        {
            **torch.load(trained("CoOp")[1] / "prompt_learner" / path.name, weights_only=True),
            key: value,
        },
        path,
    )
    with pytest.raises(UserError, match="model.pth.tar-3 was not written by this toolbox"):
        checkpoint.load(str(path))


@pytest.mark.parametrize(
    "key", ["optimizer", "scheduler", "rng", "training_state", "train_seconds"]
)
def test_a_training_is_not_resumed_from_wrong_kinds_and_the_advice_works(
    trained, data_root, small_clip_file, tmp_path, capsys, key
):
    folder = tmp_path / "out"
    shutil.copytree(trained("CoOp")[1], folder)
    (folder / "results.json").unlink()
    path = folder / "prompt_learner" / "model.pth.tar-3"
    torch.save(
        {
            **torch.load(path, weights_only=True),
            key: {"x": "y"} if key in ("optimizer", "scheduler") else [1],
        },
        path,
    )
    arguments = base_arguments("CoOp", data_root, small_clip_file, folder)
    if key == "training_state":  # CoOp's has nothing
        assert train.main(arguments) == 0
        return
    assert train.main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        "model.pth.tar-3 cannot be resumed (" in line
        and f"delete {folder}/prompt_learner to start over" in line
    )
    shutil.rmtree(folder / "prompt_learner")
    assert train.main(arguments) == 0


def test_doubtful_data_are_warned_of(tmp_path, data_root, small_clip_file, capsys):
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    path = root / "dtd" / "split_zhou_DescribableTextures.json"
    split = json.loads(path.read_text())
    split["test"].append(split["train"][0])
    path.write_text(json.dumps(split).replace('"grid"]', '"dotted"]'))
    assert (
        train.main(
            [
                *base_arguments("ZeroshotCLIP", str(root), small_clip_file, tmp_path / "out"),
                "DATASET.NUM_SHOTS",
                "-1",
            ]
        )
        == 0
    )
    said = (tmp_path / "out" / "log.txt").read_text()
    assert (
        "several classes have the name dotted; CLIP, which reads names, can't tell them apart"
        in said
    )
    assert f"1 images are in train and test, such as {root}/dtd/images/banded/00.png" in said


def test_copies_of_training_images_in_the_test_are_counted(tmp_path, caplog):
    image_folder(tmp_path)  # all its pictures are the same
    build("ImageFolder", tmp_path)
    assert "9 test images are copies of training images, such as " in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        "train.py --seed one",
        "run.py --wrong",
        "train.py --trainer CDD",
        "train.py --trainer CDC --images /nope",
        "predict.py --wrong",
        "demo_app.py --wrong",
        "-m results.table --wrong",
        "-m results.check --wrong",
        "-m results.report --wrong",
        "-m analysis.factors --wrong",
        "-m analysis.templates --wrong",
        "-m analysis.uncertainty --wrong",
    ],
)
def test_a_wrong_argument_is_answered_before_what_takes_seconds_is_imported(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    imported = {
        line.split("|")[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert (
        done.returncode == 2
        and "error: " in done.stderr.splitlines()[-1]
        and "argparse" in imported
    )
    assert not imported & {"torch", "dassl", "clip", "matplotlib", "scipy", "sklearn"}
