"""A saved run of either task is what its training left, or it is refused and made again."""

import re
import shutil

import pytest

import predict
from labelling import PromptedClassifier
from tests.labelling.cases import NAMES, by_turns, over_tasks, train
from tests.runs import change_record, contents_of, record_of, refuses


def permute_names(folder, _):
    change_record(folder, classnames=[*reversed(NAMES)])


def change_pixels(folder, _):
    config = record_of(folder)["config"]
    config["INPUT"]["PIXEL_MEAN"] = [0.5, 0.5, 0.5]
    change_record(folder, config=config)


def take_others_prompts(folder, other):
    shutil.rmtree(folder / "prompt_learner")
    shutil.copytree(other / "prompt_learner", folder / "prompt_learner")


def delete_prompts(folder, _):
    shutil.rmtree(folder / "prompt_learner")


def claim_another_hash(folder, _):
    change_record(folder, prompts_hash="of another training with the same settings")


@over_tasks
@pytest.mark.parametrize(
    "edit, message",
    [
        (permute_names, "was trained on other classes, or in another order, than .*results.json"),
        (change_pixels, "was trained with other settings than .*INPUT.PIXEL_MEAN"),
        (take_others_prompts, "was trained with other settings than .*SEED 2 → 1"),
        (delete_prompts, "holds no prompts: it tested those of another run, give the folder"),
        (claim_another_hash, "holds other prompts than those that .*results.json tells of"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_edited_run_labels_nothing(task, edit, message, own_run, run_of, pictures_of, error_of):
    folder = own_run(task)
    edit(folder, run_of(task, "--seed", 2))
    with refuses(message):
        PromptedClassifier.load(folder)
    picture = pictures_of(task) / "7.png"
    assert re.search(message, error_of(predict.main, "--run", folder, picture))


EDITS = (permute_names, change_pixels, delete_prompts, claim_another_hash)


@by_turns("edit", {edit.__name__: edit for edit in EDITS})
def test_the_command_of_an_edited_run_makes_it_again(
    task, edit, own_run, run_of, pictures_of, small_clip_file, capsys
):
    """And never says that it is done, or that it labels images, until it does."""
    folder = own_run(task)
    edit(folder, None)
    capsys.readouterr()
    assert train(task, pictures_of(task) / "labels.csv", folder, small_clip_file) == 0
    assert "Done already" not in "".join(capsys.readouterr())
    for key in ("classnames", "metrics", "prompts_hash"):
        assert record_of(folder)[key] == record_of(run_of(task))[key]
    PromptedClassifier.load(folder)


@over_tasks
def test_a_run_that_is_done_is_found_done_and_encodes_nothing(
    task, own_run, pictures_of, small_clip_file, capsys, monkeypatch
):
    folder = own_run(task)
    before = contents_of(folder, left_out="log.txt")
    capsys.readouterr()
    monkeypatch.setattr("labelling.encode.encode", None)
    assert train(task, pictures_of(task) / "labels.csv", folder, small_clip_file) == 0
    assert "Done already" in "".join(capsys.readouterr())
    assert contents_of(folder, left_out="log.txt") == before
