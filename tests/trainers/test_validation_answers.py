"""A training keeps what it says of validation images, and no figure of the run knows of it."""

import json

import pytest
import torch

from tests.conftest import in_turn
from tests.runs import make_textures, prompts_of, record_of
from tests.same_run import assert_equal, assert_same_run, kept_answers
from tests.trainers.test_every_trainer import TRAINERS
from trainers.trainer import MethodTrainer


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_it_is_what_a_test_on_val_says(run, trained, name):
    folder = trained(name)[1]
    _, tested, again = run(name, "TEST.SPLIT", "val", flags=prompts_of(folder))
    assert_equal(kept_answers(folder, "val"), kept_answers(again, "val"), "answers")
    assert set(record_of(folder)["metrics"]) == {"test"} and set(tested["metrics"]) == {"val"}


def test_no_figure_of_the_run_knows_of_it(run, trained, monkeypatch):
    """Neither where it is left out nor where answers are asked for before the training."""
    folder = trained("CDC")[1]
    untrained, _, early = run("CDC", flags=("--no-train",), name="early")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        untrained.evaluation.answers(untrained.val_loader, "val")
    untrained.train()
    assert_same_run(folder, early)
    monkeypatch.setattr(MethodTrainer, "keep_validation_answers", lambda self: None)
    _, record, without = run("CDC")
    for key in ("metrics", "prompts_hash"):
        assert record[key] == record_of(folder)[key]
    assert not (without / "predictions-val.npz").exists()


def test_there_is_none_where_val_is_missing_or_the_test_or_nothing_is_tested(run, tmp_path):
    _, record, folder = run("CoOp", "TEST.NO_TEST", "True", name="untested")
    assert not list(folder.glob("predictions-*")) and record["metrics"] == {}
    make_textures(tmp_path)
    path = tmp_path / "dtd/split_zhou_DescribableTextures.json"
    split = json.loads(path.read_text())
    for val in ([], split["test"]):
        path.write_text(json.dumps({**split, "val": val}))
        _, _, folder = run("CoOp", "DATASET.ROOT", str(tmp_path), name=f"val of {len(val)}")
        assert [path.name for path in folder.glob("predictions-*")] == ["predictions-test.npz"]
