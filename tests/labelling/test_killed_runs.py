"""A run of either task that was killed goes on to the same numbers, wherever it was."""

from types import SimpleNamespace

import numpy
import pytest

from labelling import encode
from tests.labelling.cases import SMALL_BATCHES, by_turns, over_tasks, train
from tests.runs import record_of
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator

BLOCK = SMALL_BATCHES[1]


def die(*_, **__):
    raise KeyboardInterrupt


def die_at_a_block(patch):
    write_block = encode.write_block

    def written(place, *arrays):
        if f"{1:09d}" in place:
            die()
        write_block(place, *arrays)

    patch.setattr(encode, "write_block", written)


def die_in_training(patch):
    patch.setattr("labelling.fit.cross_fit", die)


def die_before_the_test(patch):
    patch.setattr(Run, "end_without_epochs", die)


def die_in_the_test(patch):
    patch.setattr(Evaluator, "measure", die)


def die_before_the_record(patch):
    patch.setattr(Evaluator, "write_record", die)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(encode, "PICTURES_PER_BLOCK", BLOCK)


# how a run is killed, and how many of its three blocks are encoded afterwards
KILLS = {
    "at a block": (die_at_a_block, 2),
    "in training": (die_in_training, 0),
    "before the test": (die_before_the_test, 0),
    "in the test": (die_in_the_test, 0),
    "before the record": (die_before_the_record, 0),
}


@by_turns("kill_and_blocks", KILLS)
def test_a_killed_run_goes_on_to_the_same_numbers(
    task, kill_and_blocks, run_of, pictures_of, small_clip_file, tmp_path, monkeypatch, small_blocks
):
    """And encodes no picture of a finished block again."""
    kill, blocks = kill_and_blocks
    command = task, pictures_of(task) / "labels.csv", tmp_path / "run", small_clip_file
    with monkeypatch.context() as patch:
        kill(patch)
        assert train(*command, settings=SMALL_BATCHES) == 130
    assert not (tmp_path / "run/results.json").exists()
    made = []
    write_block = encode.write_block

    def noted(place, images, contents, key):
        made.append(len(contents))
        write_block(place, images, contents, key)

    monkeypatch.setattr(encode, "write_block", noted)
    assert train(*command, settings=SMALL_BATCHES) == 0
    assert made == [BLOCK] * blocks
    whole = run_of(task, settings=SMALL_BATCHES)
    for name in ("metrics", "prompts_hash", "answers"):
        assert record_of(tmp_path / "run")[name] == record_of(whole)[name]


@over_tasks
def test_blocks_of_other_pictures_or_settings_and_damaged_ones_are_made_again(
    task, run_of, pictures_of, small_clip_file, tmp_path, monkeypatch, small_blocks
):
    """What features follow from is in each block's key; a damaged block is as good as none."""
    command = task, pictures_of(task) / "labels.csv", tmp_path / "run", small_clip_file
    with monkeypatch.context() as patch:
        die_in_training(patch)
        assert train(*command, settings=SMALL_BATCHES) == 130
    folder = tmp_path / "run/features"
    (folder / "seen.npz").write_bytes(b"damaged")
    blocks = sorted(folder.glob("0*.npz"))
    assert len(blocks) == 3
    with numpy.load(blocks[1]) as block:
        arrays = dict(block)
    numpy.savez(blocks[1], **{**arrays, "features": arrays["features"] * 0, "key": "another"})
    blocks[2].write_bytes(b"damaged")
    with numpy.load(blocks[0]) as block:
        known = {**block, "content": numpy.roll(block["content"], 1)[:5]}
    numpy.savez(blocks[0].with_name("000000007.npz"), **known)  # of more pictures than it names
    assert train(*command, settings=SMALL_BATCHES) == 0
    whole = run_of(task, settings=SMALL_BATCHES)
    assert record_of(tmp_path / "run")["prompts_hash"] == record_of(whole)["prompts_hash"]


@pytest.fixture
def key_with():
    """``key_with(**changes)``: the key of features of a made-up run."""

    def key(backbone_hash="b", precision="fp32", shown="input"):
        towers = SimpleNamespace(backbone_hash=backbone_hash, precision=precision)
        method = SimpleNamespace(towers=towers)
        return encode.key_of(SimpleNamespace(method=method, cfg=SimpleNamespace(INPUT=shown)))

    return key


@pytest.mark.parametrize("what", ["backbone_hash", "precision", "shown"])
def test_features_follow_from_clip_precision_and_how_pictures_are_shown(key_with, what):
    assert key_with() == key_with()
    assert key_with(**{what: "other"}) != key_with()
