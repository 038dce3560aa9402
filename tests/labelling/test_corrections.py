"""Corrected rows that were chosen: how often it is said, that nothing is promised then, and the weights of
rows that a program asked for."""

import numpy
import pytest

from labelling import PromptedClassifier
from labelling.corrections import chosen
from labelling.evaluate import weighted_number
from labelling.rules import Wanted, rule_of
from labelling.table import read_table
from tests.labelling.cases import PICTURES, over_tasks, train, write
from tests.runs import record_of
from trainers.common.errors import UserError
from trainers.evaluation.multi_label import f1, f1_interval


def test_rows_that_were_drawn_at_random_are_seldom_said_to_be_chosen():
    said = 0
    for seed in range(500):
        draws = numpy.random.default_rng(seed)
        is_corrected = draws.permutation(400) < 60
        said += chosen(draws.random(400), is_corrected).is_shown
    assert said <= 12  # of 500 at 1 %: beyond it by chance in 1 of 500


@pytest.mark.parametrize(("first", "which"), [(True, "more"), (False, "less")])
def test_the_most_and_the_least_certain_third_are_said_to_be_chosen(first, which):
    uncertainty = numpy.random.default_rng(0).random(600)
    order = numpy.argsort(uncertainty if first else -uncertainty)
    is_corrected = numpy.zeros(600, bool)
    is_corrected[order[:200]] = True
    found = chosen(uncertainty, is_corrected)
    assert found.says().startswith(
        f"The 200 rows that were looked at are {which} certain than the other 400: the accuracy is of pictures like these"
    )


def test_the_rank_is_the_share_of_pairs():
    draws = numpy.random.default_rng(0)
    uncertainty = draws.random(30)
    is_corrected = draws.random(30) < 0.4
    pairs = [
        one > other for one in uncertainty[is_corrected] for other in uncertainty[~is_corrected]
    ]
    assert chosen(uncertainty, is_corrected).rank == pytest.approx(numpy.mean(pairs))


def test_few_rows_cannot_tell():
    is_corrected = numpy.arange(100) < 4
    assert chosen(numpy.arange(100.0), is_corrected).says() == ""
    assert chosen(numpy.arange(100.0), ~is_corrected).says() == ""


# ---- tables ----


@pytest.fixture
def table(task, tmp_path):
    """Writes a table of answers, rising in uncertainty, of which some rows are corrected: ``table(corrected,
    asked_with)``; beside it the pictures and their labels."""
    task.draw(tmp_path)

    def made(corrected, asked_with=None):
        rows = []
        for number, (image, label) in enumerate(task.rows()):
            right = (label or ";") if number in corrected else ""
            more = [] if asked_with is None else [asked_with[number]]
            rows.append([image, label, "", number / 100, right, *more])
        columns = ["image", "label", "doubtful", "uncertainty", "corrected"]
        columns += [] if asked_with is None else ["asked_with"]
        return write(tmp_path / "answers.csv", rows, columns)

    return made


@over_tasks
def test_of_the_most_certain_rows_nothing_is_promised_and_it_is_said(
    task, table, tmp_path, small_clip_file, capsys
):
    run = tmp_path / "run"
    assert train(task, table(range(36)), run, small_clip_file) == 0
    said = capsys.readouterr()
    sentence = "The 36 rows that were looked at are more certain than the other 12"
    assert sentence in said.out + said.err
    record = record_of(run)
    assert record["is_chosen"] is True
    assert sentence in " ".join(record["notes"])
    assert "of pictures that were chosen" in task.task.said(record)
    with pytest.raises(UserError, match="drawn at random"):
        rule_of(str(run), Wanted(max_error=0.2))


@over_tasks
@pytest.mark.parametrize("kind", ["every third is left", "known probabilities"])
def test_of_rows_that_were_not_chosen_nothing_is_said(task, table, kind):
    if kind == "every third is left":
        file = table([number for number in range(PICTURES) if number % 3])
    else:
        file = table(range(36), asked_with=[0.5] * PICTURES)
    read_in = read_table(str(file), task.task.multi_label)
    assert not read_in.is_chosen
    assert not any("looked at" in warning for warning in read_in.warnings)


@over_tasks
@pytest.mark.parametrize("cell", ["", "0", "1.5", "often", "nan"])
def test_a_probability_that_is_none_is_refused(task, table, cell):
    asked_with = [0.5] * PICTURES
    asked_with[4] = cell
    with pytest.raises(UserError, match="line 6 has .* for asked_with, which is a probability"):
        read_table(str(table(range(PICTURES), asked_with)), task.task.multi_label)


@over_tasks
def test_an_evaluation_weighs_pictures_by_how_probably_they_were_asked_for(
    task, table, tmp_path, small_clip_file
):
    run = tmp_path / "run"
    assert train(task, tmp_path / "labels.csv", run, small_clip_file) == 0
    asked_with = numpy.where(numpy.arange(PICTURES) % 4 == 0, 0.1, 1.0)
    known = PromptedClassifier.load(run)
    found = known.evaluate(table(range(PICTURES), asked_with.tolist()))
    plain = known.evaluate(table(range(PICTURES)))
    answers = found.answers
    place = [int(image.split("/")[-1].split(".")[0]) for image in answers.images]
    truth = numpy.array(
        [[name in task.own(number) for name in known.classnames] for number in place]
    )
    weight = 1 / asked_with[place]
    if task.task.multi_label:
        given = numpy.asarray(answers, bool)
        assert found.micro_f1 == pytest.approx(f1(given, truth, weight) / 100)
        assert plain.micro_f1 == pytest.approx(f1(given, truth) / 100)
        return
    right = answers.probabilities.argmax(axis=1) == truth.argmax(axis=1)
    assert found.accuracy == pytest.approx((weight * right).sum() / weight.sum())
    assert plain.accuracy == pytest.approx(right.mean())


# ---- weights ----


def test_weights_undo_a_known_choice_of_uncertain_rows():
    """Rows are asked for the more often the more uncertain they are, and wrong as often as they are uncertain; the
    number that they are worth is that of draws at random of the same error."""
    naive = []
    weighted = []
    worth = []
    for seed in range(200):
        draws = numpy.random.default_rng(seed)
        uncertainty = draws.random(2000)
        right = draws.random(2000) >= uncertainty
        probability = 0.05 + 0.4 * uncertainty
        asked = draws.random(2000) < probability
        weight = 1 / probability[asked]
        naive.append(right[asked].mean() - 0.5)
        weighted.append(numpy.average(right[asked], weights=weight) - 0.5)
        worth.append(weighted_number(right[asked], numpy.arange(asked.sum()), weight))
    assert abs(numpy.mean(weighted)) < 0.01
    assert numpy.mean(naive) < -0.05
    assert numpy.mean(worth) == pytest.approx(0.25 / numpy.var(weighted), rel=0.3)


def test_a_picture_of_weight_two_counts_as_two():
    draws = numpy.random.default_rng(0)
    given, truth = draws.random((2, 40, 3)) < 0.5
    weight = draws.integers(1, 3, 40).astype(float)
    twice = numpy.repeat(numpy.arange(40), weight.astype(int))
    assert f1(given, truth, weight) == pytest.approx(f1(given[twice], truth[twice]))
    assert f1_interval(given, truth, numpy.arange(40), weight) == pytest.approx(
        f1_interval(given[twice], truth[twice], twice)
    )
