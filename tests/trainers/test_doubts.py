"""Which answers are doubtful, and the words for it."""

import math
import re

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import GOLDEN
from tests.runs import refuses, write_validation
from trainers.evaluation.doubts import Judge, best, points_of, wilson, within


@pytest.fixture
def judge(tmp_path):
    """A ``Judge`` of a run that said this of its validation images."""

    def make(uncertainty, wrong, max_error=None):
        write_validation(tmp_path, uncertainty, wrong)
        return Judge(tmp_path, max_error)

    return make


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.99]),
)
def test_the_limit_answers_as_many_as_the_error_allows_and_the_best_has_the_lowest_error(
    images, max_error
):
    """Against all limits, tried one by one."""
    uncertainty, wrong = map(numpy.array, zip(*images))
    answered = [uncertainty <= limit for limit in set(uncertainty)]
    possible = [(sum(images), sum(wrong[images])) for images in answered]
    points = points_of(uncertainty / 7, wrong)
    point, least = within(points, max_error), best(points)
    found = (point.answered, point.wrong) if point else None
    assert found == max((one for one in possible if one[1] <= max_error * one[0]), default=None)
    assert (least.answered, least.wrong) == min(
        possible, key=lambda one: (one[1] / one[0], -one[0])
    )
    for one in filter(None, (point, least)):
        assert sum(uncertainty / 7 <= one.limit) == one.answered


def test_an_answer_is_judged_alike_though_its_last_digits_differ(judge):
    found = judge([0.1, 0.2, 0.3], [0, 0, 1], 0.0)
    assert not found.doubtful(0.2) and not found.doubtful(0.2 * (1 + 1e-6))
    assert all(map(found.doubtful, (0.201, 0.3, math.nan)))
    close = judge([0.2, 0.2 * (1 + 1e-6)], [0, 1], 0.0)  # nearer to one another than that
    assert not close.doubtful(float(numpy.float32(0.2))) and close.doubtful(0.2 * (1 + 1e-6))


@pytest.mark.parametrize("wrong, max_error, words", GOLDEN["doubts"])
def test_the_rule_in_words_says_what_was_measured_and_what_can_be_had(
    judge, wrong, max_error, words
):
    uncertainty = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = judge(uncertainty, wrong, max_error)
    assert words in found.rule()
    if max_error is None:
        assert found.doubtful(0.1) is found.doubtful(0.5) is None
    else:
        assert found.doubtful(0.1) is words.startswith("No answer") and found.doubtful(0.5)
    for advised in re.findall(r"--max-error ([\d.]+)", words):  # what is advised works
        assert not judge(uncertainty, wrong, float(advised)).doubtful(0.1)


def test_a_run_without_validation_images_judges_nothing_and_cannot_be_asked_to(tmp_path):
    found = Judge(tmp_path)
    assert found.doubtful(0.001) is None and found.of_such(0.1) == ""
    assert "No rejection threshold can be set" in found.rule()
    with refuses("--max-error needs .*predictions-val.npz"):
        Judge(tmp_path, 0.1)
    with refuses("--max-error is 5, it is a share"):
        Judge(tmp_path, 5)


@pytest.mark.parametrize("uncertainty", [[], [math.nan, 0.1], [0.1, math.inf]])
def test_validation_answers_that_are_none_are_refused(judge, uncertainty):
    with refuses("predictions-val.npz can't be read"):
        judge(uncertainty, numpy.zeros(len(uncertainty)), 0.1)


@pytest.mark.parametrize("number, of", [(0, 9), (5, 20), (18, 18), (127, 250)])
def test_the_interval_is_where_the_score_test_accepts(number, of):
    """Wilson's ends are the shares p with |number / of − p| = 1.96 √(p (1 − p) / of)."""
    for end in wilson(number, of):
        deviation = math.sqrt(end * (1 - end) / of)
        assert abs(number / of - end) == pytest.approx(1.959964 * deviation, abs=1e-6)
