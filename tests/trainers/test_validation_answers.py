"""A training keeps what it says of validation images, and no figure of the run knows of it."""

import json

import numpy
import pytest
import torch

from tests.conftest import in_turn, make_textures
from tests.trainers.test_every_trainer import TRAINERS, record_of, weights
from trainers.trainer import MethodTrainer


def kept(folder, split):
    with numpy.load(folder / f"predictions-{split}.npz", allow_pickle=False) as found:
        return dict(found)


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_it_is_what_a_test_on_val_says(run, trained, name):
    trainer, folder = trained(name)
    record = record_of(folder)
    _, tested, again = run(
        name, "TEST.SPLIT", "val", flags=("--eval-only", "--model-dir", str(folder))
    )
    ours, expected = kept(folder, "val"), kept(again, "val")
    assert ours.keys() == expected.keys() and all(
        numpy.array_equal(value, expected[key]) for key, value in ours.items()
    )
    assert set(record["metrics"]) == {"test"} and set(tested["metrics"]) == {"val"}
    assert record["classnames"] == trainer.model.classnames


def test_answers_leave_nothing_to_the_training_after_them(run, trained):
    trainer, _, _ = run("CDC", flags=("--no-train",))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        trainer.evaluation.answers(trainer.val_loader, "val")
    trainer.train()
    known = weights(trained("CDC")[0])
    assert all(torch.equal(value, known[key]) for key, value in weights(trainer).items())


@pytest.mark.parametrize("name", ["CDC", "ZeroshotCLIP"])
def test_no_figure_of_the_run_knows_of_it(run, trained, name, monkeypatch):
    trainer, folder = trained(name)
    record = record_of(folder)
    monkeypatch.setattr(MethodTrainer, "keep_validation_answers", lambda self: None)
    other, expected, without = run(name)
    assert (
        record["metrics"] == expected["metrics"]
        and record["prompts_hash"] == expected["prompts_hash"]
    )
    assert not (without / "predictions-val.npz").exists()
    results = [
        [line for line in (place / "log.txt").read_text().splitlines() if line.startswith("* ")]
        for place in (folder, without)
    ]
    assert results[0] == results[1]  # what CoOp's parse_test_res.py reads
    if name == "CDC":
        assert all(
            torch.equal(value, weights(other)[key]) for key, value in weights(trainer).items()
        )


def test_it_is_the_best_epochs_where_that_is_deployed(trained):
    folder = trained(
        "CoOp", "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "4", "OPTIM.LR", "2.0"
    )[1]
    best = torch.load(folder / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    found = kept(folder, "val")
    assert best["epoch"] < 4, "for this test to mean anything"
    assert 100 * (found["top"][:, 0] == found["label"]).mean() == pytest.approx(best["val_result"])


def test_there_is_none_where_val_is_missing_or_the_test_or_nothing_is_tested(
    run, data_root, tmp_path
):
    _, _, folder = run("CoOp", "TEST.NO_TEST", "True", name="untested")
    assert not list(folder.glob("predictions-*"))
    make_textures(tmp_path)
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    split = json.loads(path.read_text())
    for val in ([], split["test"]):
        path.write_text(json.dumps({**split, "val": val}))
        _, _, folder = run("CoOp", "DATASET.ROOT", str(tmp_path), name=f"val of {len(val)}")
        assert [path.name for path in folder.glob("predictions-*")] == ["predictions-test.npz"]


def test_repeating_a_finished_trainings_command_writes_it_again(run):
    _, record, folder = run("CoOp")
    expected = kept(folder, "val")
    (folder / "predictions-val.npz").unlink()
    _, again, _ = run("CoOp")
    assert all(
        numpy.array_equal(value, expected[key]) for key, value in kept(folder, "val").items()
    )
    assert again["metrics"] == record["metrics"]
