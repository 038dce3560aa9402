"""A record is held against the answers whose hash it has, by all that reads records for tables."""

import copy
import functools

import numpy
import pytest
import torch

from report.__main__ import main as report
from results import ablation, check, compare, table
from results.remeasured import contradiction
from results.runs import collect
from tests.results.conftest import (
    make_answers,
    make_label_answers,
    measured_labels,
    write_labels,
    write_run,
)
from tests.runs import change_record, record_of, refuses, write_answers
from trainers.evaluation.open_world import open_world, signs_of_new
from trainers.evaluation.prediction import Prediction, measure, per_image

LABEL_METRICS = ("positives", "average_precision", "f1", "ece", "threshold")
CLASSES, TEMPLATES, IMAGES = 6, 3, 60
READERS = [table.main, ablation.main, check.main, report, compare.main]


ONE_LABEL, MULTI_LABEL = "one label", "multi-label"
NAMES = [f"class {k}" for k in range(CLASSES)]
KINDS = [ONE_LABEL, MULTI_LABEL, "multi-label, held out", "multi-label, ranked"]


def one_label():
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
    metrics = measure(answers, label, NAMES)
    metrics["open"] = open_world(answers, label, CLASSES // 2)
    arrays = per_image(answers, label, [f"a/{number}.png" for number in range(IMAGES)])
    signs = signs_of_new(answers, CLASSES // 2)
    arrays |= {name: sign.numpy() for name, sign in signs.items()}
    arrays["answer"] = arrays["top"][:, 0]
    return metrics, arrays


@functools.cache
def metrics_and_answers(kind):
    if kind == ONE_LABEL:
        return one_label()
    folds = 1 if kind == "multi-label, held out" else 5
    gives = kind != "multi-label, ranked"
    arrays = make_label_answers(1, IMAGES, CLASSES, folds, gives)
    return measured_labels(arrays, NAMES), arrays


def contradicted(kind, metrics, arrays):
    return contradiction(metrics, arrays, NAMES, kind != ONE_LABEL)


def paths_of(metrics, path=()):
    for name, value in metrics.items() if isinstance(metrics, dict) else enumerate(metrics):
        if isinstance(value, (dict, list)):
            yield from paths_of(value, (*path, name))
        else:
            yield *path, name


# what the five most probable classes don't decide
UNKNOWN = ("nll", "brier", "mean_probability_")


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_that_the_answers_decide_is_held_against_them(kind):
    metrics, arrays = metrics_and_answers(kind)
    assert contradicted(kind, metrics, arrays) == ""
    held = 0
    for *nodes, leaf in paths_of(metrics):
        changed = copy.deepcopy(metrics)
        node = changed
        for name in nodes:
            node = node[name]
        node[leaf] = (node[leaf] or 0) + 1
        found = contradicted(kind, changed, arrays)
        if str((*nodes, leaf)[0]).startswith(UNKNOWN):
            assert not found
        else:
            assert found, (*nodes, leaf)
            held += 1
    assert held > 20


def test_of_classes_that_are_level_either_may_be_named_first():
    metrics, arrays = metrics_and_answers(ONE_LABEL)
    level = {**arrays, "top": arrays["top"].copy()}
    level["top_probability"] = arrays["top_probability"].copy()
    level["top_probability"][:2, 1] = level["top_probability"][:2, 0]
    level["top"][:2, :2] = level["top"][:2, 1::-1]
    level["answer"] = level["top"][:, 0]
    assert contradicted(ONE_LABEL, metrics, level) == ""
    assert contradicted(ONE_LABEL, {**metrics, "accuracy": metrics["accuracy"] + 8}, level)


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


EDITS = [
    (ONE_LABEL, "accuracy"),
    (ONE_LABEL, "macro_f1"),
    (ONE_LABEL, "ece"),
    (ONE_LABEL, "images"),
    (MULTI_LABEL, "map"),
    (MULTI_LABEL, "micro_f1"),
    (MULTI_LABEL, "macro_f1"),
    (MULTI_LABEL, "ece"),
    (MULTI_LABEL, "images"),
    *((MULTI_LABEL, f"per_label.cat.{name}") for name in LABEL_METRICS),
]


@pytest.mark.parametrize("task, name", EDITS)
def test_an_edited_number_is_refused_by_table_and_report_in_one_sentence(
    tmp_path, error_of, task, name
):
    if task == ONE_LABEL:
        folder = write_run(tmp_path, "train_all", "CDC", 1, arrays=make_answers(1))
    else:
        folder = write_labels(tmp_path)
    metrics = record_of(folder)["metrics"]
    *nodes, leaf = name.split(".")
    node = metrics["test"]
    for inner in nodes:
        node = node[inner]
    true = node[leaf]
    node[leaf] = true + 0.5 if leaf == "threshold" else int(true) + 1
    change_record(folder, metrics=metrics)
    for command in (table.main, report):
        assert error_of(command, tmp_path) == (
            f"error: {folder}/results.json tells of test {name} {node[leaf]:.6g}, the answers of "
            f"{true:.6g} in predictions-test.npz: put the run's own record there again, or delete "
            "the folder and run it again"
        )


def test_names_of_labels_that_are_permuted_are_refused(tmp_path, error_of):
    folder = write_labels(tmp_path)
    first, second, *others = record_of(folder)["classnames"]
    change_record(folder, classnames=[second, first, *others])
    assert "results.json tells of test per_label." in error_of(table.main, tmp_path)


@pytest.mark.parametrize("name", ["images", "map", "ece", "per_label", "per_label of each label"])
def test_a_multi_label_record_without_one_of_its_measures_is_refused(tmp_path, error_of, name):
    folder = write_labels(tmp_path)
    metrics = record_of(folder)["metrics"]
    if name in metrics["test"]:
        del metrics["test"][name]
    else:
        del metrics["test"]["per_label"]["cat"]
    change_record(folder, metrics=metrics)
    for command in (table.main, report):
        line = error_of(command, tmp_path)
        assert f"{folder}/results.json is not a multi-label run's record" in line
        assert f"(its metrics lack {name}): put the run's own record there again" in line


@pytest.mark.parametrize(
    "name, change",
    [
        ("probability", lambda values: values + 1),
        ("fold", lambda values: values + 1),
        ("truth", lambda values: values[:, 1:]),
        ("threshold", lambda values: values[:, :1]),
    ],
)
def test_answers_to_labels_that_no_run_leaves_are_refused(tmp_path, name, change):
    folder = write_labels(tmp_path)
    arrays = make_label_answers(1)
    write_answers(folder, "test", {**arrays, name: change(arrays[name])})
    with refuses(rf"is not what a run leaves \({name} has another"):
        collect(folder)[0].answers_to("test")


@pytest.mark.parametrize("left", ["nothing", "another file"])
def test_without_the_runs_own_answers_the_record_alone_counts(runs, left):
    folder = runs / "test_new/openmoji/shots_16/CDC/tiny/seed1"
    change_record(folder, metrics={"test": {"accuracy": 99.0}})
    if left == "nothing":
        (folder / "predictions-test.npz").unlink()
    else:
        numpy.savez(folder / "predictions-test.npz", label=numpy.arange(3))
    assert {run.metrics["accuracy"] for run in collect(folder)} == {99.0}
