"""Labelling by a run of either task: a stopped command goes on for the same question alone, and to the same
table."""

import os
from itertools import permutations

import numpy
import pytest

import predict
from labelling import PromptedClassifier
from labelling.answers.on_ray import Labeller
from labelling.answers.part_file import ENDING
from tests.labelling.cases import MULTI, NAMES, PICTURES, SMALL_BATCHES, over_tasks, read
from tests.labelling.test_stopped_labelling import FORMS, stop_after_a_batch
from tests.runs import call

OTHER_QUESTIONS = [
    ["--classes", *NAMES[:2]],
    ["--classes", *reversed(NAMES)],
    ["--topk", "2"],
    ["--max-error", "0.8"],
    ["--min-certainty", "0.5"],
    ["--confidence", "0.5"],
    ["--probabilities"],
    ["--least-certain-first"],
]


@pytest.fixture
def command(run_of, pictures_of, tmp_path):
    """``command(task, *more)``: words that label its pictures, into a table."""

    def words(task, *more):
        return ["--run", run_of(task), pictures_of(task), "--csv", tmp_path / "labels.csv", *more]

    return words


@over_tasks
def test_another_question_does_not_go_on_with_the_answers_to_the_first(
    task, command, tmp_path, error_of
):
    stop_after_a_batch(command(task))
    questions = OTHER_QUESTIONS + [["--max-missed", "0.8"]] * (task is MULTI)
    for option, *values in questions:
        line = error_of(predict.main, *command(task, option, *values))
        assert f"a command that was stopped, with other {option}: " in line
    assert call(predict.main, *command(task)) == 0
    assert not (tmp_path / f"labels.csv{ENDING}").exists()


@over_tasks
@pytest.mark.parametrize("form, other", [*permutations(FORMS, 2)])
def test_a_form_does_not_go_on_with_the_answers_for_another(
    task, run_of, own_pictures, tmp_path, error_of, form, other
):
    if "--parquet" in (form, other):
        pytest.importorskip("pyarrow")
    table = tmp_path / "pictures/answers"
    words = "--run", run_of(task), *own_pictures(task).glob("1*.png")
    stop_after_a_batch([*words, form, table])
    line = error_of(predict.main, *words, other, table)
    named = ", ".join(option for option in FORMS if option in (form, other))
    assert f"a command that was stopped, with other {named}: " in line


@over_tasks
def test_the_answers_of_another_run_are_not_gone_on_with(task, command, run_of, error_of):
    stop_after_a_batch(command(task))
    words = command(task)
    words[1] = run_of(task, "--seed", 2)
    assert "a command that was stopped, with other --run: " in error_of(predict.main, *words)


@over_tasks
def test_a_stopped_labelling_ends_with_the_same_table_to_the_byte(
    task, command, run_of, tmp_path, monkeypatch
):
    """And what was written is not answered again."""
    table = tmp_path / "labels.csv"
    words = command(task, "--probabilities")
    words[1] = run_of(task, settings=SMALL_BATCHES)
    assert call(predict.main, *words) == 0
    whole = table.read_bytes()
    table.unlink()
    stop_after_a_batch(words)
    assert not table.exists()
    predicted = PromptedClassifier.predicted
    asked = []

    def noted(self, shown):
        asked.append(len(shown))
        return predicted(self, shown)

    monkeypatch.setattr(PromptedClassifier, "predicted", noted)
    assert call(predict.main, *words) == 0
    assert 0 < sum(asked) < PICTURES
    assert table.read_bytes() == whole


@over_tasks
@pytest.mark.parametrize("given", [["--max-error", "0.8"], ["--min-certainty", "0.6"], []])
def test_the_labels_of_a_table_are_those_that_the_rule_gives_in_python(
    task, given, command, run_of, pictures_of, tmp_path
):
    options = {given[0][2:].replace("-", "_"): float(given[1])} if given else {}
    classifier = PromptedClassifier.load(run_of(task), **options)
    assert call(predict.main, *command(task, *given)) == 0
    rows = read(tmp_path / "labels.csv")
    answers = classifier.predict([row["image"] for row in rows])
    for row, own, doubtful in zip(rows, answers.labels, answers.doubtful):
        expected = task.cell(own) if task is MULTI else own
        assert row["label"] == ("" if doubtful else expected)


@over_tasks
def test_a_worker_of_a_cluster_says_what_predict_says(task, run_of, pictures_of):
    """In the same columns, also under a rule and for some of the names."""
    paths = sorted(map(str, pictures_of(task).glob("1*.png")))
    batch = {"image": numpy.array([os.fsencode(path) for path in paths], object)}
    for classes, wanted in ((None, {}), (NAMES[:2], {"min_certainty": 0.6})):
        labeller = Labeller(str(run_of(task)), classes=classes, topk=2, wanted=wanted)
        columns = labeller(batch)
        classifier = PromptedClassifier.load(run_of(task), **wanted)
        if classes:
            classifier = classifier.with_classes(classes)
        answers = classifier.predict(paths)
        best = answers.probabilities.max(axis=1)
        numpy.testing.assert_allclose(columns["probability_1"], best, rtol=1e-5)
        for cell, own, doubtful in zip(columns["label"], answers.labels, answers.doubtful):
            expected = task.cell(own) if task is MULTI else own
            assert cell == (None if doubtful else expected)
        assert not any(columns["error"])


@over_tasks
def test_an_image_that_a_worker_can_not_read_has_an_error_and_no_numbers(task, run_of, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    labeller = Labeller(str(run_of(task)))
    columns = labeller({"image": numpy.array([os.fsencode(tmp_path / "broken.png")], object)})
    assert "broken.png" in columns["error"][0]
    assert columns["label"][0] == ""
    assert numpy.isnan(columns["uncertainty"][0])


@over_tasks
def test_a_damaged_part_file_is_a_line_and_stays(task, command, tmp_path, error_of):
    stop_after_a_batch(command(task))
    part = tmp_path / f"labels.csv{ENDING}"
    content = part.read_bytes()
    (tmp_path / f"labels.csv{ENDING}-wal").unlink(missing_ok=True)
    part.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    assert f"{part} can't be read (" in error_of(predict.main, *command(task))
    assert part.exists()
