"""Laws of own pictures, of one label each and of several: a run that was killed goes on, a done one is
done, an edited one is refused, names may be permuted, left out and added, and a labelling goes on."""

import csv
import functools
import json
import shutil

import numpy
import pytest

import predict
from labelling import PromptedClassifier, encode
from tests.labelling.tasks import MULTI, NAMES, PICTURES, TASKS, image, train, words_for
from tests.labelling.test_stopped_labelling import stop_after_a_batch
from tests.runs import call, change_record, contents_of, prompts_of, record_of, refuses
from trainers.common.record_file import read_answers
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator
from trainers.evaluation.figures import effective_number, wilson
from trainers.evaluation.multi_label import best_thresholds, f1_interval


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def words(small_clip_file):
    return words_for(small_clip_file)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The file of each task's pictures, drawn once: ``drawn(task)``."""
    return functools.cache(lambda task: task.draw(tmp_path_factory.mktemp("pictures") / "mine"))


@pytest.fixture(scope="module")
def made(drawn, words, tmp_path_factory):
    """A run of each task, made once: ``made(task)``, to be left as it is."""

    @functools.cache
    def make(task):
        folder = tmp_path_factory.mktemp("runs") / "run"
        assert train(drawn(task), folder, words) == 0
        return folder

    return make


@pytest.fixture
def file(task, drawn):
    return drawn(task)


@pytest.fixture
def run(task, made):
    return made(task)


@pytest.fixture
def copied(run, tmp_path):
    """The folder of such a run, to be changed."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def says(capsys):
    """The one line of error with which a run is refused: ``says(file, folder, words, *more)``."""

    def start(*given):
        capsys.readouterr()
        assert train(*given) == 2
        return line_of_error(capsys)

    return start


def line_of_error(capsys):
    errors = capsys.readouterr().err.replace("\r", "\n").splitlines()
    (line,) = (line for line in errors if line.startswith("error: "))
    return line


def paths_of(file):
    return [str(file.parent / image(number)) for number in range(PICTURES)]


def numbers(folder):
    """What a run has measured and learned."""
    record = record_of(folder)
    kept = ("metrics", "prompts_hash", "answers", "split_hash", "classnames", "task")
    return {name: record.get(name) for name in kept}


# ---- killed, done, and another run ----


def killed(*_, **__):
    raise KeyboardInterrupt


def killing_second_block(place, features, key, write=encode.write_block):
    if place.endswith(f"{16:09d}.npz"):
        raise KeyboardInterrupt
    write(place, features, key)


KILLS = [
    (encode, "write_block", killing_second_block),
    (Run, "keep_fit", killed),
    (Evaluator, "measure", killed),
    (Evaluator, "write_record", killed),
]


def test_a_run_goes_on_to_the_same_numbers_wherever_it_was_killed(
    run, file, words, tmp_path, monkeypatch
):
    """Between blocks of features, before and after what is fitted is kept, and before the record."""
    monkeypatch.setattr(encode, "BLOCK", 16)
    folder = tmp_path / "run"
    for owner, name, stand_in in KILLS:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, stand_in)
            assert train(file, folder, words) == 130, name
        assert not (folder / "results.json").exists()
    assert train(file, folder, words) == 0
    assert numbers(folder) == numbers(run)


def test_features_of_pictures_that_were_shown_otherwise_are_made_again(
    file, words, tmp_path, monkeypatch
):
    """A run that was killed before its first checkpoint may be begun anew, with other settings."""
    monkeypatch.setattr(encode, "BLOCK", 16)
    other = [*words, "INPUT.PIXEL_MEAN", "[0.1, 0.2, 0.3]"]
    with monkeypatch.context() as patched:
        patched.setattr(encode, "write_block", killing_second_block)
        assert train(file, tmp_path / "run", words) == 130
    assert train(file, tmp_path / "run", other) == 0
    assert train(file, tmp_path / "whole", other) == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_thresholds_are_the_best_for_what_was_answered_out_of_fold(made):
    """Those of a fold for the other folds, those of later pictures for all."""
    run = made(MULTI)
    arrays = read_answers(str(run), "test", record_of(run))
    probability, truth, fold = (arrays[name] for name in ("probability", "truth", "fold"))
    assert len({*fold.tolist()}) == 5
    for part, own in enumerate(arrays["threshold"]):
        others = fold != part
        assert own.tolist() == best_thresholds(probability[others], truth[others]).tolist()
    best = best_thresholds(probability, truth)
    assert len({*best.tolist()}) == 3
    assert PromptedClassifier.load(run).method.learner.thresholds.tolist() == best.tolist()
    per_label = record_of(run)["metrics"]["test"]["per_label"]
    assert [per_label[name]["threshold"] for name in NAMES] == best.tolist()


def test_a_done_run_is_done_and_encodes_nothing(copied, file, words, monkeypatch):
    before = contents_of(copied, left_out="log.txt")
    monkeypatch.setattr("labelling.encode.encoded", killed)
    assert train(file, copied, words) == 0
    assert "Done already" in (copied / "log.txt").read_text()
    assert contents_of(copied, left_out="log.txt") == before


def test_a_run_without_its_prompts_is_trained_again(copied, run, file, words):
    shutil.rmtree(copied / "prompt_learner")
    with refuses("holds no prompts"):
        PromptedClassifier.load(copied)
    (copied / "log.txt").unlink()
    assert train(file, copied, words) == 0
    assert "Done already" not in (copied / "log.txt").read_text()
    assert numbers(copied) == numbers(run)
    assert PromptedClassifier.load(copied).classnames == NAMES


def test_a_run_is_of_its_labels_and_groups(task, run, file, words, says):
    other = task.write(file.with_name("other.csv"), {7: task.swapped})
    assert "belongs to another run" in says(other, run, words)
    groups = task.write(file.with_name("groups.csv"), groups=[n // 2 for n in range(PICTURES)])
    assert "belongs to another run" in says(groups, run, words)


def test_other_groups_make_another_run(task, file, words, tmp_path, says):
    one = task.write(file.with_name("one.csv"), groups=[n // 2 for n in range(PICTURES)])
    two = task.write(file.with_name("two.csv"), groups=[n % 24 for n in range(PICTURES)])
    assert train(one, tmp_path / "run", words) == 0
    assert "belongs to another run" in says(two, tmp_path / "run", words)


def test_the_same_rows_in_another_order_are_the_same_run(task, run, file, words, tmp_path):
    order = numpy.random.default_rng(1).permutation(PICTURES).tolist()
    shuffled = task.write(file.with_name("shuffled.csv"), order=order)
    assert train(shuffled, tmp_path / "run", words) == 0
    assert numbers(tmp_path / "run") == numbers(run)


# ---- a run that was edited by hand ----


def permuted(record):
    return {"classnames": [record["classnames"][place] for place in (1, 2, 0)]}


def darker(record):
    config = json.loads(json.dumps(record["config"]))
    config["INPUT"]["PIXEL_MEAN"] = [0.1, 0.2, 0.3]
    return {"config": config}


@pytest.mark.parametrize(
    "edit, message",
    [
        (permuted, "was trained on other classes, or in another order, than"),
        (darker, "was trained with other settings than .*INPUT.PIXEL_MEAN"),
    ],
)
def test_an_edited_record_answers_nothing(copied, file, capsys, edit, message):
    change_record(copied, **edit(record_of(copied)))
    with refuses(message):
        PromptedClassifier.load(copied)
    capsys.readouterr()
    assert call(predict.main, "--run", copied, file.parent / image(1)) == 2
    assert line_of_error(capsys)


def test_the_prompts_of_another_run_are_refused(task, copied, file, words, tmp_path):
    other = task.write(file.with_name("others.csv"), {7: task.swapped, 15: task.swapped})
    assert train(other, tmp_path / "other", words) == 0
    shutil.rmtree(copied / "prompt_learner")
    shutil.copytree(tmp_path / "other/prompt_learner", copied / "prompt_learner")
    with refuses("holds other prompts than those that"):
        PromptedClassifier.load(copied)


# ---- names ----


def test_permuted_names_permute_the_answers_and_change_nothing_else(run, file, tmp_path):
    classifier = PromptedClassifier.load(run)
    answers = classifier.predict(paths_of(file))
    order = [2, 0, 1]
    names = [NAMES[place] for place in order]
    turned = classifier.with_classes(names).predict(paths_of(file))
    assert turned.classnames == names
    assert list(map(sorted, turned.labels)) == list(map(sorted, answers.labels))
    close = {"rtol": 1e-5, "atol": 1e-7}
    numpy.testing.assert_allclose(turned.probabilities, answers.probabilities[:, order], **close)
    numpy.testing.assert_allclose(turned.uncertainty, answers.uncertainty, rtol=1e-4, atol=1e-6)
    assert turned.note == answers.note == ""
    table = tmp_path / "table.csv"
    words = "--probabilities", "--csv", table, *paths_of(file)
    assert call(predict.main, "--run", run, *words, "--classes", *names) == 0
    for row, own in zip(rows_of(table), answers.probabilities):
        shown = [float(row[f"probability_{name}"]) for name in NAMES]
        numpy.testing.assert_allclose(shown, own, rtol=1e-4, atol=1e-6)


def test_some_of_the_names_keep_what_was_trained(task, run, file):
    classifier = PromptedClassifier.load(run)
    whole = classifier.predict(paths_of(file)).probabilities
    some = classifier.with_classes(["red", "blue"]).predict(paths_of(file))
    expected = whole[:, [2, 0]].astype(float)
    if not task.is_multi_label:
        expected /= expected.sum(axis=1, keepdims=True)
    numpy.testing.assert_allclose(some.probabilities, expected, rtol=1e-4, atol=1e-6)
    assert some.note == ""
    back = classifier.with_classes(["red", "blue"]).with_classes(NAMES).predict(paths_of(file))
    numpy.testing.assert_allclose(back.probabilities, whole, rtol=1e-5, atol=1e-7)


def test_an_added_name_is_answered_by_its_text_and_takes_nothing_from_the_others(task, run, file):
    """The odds between trained names stay; another text has other answers."""
    classifier = PromptedClassifier.load(run)
    whole = classifier.predict(paths_of(file)).probabilities.astype(float)
    first, second = (
        classifier.with_classes([*NAMES, name]).predict(paths_of(file)) for name in ("owl", "bus")
    )
    assert "owl" in first.note
    assert not numpy.allclose(first.probabilities[:, 3], second.probabilities[:, 3])
    if task.is_multi_label:
        numpy.testing.assert_allclose(first.probabilities[:, :3], whole, rtol=1e-5, atol=1e-7)
        assert not any("owl" in own for own in first.labels)
    else:
        odds = first.probabilities[:, :3].astype(float)
        odds /= odds.sum(axis=1, keepdims=True)
        numpy.testing.assert_allclose(odds, whole, rtol=1e-3, atol=1e-5)
    again = classifier.with_classes(["owl", *NAMES]).predict(paths_of(file))
    numpy.testing.assert_allclose(
        again.probabilities[:, [1, 2, 3, 0]], first.probabilities, rtol=1e-5, atol=1e-7
    )


# ---- evaluate ----


def test_an_evaluation_counts_what_was_trained_on_and_its_unit_is_a_group(task, run, file):
    classifier = PromptedClassifier.load(run)
    changed = dict.fromkeys(range(0, PICTURES, 5), task.swapped)  # so that some are wrong
    groups = ["wrong" if number in changed else number for number in range(PICTURES)]
    alone = task.write(file.with_name("changed.csv"), changed)
    grouped = task.write(file.with_name("grouped.csv"), changed, groups)
    measured = classifier.evaluate(grouped)
    assert measured.images == measured.trained_on == PICTURES
    places = numpy.array([PICTURES if name == "wrong" else name for name in groups])
    truth = numpy.array(
        [[name in changed.get(n, task.sets[n]) for name in NAMES] for n in range(PICTURES)]
    )
    if task.is_multi_label:
        given = numpy.array([[name in own for name in NAMES] for own in measured.answers.labels])
        expected = [end / 100 for end in f1_interval(given, truth, places)]
    else:
        right = measured.answers.probabilities.argmax(axis=1) == truth.argmax(axis=1)
        number = effective_number(right, places)
        expected = wilson(right.mean() * number, number)
    assert measured.interval == pytest.approx(tuple(expected))
    assert classifier.evaluate(alone).interval != pytest.approx(measured.interval)


def test_a_label_that_never_occurs_in_what_is_evaluated_is_no_error(task, run, file):
    kept = [n for n in range(PICTURES) if "green" not in task.sets[n]]
    part = task.write(file.with_name("part.csv"), order=kept)
    assert PromptedClassifier.load(run).evaluate(part).images == len(kept)


# ---- what a command can be asked for ----


def test_images_are_grouped_by_their_names(file, words, tmp_path):
    folder = tmp_path / "run"
    assert train(file, folder, words, "--group-by", r"\d(\d)\.png") == 0
    assert f"{PICTURES} images belong together, in 10 groups" in " ".join(
        record_of(folder)["notes"]
    )


def test_small_labels_are_left_out_where_that_is_asked_for(task, file, words, tmp_path):
    rare = {number: (*task.sets[number][1:], "rare") for number in range(3)}
    small = task.write(file.with_name("small.csv"), rare)
    assert train(small, tmp_path / "run", words, "--skip-small") == 0
    record = record_of(tmp_path / "run")
    assert record["classnames"] == NAMES
    assert any("Left out" in note and "rare (3)" in note for note in record["notes"])


def test_small_labels_are_refused_or_trained_on_unless_they_are_left_out(
    task, file, words, tmp_path, says
):
    rare = {number: (*task.sets[number][1:], "rare") for number in range(3)}
    small = task.write(file.with_name("rare.csv"), rare)
    if task.is_multi_label:
        assert train(small, tmp_path / "run", words) == 0
        assert record_of(tmp_path / "run")["classnames"] == sorted([*NAMES, "rare"])
    else:
        assert "leave these out with --skip-small" in says(small, tmp_path / "run", words)


def test_few_shots_are_a_sample_and_the_others_are_tested(file, words, tmp_path):
    assert train(file, tmp_path / "run", words, "--shots", 2) == 0
    record = record_of(tmp_path / "run")
    assert record["fewshot_sample"] is not None
    assert 0 < record["metrics"]["test"]["images"] < PICTURES


def test_what_is_trained_is_tested_again_and_a_model_is_built_without_training(
    run, file, words, tmp_path
):
    assert train(file, tmp_path / "test", words, *prompts_of(run)) == 0
    assert 0 < record_of(tmp_path / "test")["metrics"]["test"]["images"] < PICTURES
    assert train(file, tmp_path / "none", words, "--no-train") == 0
    assert not (tmp_path / "none/results.json").exists()


def test_names_alone_are_tested(task, file, words, tmp_path):
    assert train(file, tmp_path / "run", words, "--trainer", "ZeroshotCLIP") == 0
    measured = record_of(tmp_path / "run")["metrics"]["test"]
    assert measured["images"] == PICTURES
    assert ("map" if task.is_multi_label else "accuracy") in measured
    answers = PromptedClassifier.load(tmp_path / "run").predict(paths_of(file)[:2])
    assert answers.labels == [[], []] if task.is_multi_label else len(answers.labels) == 2


def test_the_best_promise_is_given_or_refused_in_a_line(run, file, capsys):
    capsys.readouterr()
    code = call(predict.main, "--run", run, "--max-error", "best", *paths_of(file)[:2])
    said = capsys.readouterr()
    if code == 2:
        assert "can't promise that at most 20 %" in said.err
    else:
        assert code == 0
        assert "with 95 % confidence" in said.err


# ---- a labelling that was stopped ----


def rows_of(table):
    with open(table, encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_killed_labelling_goes_on_to_the_same_table(run, file, tmp_path, monkeypatch):
    words = ["--run", run, *paths_of(file), "--csv"]
    assert call(predict.main, *words, tmp_path / "whole.csv") == 0
    stop_after_a_batch([*words, tmp_path / "table.csv"])
    asked = []
    predicted = PromptedClassifier.predicted

    def noted(self, shown):
        asked.append(len(shown))
        return predicted(self, shown)

    monkeypatch.setattr(PromptedClassifier, "predicted", noted)
    assert call(predict.main, *words, tmp_path / "table.csv") == 0
    assert sum(asked) in (16, 32), "what was written is not answered again"
    assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize(
    "more, other, named",
    [
        (["--csv"], ["--parquet"], "--csv, --parquet"),
        (["--max-error", 0.8, "--csv"], ["--max-error", 0.9, "--csv"], "--max-error"),
    ],
)
def test_another_form_or_promise_does_not_go_on_with_the_answers(
    run, file, tmp_path, capsys, more, other, named
):
    pytest.importorskip("pyarrow")
    words = "--run", run, *paths_of(file)
    stop_after_a_batch([*words, *more, tmp_path / "table"])
    capsys.readouterr()
    assert call(predict.main, *words, *other, tmp_path / "table") == 2
    assert f"a command that was stopped, with other {named}: " in line_of_error(capsys)
