"""Runs of several labels in the report: which label is taken for which, which mistakes come first, and the
interval of F1."""

import numpy
import pytest

from report.label_sets import file_of, taken_for, worst_mistakes
from results.runs import FinishedRun
from trainers.evaluation.multi_label import f1, f1_interval

NAMES = ["ball", "cat", "dog"]


def test_a_label_that_is_missed_is_taken_for_the_one_that_is_wrongly_given_there():
    truth = numpy.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0]], bool)
    given = numpy.array([[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]], bool)
    assert dict(taken_for(given, truth, NAMES)) == {"cat": ("dog", 2)}


def test_mistakes_come_by_how_improbable_their_own_labels_are_and_right_ones_do_not_come():
    answers = {
        "image": numpy.array(["a.png", "b.png", "c.png"]),
        "probability": numpy.array([[0.6, 0.1, 0.1], [0.9, 0.1, 0.2], [0.9, 0.1, 0.1]]),
        "truth": numpy.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]], bool),
        "threshold": numpy.array([[0.5, 0.5, numpy.inf]]),
        "fold": numpy.array([0, 0, 0]),
    }
    given = answers["probability"] >= answers["threshold"][answers["fold"]]
    run = FinishedRun(None, {"classnames": NAMES})
    second, first = [*worst_mistakes(run, answers, given, None)][::-1]
    assert [first.image, second.image] == ["b.png", "a.png"]
    assert [(bar.name, bar.verdict) for bar in first.bars] == [("ball", "wrong"), ("cat", "missed")]
    assert [bar[1:3] for bar in second.bars] == [pytest.approx((60, 50))]


def test_a_picture_is_found_beside_its_file_or_below_its_folder(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.png").touch()
    (tmp_path / "labels.csv").touch()
    for root in (tmp_path, tmp_path / "labels.csv"):
        assert file_of("cat/a.png", str(root)) == str(tmp_path / "cat/a.png")
        assert file_of("b.png", str(root)) is None
    assert file_of("cat/a.png", None) is None


def test_the_interval_of_f1_is_that_of_a_bootstrap_of_groups():
    rng = numpy.random.default_rng(0)
    groups = numpy.repeat(numpy.arange(200), 3)
    truth = numpy.repeat(rng.random((200, 4)) < 0.3, 3, axis=0)
    given = truth ^ numpy.repeat(rng.random((200, 4)) < 0.1, 3, axis=0)
    drawn = []
    for _ in range(1000):
        some = rng.integers(0, 200, 200)
        rows = (3 * some[:, None] + numpy.arange(3)).ravel()
        drawn.append(f1(given[rows], truth[rows]))
    expected = numpy.quantile(drawn, [0.025, 0.975])
    numpy.testing.assert_allclose(f1_interval(given, truth, groups), expected, atol=0.5)
    alone = f1_interval(given, truth, numpy.arange(600))
    assert alone[1] - alone[0] < 0.7 * (expected[1] - expected[0])  # copies are no more pictures
