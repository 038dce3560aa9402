"""Whether labelled pictures come as the training pictures came: false alarms, alarms, and sentences."""

import math
import statistics

import numpy
import pytest

from labelling.familiar import fit_familiar
from labelling.shift import FEWEST_PICTURES, Shift, less_certain, lines, unfamiliar

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
    assert line.startswith(
        f"{found.found} of 40 pictures are unlike the run's (2 in 40 are to be expected): no promise holds for them"
    )


def test_nothing_is_said_of_few_pictures_or_after_few_groups():
    assert not unfamiliar(numpy.zeros(FEWEST_PICTURES - 1), 1000).is_shown
    assert unfamiliar(numpy.zeros(FEWEST_PICTURES), 1000).is_shown
    assert unfamiliar(numpy.zeros(FEWEST_PICTURES), 18).p_value == 1


@pytest.mark.parametrize("own, asked", [(25, 30), (60, 300), (300, 90)])
def test_certainties_as_before_raise_an_alarm_in_fewer_than_1_of_100(own, asked):
    """Of 1,000 draws at 0.5 % at most 12: more by chance in 1 of 400."""
    draws = numpy.random.default_rng(own)
    alarms = [
        less_certain(draws.beta(1, 5, asked), draws.beta(1, 5, own)).is_shown for _ in range(1000)
    ]
    assert sum(alarms) <= 12


def ranks_by_loops(uncertainty, own):
    """Mann and Whitney's U, and the normal approximation of its chance, without ties."""
    u = sum(one > other for one in uncertainty for other in own)
    number = len(uncertainty) * len(own)
    deviation = math.sqrt(number * (len(uncertainty) + len(own) + 1) / 12)
    return statistics.NormalDist().cdf(-(u - number / 2 - 0.5) / deviation)


def test_less_certain_answers_are_found_by_their_ranks():
    draws = numpy.random.default_rng(0)
    own, asked = draws.beta(1, 5, 80), draws.beta(2, 5, 60)
    found = less_certain(asked, own)
    assert found.p_value == pytest.approx(ranks_by_loops(asked, own), rel=1e-6)
    assert found.found == sum(one > statistics.median(own) for one in asked)
    assert found.expected == 30
    assert found.is_shown
    assert less_certain(own, asked).p_value > 0.5, "answers that are more certain are no alarm"


def test_each_kind_of_shift_has_its_line_and_none_has_none():
    shown = Shift(41, 90, 4.5, 1e-9)
    hidden = Shift(5, 90, 4.5, 0.4)
    assert lines(hidden, hidden) == lines(None, None) == lines(hidden, None) == []
    assert len(lines(shown, shown)) == 2
    (line,) = lines(None, shown)
    assert line.startswith(
        "41 of 90 answers are less certain than the run's median (4 in 90 are to be expected)"
    )
