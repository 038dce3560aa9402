"""The p-value of the mean of groups, against the binomial distribution, draws and its own promise."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from labelling.means import chance_of_mean


@given(st.integers(10, 3000), st.floats(0, 1), st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.5]))
def test_single_pictures_have_the_exact_binomial_test(number, part, share):
    """Also beside pictures that have no label."""
    wrong = round(part * min(number, 3 * share * number))
    excess = numpy.full(number + 7, -share)
    excess[:wrong] += 1
    excess[number:] = 0
    expected = binom.cdf(wrong, number, share)
    assert chance_of_mean(excess, 1 - share) == pytest.approx(expected, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("most", [0.8, 2.4])
def test_means_of_groups_have_the_probability_of_weighted_draws(most):
    draws = numpy.random.default_rng(0)
    excess = (draws.random(25) ** 3 - 0.2) * most / 0.8
    exponential = draws.exponential(size=(200_000, 26))
    above = exponential @ numpy.append(excess, most) > 0
    deviation = (above.mean() * (1 - above.mean()) / len(above)) ** 0.5
    assert chance_of_mean(excess, most) == pytest.approx(above.mean(), abs=4 * deviation)


def test_larger_excesses_are_more_probable_and_the_order_is_none_of_its_business():
    draws = numpy.random.default_rng(1)
    excess = draws.random(40) - 0.6
    chance = chance_of_mean(excess, 0.9)
    assert chance == pytest.approx(chance_of_mean(draws.permutation(excess), 0.9))
    excess[3] += 0.1
    assert chance_of_mean(excess, 0.9) > chance
    assert chance_of_mean(numpy.full(20, 0.5), 0.9) == pytest.approx(1, abs=1e-6)


# a group's mean, and how often: mean excess of zero
EDGES = {
    "all or nothing": ([-0.2, 0.8], [0.8, 0.2]),
    "half or nothing": ([-0.2, 0.3], [0.6, 0.4]),
    "seldom all": ([-0.2, 0.0, 0.8], [0.3, 0.625, 0.075]),
    "three kinds": ([-0.2, 0.05, 0.8], [0.6, 4 / 15, 2 / 15]),
    "many small ones": ([-0.05, 0.0, 0.05, 0.8], [0.36, 0.495625, 0.13, 0.014375]),
}


@pytest.mark.parametrize("number", [20, 65])
@pytest.mark.parametrize("kind", EDGES)
def test_at_the_edge_it_is_no_smaller_than_it_says(kind, number):
    """Of draws whose mean excess is zero, or a hair above, at most a share p has a p-value of at most p."""
    values, weights = (numpy.array(part) for part in EDGES[kind])
    assert values @ weights == pytest.approx(0)
    draws = numpy.random.default_rng(0).choice(values, size=(600, number), p=weights)
    chances = numpy.array([chance_of_mean(own, 0.8) for own in draws])
    for level in (0.01, 0.05, 0.2):
        deviation = (level * (1 - level) / len(draws)) ** 0.5
        assert (chances <= level).mean() <= level + 3 * deviation
