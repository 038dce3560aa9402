"""A record is held against the answers whose hash it has, by all that reads records for tables."""

import copy

import numpy
import pytest
import torch

from report.__main__ import main as report
from results import ablation, check, compare, table
from results.remeasured import contradiction
from results.runs import collect
from tests.results.conftest import make_answers, write_run
from tests.runs import change_record, record_of
from trainers.evaluation.open_world import open_world, signs_of_new
from trainers.evaluation.prediction import Prediction, measure, per_image

CLASSES, TEMPLATES, IMAGES = 6, 3, 60
READERS = [table.main, ablation.main, check.main, report, compare.main]


@pytest.fixture(scope="module")
def measured():
    """Metrics and answers of a run that has everything: votes, evidence, base and new together."""
    generator = torch.Generator().manual_seed(1)
    votes = torch.rand(TEMPLATES, IMAGES, CLASSES, generator=generator).softmax(dim=2)
    doubts = {
        name: torch.rand(IMAGES, generator=generator) for name in ("energy", "vacuity", "conflict")
    }
    evidence = torch.rand(TEMPLATES, IMAGES, generator=generator)
    weight = torch.full((TEMPLATES,), 1 / TEMPLATES)
    answers = Prediction(
        votes.mean(dim=0),
        votes,
        vote_vacuity=evidence,
        vote_weight=weight,
        **doubts,
    )
    label = torch.arange(IMAGES) % CLASSES
    metrics = measure(answers, label, [f"class {k}" for k in range(CLASSES)])
    metrics["open"] = open_world(answers, label, CLASSES // 2)
    arrays = per_image(answers, label, [f"a/{number}.png" for number in range(IMAGES)])
    signs = signs_of_new(answers, CLASSES // 2)
    arrays |= {name: sign.numpy() for name, sign in signs.items()}
    arrays["answer"] = arrays["top"][:, 0]
    return metrics, arrays


def paths_of(metrics, path=()):
    for name, value in metrics.items() if isinstance(metrics, dict) else enumerate(metrics):
        if isinstance(value, (dict, list)):
            yield from paths_of(value, (*path, name))
        else:
            yield *path, name


# what the five most probable classes don't decide
UNKNOWN = ("nll", "brier", "mean_probability_")


def test_every_metric_that_the_answers_decide_is_held_against_them(measured):
    metrics, arrays = measured
    assert contradiction(metrics, arrays, CLASSES) == ""
    held = 0
    for *nodes, leaf in paths_of(metrics):
        changed = copy.deepcopy(metrics)
        node = changed
        for name in nodes:
            node = node[name]
        node[leaf] += 1
        found = contradiction(changed, arrays, CLASSES)
        if str((*nodes, leaf)[0]).startswith(UNKNOWN):
            assert not found
        else:
            assert found, (*nodes, leaf)
            held += 1
    assert held > 25


def test_of_classes_that_are_level_either_may_be_named_first(measured):
    metrics, arrays = measured
    level = {**arrays, "top": arrays["top"].copy()}
    level["top_probability"] = arrays["top_probability"].copy()
    level["top_probability"][:2, 1] = level["top_probability"][:2, 0]
    level["top"][:2, :2] = level["top"][:2, 1::-1]
    level["answer"] = level["top"][:, 0]
    assert contradiction(metrics, level, CLASSES) == ""
    assert contradiction({**metrics, "accuracy": metrics["accuracy"] + 8}, level, CLASSES)


@pytest.fixture
def runs(tmp_path):
    for part, classes in (("train_base", "base"), ("test_new", "new")):
        write_run(tmp_path, part, "CDC", 1, classes, make_answers(1))
    return tmp_path


@pytest.mark.parametrize("command", READERS, ids=lambda command: command.__module__)
def test_a_record_that_says_other_than_its_answers_is_refused_in_one_line(runs, error_of, command):
    folder = runs / "test_new/openmoji/shots_16/CDC/tiny/seed1"
    metrics = record_of(folder)["metrics"]
    metrics["test"]["accuracy"] = 99.0
    change_record(folder, metrics=metrics)
    line = error_of(command, *(("--from",) if command is compare.main else ()), runs)
    assert f"{folder}/results.json tells of test accuracy 99, the answers of " in line
    assert "put the run's own record there again" in line


@pytest.mark.parametrize("left", ["nothing", "another file"])
def test_without_the_runs_own_answers_the_record_alone_counts(runs, left):
    folder = runs / "test_new/openmoji/shots_16/CDC/tiny/seed1"
    change_record(folder, metrics={"test": {"accuracy": 99.0}})
    if left == "nothing":
        (folder / "predictions-test.npz").unlink()
    else:
        numpy.savez(folder / "predictions-test.npz", label=numpy.arange(3))
    assert {run.metrics["accuracy"] for run in collect(folder)} == {99.0}
