"""Whether labelled pictures come as the training pictures came: false alarms, alarms, and sentences."""

import numpy
import pytest
from scipy.stats import fisher_exact

from experiments.trust_lab.familiar import fit_familiar
from experiments.trust_lab.shift import LEAST, Shift, lines, too_uncertain, unfamiliar

WIDTH = 8


def pictures(draws, number, moved=0.0):
    return draws.normal(size=(number, WIDTH)) + 1, draws.normal(size=(number, 3)) + moved


@pytest.mark.parametrize("trained", [25, 60, 300])
def test_false_alarms_are_rarer_than_1_in_100_where_pictures_come_as_before(trained):
    """For features too, whose few training pictures leave a share of their own beyond the farthest; of
    400 draws at most 4 or, by chance, a few more."""
    alarms = 0
    for seed in range(400):
        draws = numpy.random.default_rng(seed)
        known = fit_familiar(*pictures(draws, trained), numpy.arange(trained))
        p_values = known.p_values(*pictures(draws, 300))
        alarms += unfamiliar(p_values, known.groups).is_shown
    assert alarms <= 7  # of 400 at 0.5 %: beyond it by chance in 1 of 1,000


def test_pictures_of_a_changed_camera_raise_the_alarm():
    draws = numpy.random.default_rng(0)
    known = fit_familiar(*pictures(draws, 200), numpy.arange(200))
    found = unfamiliar(known.p_values(*pictures(draws, 40, moved=2)), known.groups)
    assert found.is_shown
    (line,) = lines(found, None)
    expected = f"{found.found} of 40 pictures are unlike the run's (2 in 40 are to be expected): the promise does not hold for them"
    assert line == expected


def test_nothing_is_said_of_few_pictures_or_after_few_groups():
    assert not unfamiliar(numpy.zeros(LEAST - 1), 1000).is_shown
    assert unfamiliar(numpy.zeros(LEAST), 1000).is_shown
    assert unfamiliar(numpy.zeros(LEAST), 18).p_value == 1


@pytest.mark.parametrize("rejected", [5, 20, 60])
def test_the_share_of_uncertain_answers_is_compared_by_fishers_exact_test(rejected):
    known = numpy.arange(80) < 16
    found = too_uncertain(rejected, 100, known, numpy.arange(80))
    table = [[rejected, 100 - rejected], [16, 64]]
    assert found.p_value == pytest.approx(fisher_exact(table, "greater").pvalue)
    assert found.expected == pytest.approx(20)


def test_a_group_of_answers_counts_once():
    once = too_uncertain(30, 60, numpy.array([True, False, False, False] * 5), numpy.arange(20))
    twice = too_uncertain(
        30,
        60,
        numpy.repeat([True, False, False, False] * 5, 3),
        numpy.repeat(numpy.arange(20), 3),
    )
    assert once == twice


def test_each_kind_of_shift_has_its_line_and_none_has_none():
    shown = Shift(41, 90, 4.5, 1e-9)
    hidden = Shift(5, 90, 4.5, 0.4)
    assert lines(hidden, hidden) == lines(hidden, None) == []
    assert len(lines(shown, shown)) == 2
    (line,) = lines(hidden, shown)
    assert line.startswith("41 of 90 answers are too uncertain (4 in 90 are to be expected)")
