"""The same command again: a finished run is not repeated, and one trained on other images is
refused."""

import shutil

import pytest

from tests.runs import contents_of, make_pictures


@pytest.fixture
def folder(tmp_path):
    return make_pictures(tmp_path / "mine")


@pytest.mark.parametrize("change", ["added", "other folder"])
def test_what_was_trained_on_other_images_is_refused(folder, train_on, tmp_path, change):
    """Whether the training was finished or not."""
    assert train_on(folder)[0] == 0
    if change == "added":
        shutil.copy(f"{folder}/ant/0.bmp", f"{folder}/ant/new.bmp")
    else:
        make_pictures(tmp_path / "elsewhere/mine", 1)
        folder = tmp_path / "elsewhere/mine"
    for _ in range(2):
        before = contents_of(tmp_path / "out", "log.txt")
        code, _, said = train_on(folder)
        line = said.splitlines()[-1]
        assert code == 2
        assert "its images are others: some were added, removed or changed" in line
        assert "give another output folder, or delete that folder" in line
        assert contents_of(tmp_path / "out", "log.txt") == before
        (tmp_path / "out/results.json").unlink(missing_ok=True)


@pytest.mark.parametrize("trainer", ["CDC", "ZeroshotCLIP"])
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
