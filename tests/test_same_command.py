"""The same command again: a finished run is not repeated, and one trained on other images is refused."""

import json
import shutil

import numpy
import pytest
from PIL import Image

from protocols import training as train
from results.report import page
from tests.conftest import REPOSITORY


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
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype="uint8")).save(
                folder / name / f"{index}.bmp"
            )


@pytest.fixture
def start(small_clip_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "write_figure", lambda *_: "")  # drawing takes longer than the runs

    def start(images, *options, trainer="CoOp"):
        capsys.readouterr()
        code = train.main(
            [
                "--trainer",
                trainer,
                "--images",
                str(images),
                "--backbone",
                small_clip_file,
                "--output-dir",
                str(tmp_path / "out"),
                "--config-file",
                str(REPOSITORY / "tests" / "small.yaml"),
                "OPTIM.MAX_EPOCH",
                "2",
                "TRAIN.CHECKPOINT_FREQ",
                "1",
                "TRAINER.CDC.PROMPT_DEPTH",
                "2",
                *options,
            ]
        )
        said = capsys.readouterr()
        return code, said.out + said.err

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
        shutil.copy(folder / "ant" / "0.bmp", folder / "ant" / "new.bmp")
    elif change == "removed":
        (folder / "bee" / "0.bmp").unlink()
    else:
        make(tmp_path / "elsewhere" / "mine", 1)
        folder = tmp_path / "elsewhere" / "mine"
    for _ in range(2):
        before = files(tmp_path / "out")
        code, said = start(folder)
        assert (
            code == 2
            and "its images are others: some were added, removed or changed, or the folder is another"
            in said.splitlines()[-1]
        )
        assert "give another --output-dir, or delete that folder" in said.splitlines()[-1]
        assert (
            "Resuming" not in said and "=> result" not in said and files(tmp_path / "out") == before
        )
        (tmp_path / "out" / "results.json").unlink(missing_ok=True)


@pytest.mark.parametrize("trainer", ["CoOp", "CDC", "ZeroshotCLIP"])
def test_a_finished_run_is_done_already(folder, start, tmp_path, trainer):
    code, said = start(folder, trainer=trainer)
    assert code == 0, said
    before = files(tmp_path / "out")
    moved = folder.rename(tmp_path / "moved")
    code, said = start(moved, trainer=trainer)
    assert (
        code == 0
        and f"Done already: {tmp_path / 'out'}; to train again, delete that folder" in said
    )
    assert "=> result" not in said and files(tmp_path / "out") == before, (
        "the same images, wherever they lie"
    )
    (tmp_path / "out" / "predictions-val.npz").write_bytes(b"damaged")
    code, said = start(moved, trainer=trainer)
    assert code == 0 and "=> result" in said, "what predict.py advises where they are damaged"
    assert (
        files(tmp_path / "out")[tmp_path / "out" / "predictions-val.npz"]
        == before[tmp_path / "out" / "predictions-val.npz"]
    )
    shutil.rmtree(tmp_path / "out")
    assert "Done already" not in start(moved, trainer=trainer)[1]


def test_an_image_that_was_added_changes_what_a_test_without_training_says(folder, start, tmp_path):
    start(folder, trainer="ZeroshotCLIP")
    make(folder, 0, count=20)
    code, said = start(folder, trainer="ZeroshotCLIP")
    assert code == 0 and "Done already" not in said
    assert (
        json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["test"]["images"]
        == 12
    )
