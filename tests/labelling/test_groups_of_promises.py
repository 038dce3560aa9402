"""Promises on pictures that come in groups: how often a false one is made at the edge, and what is promised."""

import numpy
import pytest

from labelling.threshold import Held, promised, risk_of

SENDERS = 65


def sent(seed, error, shots=12, spread=0.5):
    """A run's answers to what people send: the mistakes of a sender depend on each other, and a share
    ``error`` of all is wrong, however uncertain."""
    draws = numpy.random.default_rng(seed)
    group = numpy.repeat(numpy.arange(SENDERS), draws.integers(2, shots, SENDERS))
    concentration = (1 - spread) / spread
    of_sender = draws.beta(error * concentration, (1 - error) * concentration, SENDERS)
    wrong = draws.random(len(group)) < of_sender[group]
    return Held(draws.random(len(group)), wrong, group)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_at_the_edge_a_promise_is_made_no_more_often_than_its_risk(share):
    """Where exactly that share of the labels is wrong, under each limit."""
    made = sum(promised(sent(seed, share), share) is not None for seed in range(100))
    assert made <= 100 * risk_of(share) + 3 * (100 * risk_of(share)) ** 0.5


def test_one_by_one_pictures_of_a_sender_break_the_promise():
    """As they depend on each other."""
    alone = 0
    for seed in range(100):
        held = sent(seed, 0.2, shots=30, spread=0.8)
        alone += promised(Held(held.uncertainty, held.wrong), 0.2) is not None
    assert alone > 2 * 0.05 * 100


def test_what_65_senders_show_is_promised_of_all_their_pictures():
    """One in twenty wrong: nearly always at most a fifth is."""
    made = 0
    for seed in range(20):
        held = sent(seed, 0.05, spread=0.2)
        point = promised(held, 0.2)
        made += point is not None
        if point is not None:
            accepted = held.uncertainty <= point.limit
            assert (point.answered, point.wrong) == (accepted.sum(), held.wrong[accepted].sum())
    assert made >= 18


def test_groups_of_one_picture_each_change_nothing_and_a_pair_hands_no_risk_on():
    draws = numpy.random.default_rng(0)
    uncertainty = draws.random(300).astype(numpy.float32)
    wrong = draws.random(300) < uncertainty / 3
    alone = promised(Held(uncertainty, wrong), 0.2)
    assert alone is not None
    assert promised(Held(uncertainty, wrong, draws.permutation(300)), 0.2) == alone
    pair = numpy.append(numpy.arange(299), 298)
    both = promised(Held(uncertainty, wrong, pair), 0.2)
    assert 0 <= alone.answered - both.answered < 30
