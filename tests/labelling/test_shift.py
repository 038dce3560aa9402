"""Whether labelled pictures come as the training pictures came: false alarms, alarms, and sentences."""

import math
import statistics
from collections import Counter

import numpy
import pytest

from labelling.familiar import fit_familiar
from labelling.shift import FEWEST_PICTURES, Shift, higher_ranked, lines, unfamiliar

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
    (line,) = lines(found, None, "")
    assert line.startswith(
        f"{found.found} of 40 pictures are unlike the run's (2 in 40 are to be expected): no promise holds for them"
    )


def test_nothing_is_said_of_few_pictures_or_after_few_groups():
    assert not unfamiliar(numpy.zeros(FEWEST_PICTURES - 1), 1000).is_shown
    assert unfamiliar(numpy.zeros(FEWEST_PICTURES), 1000).is_shown
    assert unfamiliar(numpy.zeros(FEWEST_PICTURES), 18).p_value == 1


@pytest.mark.parametrize("own, asked", [(25, 30), (60, 300), (300, 90)])
def measured(draws, number, shape=1.0, moved=0.0):
    """Uncertainties, and how unfamiliar the pictures are, which go together a little (number, 2)."""
    uncertainty = draws.beta(shape, 5, number)
    return numpy.stack([uncertainty, uncertainty + draws.normal(moved, 1, number)], axis=1)


@pytest.mark.parametrize("own, asked", [(25, 30), (60, 300), (300, 90)])
def test_answers_as_before_raise_an_alarm_in_fewer_than_1_of_100(own, asked):
    """Of 1,000 draws at 0.5 % at most 12: more by chance in 1 of 400."""
    draws = numpy.random.default_rng(own)
    alarms = [
        higher_ranked(measured(draws, asked), measured(draws, own)).is_shown for _ in range(1000)
    ]
    assert sum(alarms) <= 12


def ranks_by_loops(measures, own):
    """Mann and Whitney's U of sums of ranks, and the normal approximation of its chance."""
    every = [*own.tolist(), *measures.tolist()]
    places = [sum(other[0] <= one[0] for other in every) for one in every]
    places = [
        place + sum(other[1] <= one[1] for other in every) for place, one in zip(places, every)
    ]
    before, after = places[: len(own)], places[len(own) :]
    u = sum((one > other) + (one == other) / 2 for one in after for other in before)
    ties = sum(count**3 - count for count in Counter(places).values())
    total = len(every)
    number = len(before) * len(after)
    variance = number / 12 * (total + 1 - ties / (total * (total - 1)))
    chance = statistics.NormalDist().cdf(-(u - number / 2 - 0.5) / math.sqrt(variance))
    return chance, sum(one > statistics.median(before) for one in after)


@pytest.mark.parametrize("shape, moved", [(2, 0), (1, 1), (1.3, 0.4)])
def test_less_certain_or_less_familiar_answers_are_found_by_their_ranks(shape, moved):
    draws = numpy.random.default_rng(0)
    own, asked = measured(draws, 80), measured(draws, 60, shape, moved)
    found = higher_ranked(asked, own)
    chance, number = ranks_by_loops(asked, own)
    assert found.p_value == pytest.approx(chance, rel=1e-6)
    assert found.found == number
    assert found.expected == 30
    assert found.is_shown
    assert higher_ranked(own, asked).p_value > 0.5, "answers that are more certain are no alarm"


def test_each_kind_of_shift_has_its_line_and_none_has_none():
    shown = Shift(41, 90, 4.5, 1e-9)
    hidden = Shift(5, 90, 4.5, 0.4)
    assert lines(hidden, hidden, "") == lines(None, None, "") == lines(hidden, None, "") == []
    assert len(lines(shown, shown, "less certain")) == 2
    (line,) = lines(None, shown, "less certain")
    assert line.startswith(
        "41 of 90 answers are less certain than the run's median (4 in 90 are to be expected)"
    )
