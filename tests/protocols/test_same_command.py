"""The same command again: a finished run is not repeated, and one trained on other images is
refused."""

import shutil

import pytest
import torch

from tests.runs import contents_of, make_pictures, record_of
from train import main
from trainers.engine.checkpoint import MODEL_NAME, epoch_name


@pytest.fixture
def folder(tmp_path):
    return make_pictures(tmp_path / "mine")


def test_what_was_trained_on_other_images_is_refused(folder, train_on, tmp_path):
    """Whether the training was finished or not."""
    assert train_on(folder)[0] == 0
    more = make_pictures(tmp_path / "more/mine")
    shutil.copy(f"{folder}/ant/0.bmp", f"{more}/ant/new.bmp")
    others = make_pictures(tmp_path / "others/mine", seed=1)
    before = contents_of(tmp_path / "out", "log.txt")
    for images in (more, others):
        assert_refused(train_on, images)
        assert contents_of(tmp_path / "out", "log.txt") == before
    (tmp_path / "out/results.json").unlink()
    assert_refused(train_on, more)


def assert_refused(train_on, images):
    code, _, said = train_on(images)
    line = said.splitlines()[-1]
    assert code == 2
    assert "its images are others: some were added, removed or changed" in line
    assert "give another output folder, or delete that folder" in line


@pytest.mark.parametrize("trainer", ["CoOp", "ZeroshotCLIP"])
def test_a_finished_run_is_done_already_wherever_its_images_lie(
    folder, train_on, tmp_path, trainer
):
    """Where the answers are damaged they are made again, as ``predict.py`` advises."""
    assert train_on(folder, trainer=trainer)[0] == 0
    before = contents_of(tmp_path / "out", "log.txt")
    moved = folder.rename(tmp_path / "moved")
    code, _, said = train_on(moved, trainer=trainer)
    assert code == 0
    assert contents_of(tmp_path / "out", "log.txt") == before
    assert f"Done already: {tmp_path / 'out'}; to train again, delete that folder" in said
    split = "test" if trainer == "ZeroshotCLIP" else "val"  # few: all images are the test's
    answers = tmp_path / f"out/predictions-{split}.npz"
    answers.write_bytes(b"damaged")
    code, _, said = train_on(moved, trainer=trainer)
    assert code == 0
    assert "Evaluate on the *test* set" in said
    assert answers.read_bytes() == before[answers]


def test_a_finished_run_whose_prompts_are_others_now_is_tested_again(copied, arguments):
    folder = copied("CoOp")
    before = record_of(folder)
    assert main(arguments("CoOp", folder=folder)) == 0
    assert record_of(folder) == before, "it is done"
    path = folder / MODEL_NAME / epoch_name(3)
    state = torch.load(path, weights_only=True)
    prompts = {name: value + 1 for name, value in state["state_dict"].items()}
    torch.save({**state, "state_dict": prompts}, path)
    assert main(arguments("CoOp", folder=folder)) == 0
    assert record_of(folder)["prompts_hash"] != before["prompts_hash"]
    assert record_of(folder)["metrics"] != before["metrics"]
