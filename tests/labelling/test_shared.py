"""Runs on the hub: a server on this machine plays it."""

import hashlib
import json
import shutil

import numpy
import pytest
from safetensors.torch import load_file, save_file

from labelling import PromptedClassifier
from labelling.shared import CARD, WEIGHTS_FILE
from tests.hub import COMMIT, serving
from tests.labelling.cases import SINGLE, over_tasks
from tests.runs import refuses

NAME = "hf:me/colours"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with serving("me/others", monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def shared(hub, run_of):
    """``shared(task)``: a classifier that was pushed."""

    def push(task):
        classifier = PromptedClassifier.load(run_of(task))
        assert classifier.push_to_hub("me/colours") == COMMIT
        return classifier

    return push


@over_tasks
def test_a_run_of_the_hub_answers_as_the_one_that_was_shared(
    task, shared, hub, pictures_of, small_clip_file
):
    classifier = shared(task)
    assert hub.private["me/colours"]
    paths = [str(pictures_of(task) / f"{number}.png") for number in range(6)]
    for name in (NAME, f"{NAME}@{COMMIT}"):
        found = PromptedClassifier.load(name, backbone=small_clip_file)
        numpy.testing.assert_array_equal(
            found.predict_proba(paths), classifier.predict_proba(paths)
        )
        assert found.predict(paths).labels == classifier.predict(paths).labels
        assert found.record["metrics"] == classifier.record["metrics"]
    asked = len(hub.requests)
    PromptedClassifier.load(f"{NAME}@{COMMIT}", backbone=small_clip_file)
    assert len(hub.requests) == asked, "a commit that is there is not asked for"
    hub.repositories.clear()
    assert PromptedClassifier.load(NAME, backbone=small_clip_file), "without the hub"


@over_tasks
def test_no_picture_no_name_and_no_place_of_this_machine_is_shared(
    task, shared, hub, pictures_of, run_of
):
    classifier = shared(task)
    classifier.record["notes"] = ["secret.png looks like 7.png"]
    classifier.record["skipped_images"] = {"train": ["secret.png"]}
    classifier.push_to_hub("me/colours")
    files = hub.repositories["me/colours"]
    assert {*files} == {"results.json", WEIGHTS_FILE, CARD}
    for content in files.values():
        for secret in (b"secret.png", b"7.png", bytes(pictures_of(task)), bytes(run_of(task))):
            assert secret not in content
    said = classifier.task.said(classifier.record)
    assert said.encode() in files[CARD], "the measured numbers"


@over_tasks
def test_no_promise_is_made_of_a_run_whose_answers_are_elsewhere(task, shared, small_clip_file):
    shared(task)
    with refuses("has no answers to pictures, which a promise rests on"):
        PromptedClassifier.load(NAME, backbone=small_clip_file, max_error=0.1)
    found = PromptedClassifier.load(NAME, backbone=small_clip_file, min_certainty=0.9)
    assert found.rule is not None


def test_what_is_no_shared_run_is_refused(shared, hub, small_clip_file, tmp_path):
    with refuses("hf:me/nothing has no results.json at main"):
        PromptedClassifier.load("hf:me/nothing")
    shared(SINGLE)
    with refuses("INPUT.SIZE is .32, 32., tiny takes"):
        PromptedClassifier.load(NAME, backbone="tiny")
    files = hub.repositories["me/colours"]
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(files[WEIGHTS_FILE])
    state = load_file(weights)
    save_file({**state, "bias": state["bias"] + 1}, weights)
    files[WEIGHTS_FILE] = weights.read_bytes()
    shutil.rmtree(tmp_path / "cache")
    with refuses("holds other weights than its record tells of"):
        PromptedClassifier.load(NAME, backbone=small_clip_file)
    files[WEIGHTS_FILE] = b"no weights"
    digest = hashlib.sha256(b"no weights").hexdigest()
    record = json.loads(files["results.json"]) | {"files": {WEIGHTS_FILE: digest}}
    files["results.json"] = json.dumps(record).encode()
    shutil.rmtree(tmp_path / "cache")
    with refuses("can't be read"):
        PromptedClassifier.load(NAME, backbone=small_clip_file)
    files["results.json"] = json.dumps({"format": 99}).encode()
    shutil.rmtree(tmp_path / "cache")
    with refuses():
        PromptedClassifier.load(NAME, backbone=small_clip_file)


def test_other_classes_than_the_runs_are_not_shared(shared, hub):
    classifier = shared(SINGLE)
    with refuses("has other classes than its run"):
        classifier.with_classes(["blue", "red"]).push_to_hub("me/colours")
