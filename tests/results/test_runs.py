"""Which runs there are, and what they are called."""

import json

import pytest

from results.runs import collect, group, training_curve, with_answers
from tests.conftest import GOLDEN
from tests.results.conftest import make_answers, write_curve, write_run
from tests.runs import make_record
from trainers.common.metrics import start_metrics


def test_a_run_is_found_by_its_own_folder_and_once_if_given_twice(tmp_path):
    folder = write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1))
    write_run(tmp_path, "test_new", "CDC", 1, "new")
    (run,) = collect(folder)
    assert (run.task, run.model) == (("openmoji", "base", 16), "CDC tiny")
    assert len(collect(folder, tmp_path, folder)) == 2
    assert len(with_answers(group(collect(tmp_path)))) == 1


@pytest.mark.parametrize("runs, attribute, expected", GOLDEN["tables"]["names"])
def test_what_is_there_twice_is_told_apart_by_its_place_images_or_shots(
    tmp_path, runs, attribute, expected
):
    for place, part, trainer, facts in runs:
        write_run(tmp_path / place, part, trainer, 1, **facts)
    assert [getattr(one, attribute) for one in group(collect(tmp_path))] == expected


def test_runs_made_by_hand_are_called_by_trainer_and_data_and_told_apart_by_folder(tmp_path):
    config = {"DATASET": {"ROOT": "/home/me/my_shapes"}, "MODEL": {"BACKBONE": {"NAME": "tiny"}}}
    for name, seed in (("mine/seed1", 1), ("mine/seed2", 2), ("other", 1)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        record = make_record(trainer="CDC", dataset="ImageFolder", seed=seed, config=config)
        (folder / "results.json").write_text(json.dumps(record))
    found = {one.name: len(one.runs) for one in group(collect(tmp_path))}
    assert found == {"CDC (mine)": 2, "CDC (other)": 1}
    assert [one.name for one in group(collect(tmp_path / "mine"))] == ["CDC"]
    assert collect(tmp_path / "other")[0].task[0] == "my_shapes"


def test_training_curves_are_the_epochs_means_and_of_lines_of_an_epoch_the_last_counts(tmp_path):
    (run,) = collect(write_run(tmp_path, "train_base", "CDC", 1, "base"))
    assert training_curve(run) == {}
    write_curve(run.folder, (1, 9.0, 10.0), (1, 8.0, 20.0), (2, 7.0, 30.0))
    with open(f"{run.folder}/metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "epochs": 2, "loss": 77')  # a killed run's last line
    start_metrics(run.folder, is_resumed=True)
    write_curve(run.folder, (2, 6.0, 40.0))
    assert training_curve(run) == {"loss": {1: 8.0, 2: 6.0}, "acc": {1: 20.0, 2: 40.0}}
