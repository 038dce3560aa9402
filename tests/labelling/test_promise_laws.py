"""What a promise is computed from, against loops and closed forms."""

import math

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelling.means import chance_of_mean
from labelling.threshold import (
    OFFERED,
    Held,
    Validation,
    best_threshold,
    possible,
    promised,
    threshold_at,
)


@st.composite
def made(draw):
    """Which of up to 400 answers are wrong, the most certain first, fewer of these."""
    number = draw(st.integers(1, 400))
    least, most = sorted((draw(st.floats(0, 0.4)), draw(st.floats(0, 0.4))))
    generator = numpy.random.default_rng(draw(st.integers(0, 10**6)))
    return (generator.random(number) < numpy.linspace(least, most, number)).tolist()


mistakes = made()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
@example([(1, True), (1, True), (0, False), (1, False), (2, True)])
def test_a_point_counts_every_image_and_every_mistake_up_to_its_uncertainty(images):
    """Also where several have the same uncertainty."""
    uncertainty = [step / 4 for step, _ in images]
    wrong = [is_wrong for _, is_wrong in images]
    points = Held(numpy.array(uncertainty), numpy.array(wrong)).points
    assert [point.uncertainty for point in points] == sorted({*uncertainty})
    for point in points:
        within = [mistake for value, mistake in zip(uncertainty, wrong) if value <= point.limit]
        assert within == [
            mistake for value, mistake in zip(uncertainty, wrong) if value <= point.uncertainty
        ]
        assert (point.answered, point.wrong) == (len(within), sum(within))


@pytest.mark.parametrize("share, part", [(0.05, 1 / 16), (0.1, 1 / 4), (0.2, 1), (0.4, 1)])
@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_a_small_share_takes_more_images_than_its_confidence_alone(share, part, risk):
    """n right answers show that at most a share s is wrong where (1 − s)ⁿ is at most the risk: with s
    half as large a quarter of it, below 20 %."""
    least = next(n for n in range(1, 1000) if (1 - share) ** n <= risk * part)
    for images in (least - 1, least):
        uncertainty = numpy.linspace(0.1, 0.9, images)
        held = Held(uncertainty, numpy.zeros(images, bool))
        assert (promised(held, share, 1 - risk) is not None) == (images == least)


def chance_alone(wrong, images, share):
    """P(Bin(images, share) ≤ mistakes) of so many first images."""
    chances = [
        math.comb(images, k) * share**k * (1 - share) ** (images - k)
        for k in range(sum(wrong[:images]) + 1)
    ]
    return math.fsum(chances)


def chance_of_groups(wrong, images, share):
    """The same of groups, by the test of means."""
    excess = numpy.zeros(len(wrong))
    excess[:images] = numpy.array(wrong[:images]) - share
    return chance_of_mean(excess, 1 - share)


def accepted_by_loops(wrong, share, risk, chance=chance_alone):
    """The most images, or groups, that are accepted, of answers that are all differently certain; 0 for none."""
    starts = []
    for number in range(1, 12):
        least = next(n for n in range(1, 5000) if (1 - share) ** n <= risk / number)
        if number == 1 or least * 2 ** (number - 1) <= len(wrong):
            starts = [least * 2**power for power in range(number)]
    most = 0
    for start in starts:
        images = start
        shared = 0
        while images <= len(wrong):
            if chance is chance_alone:  # the shares of later starts, while nothing has failed
                shared += images in starts
            else:
                shared = 1
            if chance(wrong, images, share) > shared * risk / len(starts):
                break
            most = max(most, images)
            images += 1
    return most


@settings(deadline=None, max_examples=50)
@given(mistakes, st.sampled_from([(0.05, 0.05 / 16), (0.1, 0.05 / 4), (0.2, 0.05), (0.3, 0.05)]))
def test_the_limit_is_that_of_loops_over_binomial_sums(wrong, rule):
    share, risk = rule
    point = promised(Held(numpy.arange(1, len(wrong) + 1) / 1000, numpy.array(wrong)), share)
    assert (point.answered if point else 0) == accepted_by_loops(wrong, share, risk)


def test_the_starts_of_groups_hand_no_risk_on():
    """Each group being the same picture twice."""
    draws = numpy.random.default_rng(0)
    fewer = 0
    for _ in range(6):
        wrong = draws.random(150) < numpy.linspace(0, 0.5, 150)
        certain = numpy.arange(150).repeat(2)
        point = promised(Held(certain / 1000, wrong.repeat(2), certain), 0.2)
        found = point.answered // 2 if point else 0
        assert found == accepted_by_loops(wrong, 0.2, 0.05, chance_of_groups)
        fewer += found < accepted_by_loops(wrong, 0.2, 0.05)
    assert fewer


@settings(deadline=None)
@given(mistakes, st.sampled_from([0.5, 0.8, 0.95, 0.99]), st.integers(1, 5))
def test_the_best_share_is_the_smallest_of_those_that_are_given_when_asked_for(
    wrong, confidence, ties
):
    """And no larger one of them is refused, nor answers fewer."""
    uncertainty = (1 + numpy.arange(len(wrong)) // ties) / 1000
    validation = Validation(Held(uncertainty, numpy.array(wrong)))
    asked = {share: threshold_at(share, validation, confidence).point for share in OFFERED}
    had = {share: point for share, point in asked.items() if point is not None}
    assert [*had] == [share for share in OFFERED if share >= min(had, default=1)]
    answered = [point.answered for point in had.values()]
    assert answered == sorted(answered)
    assert possible(validation.held, confidence) == had
    best = best_threshold(validation, confidence)
    assert best.share == min(had, default=OFFERED[-1])
    assert best.point == had.get(best.share)
