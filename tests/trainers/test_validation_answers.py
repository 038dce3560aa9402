"""A training keeps what it says of validation images, and no figure of the run knows of it."""

from tests.conftest import FEW, TRAINERS, slow_but_for
from tests.runs import change_split, make_textures, prompts_of, record_of
from tests.same_run import assert_equal, kept_answers
from trainers.engine.run import Run


@slow_but_for(FEW, TRAINERS)
def test_it_is_what_a_test_on_val_says(run, trained, name):
    folder = trained(name)
    _, tested, again = run(name, "TEST.SPLIT", "val", flags=prompts_of(folder))
    assert_equal(kept_answers(folder, "val"), kept_answers(again, "val"), "answers")
    assert set(record_of(folder)["metrics"]) == {"test"}
    assert set(tested["metrics"]) == {"val"}


def test_no_figure_of_the_run_knows_of_it(run, trained, monkeypatch):
    known = record_of(trained("CDC"))
    monkeypatch.setattr(Run, "keep_validation_answers", lambda self: None)
    _, record, without = run("CDC")
    assert record["metrics"] == known["metrics"]
    assert record["prompts_hash"] == known["prompts_hash"]
    assert not (without / "predictions-val.npz").exists()


def test_there_is_none_where_val_is_missing_or_the_test_or_nothing_is_tested(run, tmp_path):
    _, record, folder = run("CoOp", "TEST.NO_TEST", "True", name="untested")
    assert not list(folder.glob("predictions-*"))
    assert record["metrics"] == {}
    make_textures(tmp_path)
    for val in ([], change_split(tmp_path)["test"]):
        change_split(tmp_path, val=val)
        _, _, folder = run("CoOp", "DATASET.ROOT", str(tmp_path), name=f"val of {len(val)}")
        assert [path.name for path in folder.glob("predictions-*")] == ["predictions-test.npz"]
