"""Which runs there are, and what they are called."""

import json
from pathlib import Path

import pytest

from results.runs import collect, distinct_part, group, training_curve, with_answers
from tests.results.conftest import make_answers, write_curve, write_run


def test_a_run_is_found_by_its_own_folder_and_once_if_given_twice(tmp_path):
    folder = write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1))
    write_run(tmp_path, "test_new", "CDC", 1, "new")
    (run,) = collect(folder)
    assert (run.setting, run.model) == (("openmoji", "base", 16), "CDC tiny")
    assert run.answers["label"].shape == (40,)
    assert len(collect(folder, tmp_path, folder)) == 2
    assert len(with_answers(group(collect(tmp_path)))) == 1


def test_a_model_that_is_there_twice_is_told_apart_by_its_place(tmp_path):
    for place in ("old", "young"):
        write_run(tmp_path / place, "train_base", "CDC", 1, "base")
    write_run(tmp_path / "old", "train_base", "CoOp", 1, "base")
    write_run(tmp_path / "old", "train_all", "CDC", 1, "all")
    write_run(tmp_path / "old", "train_source", "CDC", 1, "all")
    assert [one.name for one in group(collect(tmp_path))] == [
        "CDC tiny (train_all)",
        "CDC tiny (train_source)",
        "CDC tiny (old)",
        "CDC tiny (young)",
        "CoOp tiny",
    ]
    assert distinct_part(Path("/a"), [Path("/a"), Path("/a/b")]) == "a"


def test_runs_made_by_hand_are_called_by_trainer_and_data_and_told_apart_by_folder(tmp_path):
    made = write_run(tmp_path / "made", "train_base", "CDC", 1, "base")
    record = json.loads((made / "results.json").read_text())
    record["config"]["DATASET"] = {"ROOT": "/home/me/my_shapes"}

    def lay(name, seed):
        (tmp_path / f"hand/{name}").mkdir(parents=True)
        content = json.dumps({**record, "dataset": "ImageFolder", "seed": seed})
        (tmp_path / f"hand/{name}/results.json").write_text(content)
        return [(one.name, len(one.runs)) for one in group(collect(tmp_path / "hand"))]

    lay("mine/seed1", 1)
    assert lay("mine/seed2", 2) == [("CDC", 2)]
    assert lay("other", 1) == [("CDC (mine)", 2), ("CDC (other)", 1)]
    (first, *_) = collect(tmp_path / "hand")
    assert first.setting[0] == "my_shapes"


def test_tests_of_other_images_are_settings_of_their_own(tmp_path):
    for part in ("train_biased", "test_independent", "test_reversed", "train_base"):
        write_run(tmp_path, part, "CDC", 1, "base")
    write_run(tmp_path, "test_open", "CDC", 1)
    names = {run.setting[0].removeprefix("openmoji") for run in collect(tmp_path)}
    assert names == {"", " aligned", " independent", " reversed", ", base and new together"}


def test_titles_say_shots_only_where_they_differ(tmp_path):
    def titles(name, *settings):
        for classes, shots in settings:
            part = "train_base" if classes == "base" else "train_all"
            write_run(tmp_path / name, part, "CDC", 1, classes, shots=shots, data="dtd")
        return [one.tested_on for one in group(collect(tmp_path / name))]

    assert titles("alike", ("base", 16), ("all", 16)) == ["dtd", "dtd, base classes"]
    few = titles("unlike", ("all", 1), ("all", 4), ("all", -1))
    assert few == ["dtd, no few-shot sample", "dtd, 1 shot", "dtd, 4 shots"]


def test_training_curves_are_the_epochs_means_and_of_lines_of_an_epoch_the_last_counts(tmp_path):
    (run,) = collect(write_run(tmp_path, "train_base", "CDC", 1, "base"))
    assert training_curve(run) == {}
    write_curve(run.folder, (1, 9.0, 10.0), (1, 8.0, 20.0), (2, 7.0, 30.0))
    with open(f"{run.folder}/metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "epochs": 2, "loss": 77')  # a killed run's last line
    write_curve(run.folder, (2, 6.0, 40.0))
    assert training_curve(run) == {"loss": {1: 8.0, 2: 6.0}, "acc": {1: 20.0, 2: 40.0}}


def test_answers_that_are_missing_are_asked_for_by_name(tmp_path):
    (run,) = collect(write_run(tmp_path, "train_base", "CDC", 1, "base"))
    with pytest.raises(ValueError, match=r"predictions-test\.npz is missing: delete"):
        run.known_answers  # noqa: B018
