"""The rejection threshold: which answers get no label, and the words for it."""

import math
import re

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from labelling.rules import Wanted, explain, in_short, offered, others_as_certain
from labelling.threshold import BEST_PROMISE, OFFERED, Held, possible, promised, threshold_of
from tests.conftest import GOLDEN
from tests.runs import refuses, write_validation


@pytest.fixture
def measured(tmp_path):
    """The ``Threshold`` of a run that said this of its validation images."""

    def make(uncertainty, wrong, max_error=None, confidence=0.95):
        write_validation(tmp_path, uncertainty, wrong)
        return threshold_of(tmp_path, max_error, confidence)

    return make


def tail(mistakes, images, share):
    """P(Bin(images, share) ≤ mistakes)."""
    return binom.cdf(mistakes, images, share)


@pytest.mark.parametrize("images, most", [(13, -1), (14, 0), (21, 0), (22, 1), (29, 1)])
def test_one_start_accepts_what_the_exact_bound_accepts(images, most):
    """14 images without a mistake are the fewest that promise 20 % with 95 %; 22 may have one."""
    for wrong in range(3):
        uncertainty = numpy.linspace(0.1, 0.9, images)
        last = numpy.arange(images) >= images - wrong  # the most uncertain are wrong
        point = promised(Held(uncertainty, last), 0.2)
        accepted = point is not None and point.wrong == wrong
        assert accepted == (wrong <= most) == (tail(wrong, images, 0.2) <= 0.05)


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("images", [100, 350])
def test_a_promise_is_broken_as_rarely_as_it_says(number, images):
    """The hardest case: the error is a hair above what is promised whatever the uncertainty, so that
    every limit that is set breaks its promise. With an error of a tenth of it a limit is set."""
    generator = numpy.random.default_rng(0)
    broken = kept = 0
    for _ in range(number):
        uncertainty, chance = generator.random((2, images))
        broken += promised(Held(uncertainty, chance < 0.2001), 0.2) is not None
        kept += promised(Held(uncertainty, chance < 0.02), 0.2) is not None
    deviation = (number * 0.05 * 0.95) ** 0.5
    assert 0 < broken <= number * 0.05 + 3 * deviation
    assert kept > 0.7 * number


@pytest.mark.parametrize("error", [OFFERED[0] + 1e-4, OFFERED[-1] + 1e-4])
def test_the_smallest_share_that_can_be_had_is_broken_as_rarely(error, number=400, images=120):
    """Taken after a look at all of them: whatever the error is, a smaller share is taken in 5 % of the
    runs at most."""
    generator = numpy.random.default_rng(0)
    broken = 0
    for _ in range(number):
        wrong = generator.random(images) < error
        shares = possible(Held(generator.random(images), wrong))
        broken += min(shares, default=1) < error
    assert broken <= number * 0.05 + 3 * (number * 0.05 * 0.95) ** 0.5


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=150),
    st.sampled_from([0.05, 0.2, 0.5, 0.9]),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_a_limit_is_at_an_accepted_point_and_answers_the_images_up_to_it(
    images, max_error, confidence
):
    uncertainty, wrong = map(numpy.array, zip(*images))
    point = promised(Held(uncertainty / 7, wrong), max_error, confidence)
    if point is not None:
        answered = uncertainty / 7 <= point.limit
        assert (point.answered, point.wrong) == (answered.sum(), wrong[answered].sum())
        assert tail(point.wrong, point.answered, max_error) <= 1 - confidence + 1e-12


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=20, max_size=60), st.integers(1, 4), st.floats(0.1, 0.9))
def test_copies_promise_nothing_more(tmp_path_factory, wrong, copies, max_error):
    """Neither copies of one another nor those of training images, which are answered with certainty."""
    folder = tmp_path_factory.mktemp("run")
    number = len(wrong)
    uncertainty = numpy.arange(1, number + 1) / 100
    write_validation(folder, uncertainty, wrong, is_new=numpy.ones(number, bool))
    alone = threshold_of(folder, max_error)
    assert "Not counted" not in explain(alone)
    assert "groups of images" not in explain(alone)
    write_validation(
        folder,
        [*uncertainty.repeat(copies), *[1e-3] * 50],
        [*numpy.repeat(wrong, copies), *[False] * 50],
        is_new=numpy.arange(copies * number + 50) < copies * number,
        group=numpy.append(numpy.arange(number).repeat(copies), [number] * 50),
    )
    found = threshold_of(folder, max_error)
    assert (found.point is None) == (alone.point is None)
    if alone.point is not None:
        assert found.point.limit == alone.point.limit
        numbers = copies * alone.point.answered, copies * alone.point.wrong
        assert (found.point.answered, found.point.wrong) == numbers
    assert "Not counted: 50 validation images of groups that were trained on" in explain(found)
    said = f"These {copies * number} are of {number} groups of images that belong together"
    assert (said in explain(found)) == (copies > 1)


def test_a_class_without_a_new_image_is_promised_nothing(tmp_path):
    write_validation(tmp_path, numpy.arange(90) / 100, numpy.zeros(90), is_new=numpy.arange(90) < 0)
    assert (
        "all validation images of a class belong together with images that were trained on"
        in explain(threshold_of(tmp_path))
    )
    with refuses("all validation images of a class belong together .* Add images"):
        threshold_of(tmp_path, 0.2)


def test_the_best_share_is_the_smallest_that_holds_beside_the_others(measured):
    uncertainty = numpy.arange(1, 61) / 100
    found = measured(uncertainty, numpy.arange(60) == 50, BEST_PROMISE)
    assert found.share == 0.1
    start = (
        "The limit that promises at most 10 % errors with 95 % confidence, the smallest share that"
    )
    assert explain(found).startswith(start)
    assert not found.rejects(0.3)
    assert found.rejects(0.9)
    none = measured(uncertainty, numpy.arange(60) % 2, BEST_PROMISE)
    assert none.rejects(0.001)
    assert explain(none).startswith("No limit promises at most 20 % errors")


def test_an_answer_is_judged_alike_though_its_last_digits_differ(measured):
    found = measured([0.1, 0.2, 0.3], [0, 0, 1], 0.4, 0.5)
    for uncertainty in (0.2, 0.2 * (1 + 1e-6)):
        assert not found.rejects(uncertainty)
    for uncertainty in (0.201, 0.3, math.nan):
        assert found.rejects(uncertainty)


@pytest.mark.parametrize("mistakes, max_error, words", GOLDEN["thresholds"])
def test_the_rule_in_words_says_what_is_promised_and_what_can_be_had(
    measured, mistakes, max_error, words
):
    """Of 60 validation images; mistakes: the numbers of the wrong ones, by uncertainty."""
    uncertainty = numpy.arange(1, 61) / 100
    wrong = numpy.isin(numpy.arange(60), mistakes)
    found = measured(uncertainty, wrong, max_error)
    assert explain(found) == words
    if found.point is not None:
        assert in_short(found).startswith(
            f"The limit that promises at most {100 * found.share:g} %"
        )
        assert in_short(found).count(". ") == 0, "one sentence"
    expected = None if max_error is None else words.startswith("No limit")
    assert found.rejects(0.01) is expected
    for percent in re.findall(r"at most (\d+) % errors, answering", words):  # it holds
        assert not measured(uncertainty, wrong, int(percent) / 100).rejects(0.01)


@pytest.mark.parametrize("mistakes", [[], [50], [55, 57, 58, 59], [10, *range(30, 60)]])
def test_what_a_report_offers_is_what_each_share_is_given(measured, mistakes):
    """Of 60 validation images: the shares that are named can be promised, and no others."""
    uncertainty = numpy.arange(1, 61) / 100
    wrong = numpy.isin(numpy.arange(60), mistakes)
    said = offered(measured(uncertainty, wrong, BEST_PROMISE).validation)
    named = re.findall(r"at most (\d+) % errors, giving (\d+) of 60", said)
    held = [(share, measured(uncertainty, wrong, share).point) for share in OFFERED]
    held = [(f"{100 * share:g}", f"{point.answered}") for share, point in held if point]
    assert named == held
    assert said.startswith("What --max-error can promise" if held else "No limit ")


def test_a_run_without_validation_images_judges_nothing_and_cannot_be_asked_to(tmp_path):
    found = threshold_of(tmp_path)
    assert found.rejects(0.001) is None
    assert others_as_certain(found.validation, 0.1) == ""
    assert "No rejection threshold can be set" in explain(found)
    with refuses("--max-error needs .*predictions-val.npz"):
        threshold_of(tmp_path, 0.1)


@pytest.mark.parametrize(
    "max_error, confidence, message",
    [(5, 0.95, "--max-error is 5, it is a share"), (0.1, 1, "--confidence is 1, it is a share")],
)
def test_what_is_no_share_is_refused(max_error, confidence, message):
    with refuses(message):
        Wanted(max_error, confidence=confidence).check()


@pytest.mark.parametrize("uncertainty", [[], [math.nan, 0.1], [0.1, math.inf]])
def test_validation_answers_that_are_none_are_refused(measured, uncertainty):
    with refuses("predictions-val.npz can't be read"):
        measured(uncertainty, numpy.zeros(len(uncertainty)), 0.1)
