"""The same command again: a finished run is not repeated, and one trained on other images is refused."""

import json
import shutil

import numpy
import pytest
from PIL import Image

from protocols import training as train
from results.report import page
from tests.runs import base_arguments, call


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten pictures of one size: from other seeds files of the same names and sizes."""
    make(tmp_path / "mine", 0)
    return tmp_path / "mine"


def make(folder, seed, count=10):
    generator = numpy.random.default_rng(seed)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype="uint8")
            Image.fromarray(pixels).save(f"{folder}/{name}/{index}.bmp")


@pytest.fixture
def start(small_clip_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "write_figure", lambda *_: "")  # drawing takes longer than the runs

    def start(images, trainer="CoOp"):
        capsys.readouterr()
        arguments = base_arguments(trainer, "", small_clip_file, tmp_path / "out")
        at = arguments.index("--dataset-config-file")
        arguments[at : at + 2] = "--images", str(images)
        epochs = ("OPTIM.MAX_EPOCH", "2", "TRAIN.CHECKPOINT_FREQ", "1")
        code = call(train.main, *arguments, *epochs)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return start


def files(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"
    }


@pytest.mark.parametrize("change", ["added", "removed", "other folder"])
def test_what_was_trained_on_other_images_is_refused(folder, start, tmp_path, change):
    """Whether the training was finished or not."""
    assert start(folder)[0] == 0
    if change == "added":
        shutil.copy(f"{folder}/ant/0.bmp", f"{folder}/ant/new.bmp")
    elif change == "removed":
        (folder / "bee/0.bmp").unlink()
    else:
        make(tmp_path / "elsewhere/mine", 1)
        folder = tmp_path / "elsewhere/mine"
    for _ in range(2):
        before = files(tmp_path / "out")
        code, said = start(folder)
        line = said.splitlines()[-1]
        assert code == 2 and "its images are others: some were added, removed or changed" in line
        assert "give another --output-dir, or delete that folder" in line
        assert files(tmp_path / "out") == before
        (tmp_path / "out/results.json").unlink(missing_ok=True)


@pytest.mark.parametrize("trainer", ["CDC", "ZeroshotCLIP"])
def test_a_finished_run_is_done_already_wherever_its_images_lie(folder, start, tmp_path, trainer):
    """Where the answers are damaged they are made again, as ``predict.py`` advises."""
    assert start(folder, trainer)[0] == 0
    before = files(tmp_path / "out")
    moved = folder.rename(tmp_path / "moved")
    code, said = start(moved, trainer)
    assert code == 0 and files(tmp_path / "out") == before
    assert f"Done already: {tmp_path / 'out'}; to train again, delete that folder" in said
    answers = tmp_path / "out/predictions-val.npz"
    answers.write_bytes(b"damaged")
    code, said = start(moved, trainer)
    assert code == 0 and "=> result" in said and answers.read_bytes() == before[answers]
    shutil.rmtree(f"{tmp_path}/out")
    assert "Done already" not in start(moved, trainer)[1]


def test_an_image_that_was_added_changes_what_a_test_without_training_says(folder, start, tmp_path):
    start(folder, "ZeroshotCLIP")
    make(folder, 0, count=20)
    code, said = start(folder, "ZeroshotCLIP")
    assert code == 0 and "Done already" not in said
    record = json.loads((tmp_path / "out/results.json").read_text())
    assert record["metrics"]["test"]["images"] == 12
