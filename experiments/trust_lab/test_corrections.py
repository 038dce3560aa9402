"""Corrected rows that were chosen: how often it is said, and what weights make of them."""

import numpy
import pytest

from experiments.trust_lab.corrections import chosen, weighted_accuracy


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


def test_weights_undo_a_known_choice_of_uncertain_rows():
    """Rows are asked for the more often the more uncertain they are, and wrong as often as they are
    uncertain."""
    naive = []
    weighted = []
    for seed in range(200):
        draws = numpy.random.default_rng(seed)
        uncertainty = draws.random(2000)
        right = draws.random(2000) >= uncertainty
        probability = 0.05 + 0.4 * uncertainty
        asked = draws.random(2000) < probability
        naive.append(right[asked].mean() - right.mean())
        weighted.append(weighted_accuracy(right[asked], probability[asked]) - right.mean())
    assert abs(numpy.mean(weighted)) < 0.01
    assert numpy.mean(naive) < -0.05


@pytest.mark.parametrize("probability", [0.0, 1.5, numpy.nan])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(ValueError, match="not above 0 and at most 1"):
        weighted_accuracy(numpy.array([True]), numpy.array([probability]))
