"""Promises on pictures that come in groups: how often a false one is given, in simulations at the edge of what
may be promised; and what they cost."""

import numpy
import pytest

from experiments.trust_lab.promise import (
    NEVER,
    Cost,
    cost_of,
    limits_of_labels,
    promised_for,
    says_cost,
    says_share,
)
from labelling.threshold import points_of, promised, risk_of

SENDERS = 65


def sent(draws, error, shots=8, spread=0.8):
    """Uncertainties, mistakes and senders of pictures: the mistakes of a sender depend on each other, and a
    share ``error`` of all is wrong, however uncertain."""
    groups = numpy.repeat(numpy.arange(SENDERS), draws.integers(1, shots, SENDERS))
    concentration = (1 - spread) / spread
    of_sender = draws.beta(error * concentration, (1 - error) * concentration, SENDERS)
    wrong = draws.random(len(groups)) < of_sender[groups]
    return draws.random(len(groups)), wrong, groups


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_at_the_edge_a_promise_is_given_no_more_often_than_its_risk(share):
    """Where exactly that share of the labels is wrong, under each limit: of 400 draws."""
    given = 0
    for seed in range(400):
        given += promised_for(*sent(numpy.random.default_rng(seed), share), share, 0.95) is not None
    assert given <= 400 * risk_of(share) + 3 * (400 * risk_of(share)) ** 0.5


def test_pictures_of_a_sender_count_as_one_where_the_binomial_bound_counts_each():
    """Which breaks its promise, as its independence does not hold."""
    broken = {"one by one": 0, "in groups": 0}
    for seed in range(200):
        uncertainty, wrong, groups = sent(numpy.random.default_rng(seed), 0.2, shots=30)
        alone = promised(points_of(uncertainty, wrong), 0.2)
        broken["one by one"] += alone is not None
        broken["in groups"] += promised_for(uncertainty, wrong, groups, 0.2, 0.95) is not None
    assert broken["in groups"] <= 0.05 * 200 + 6
    assert broken["one by one"] > 2 * 0.05 * 200


def test_what_65_senders_show_is_promised():
    """One of twenty wrong: nearly always at most a fifth, and all pictures count."""
    draws = [sent(numpy.random.default_rng(seed), 0.05, spread=0.4) for seed in range(40)]
    points = [promised_for(*draw, 0.2, 0.95) for draw in draws]
    assert sum(point is not None for point in points) >= 36
    for (uncertainty, wrong, _), point in zip(draws, points):
        if point is not None:
            accepted = uncertainty <= point.limit
            assert (point.answered, point.wrong) == (accepted.sum(), wrong[accepted].sum())
            assert point.uncertainty == uncertainty[accepted].max()


@pytest.mark.parametrize("seed", range(5))
def test_pictures_that_stand_alone_have_the_binomial_bound_to_the_bit(seed):
    draws = numpy.random.default_rng(seed)
    uncertainty = draws.random(300).astype(numpy.float32)
    wrong = draws.random(300) < uncertainty / 3
    found = promised_for(uncertainty, wrong, draws.permutation(300), 0.2, 0.95)
    assert found is not None
    assert found == promised(points_of(uncertainty, wrong), 0.2, 0.95)


def test_copies_of_all_pictures_in_their_groups_change_nothing():
    uncertainty, wrong, groups = sent(numpy.random.default_rng(3), 0.05)
    once = promised_for(uncertainty, wrong, groups, 0.2, 0.95)
    twice = promised_for(*(numpy.tile(part, 2) for part in (uncertainty, wrong, groups)), 0.2, 0.95)
    assert once is not None
    assert twice is not None
    assert twice.limit == once.limit
    assert (twice.answered, twice.wrong) == (2 * once.answered, 2 * once.wrong)


# ---- several labels ----


def labelled(draws, pictures, wrong_of, share_of):
    """Probabilities and labels of pictures: a label is likely for a share of them, and then wrong by
    ``wrong_of``, of each label."""
    likely = draws.random((pictures, len(wrong_of))) < share_of
    probability = numpy.where(
        likely, draws.uniform(0.6, 1, likely.shape), draws.uniform(0, 0.01, likely.shape)
    )
    truth = likely & (draws.random(likely.shape) >= numpy.array(wrong_of))
    return probability, truth


def test_a_label_that_is_often_wrong_is_left_out_and_spoils_no_other():
    probability, truth = labelled(numpy.random.default_rng(0), 800, [0.01, 0.01, 0.7], 0.4)
    groups = numpy.arange(800)
    found = limits_of_labels(probability, truth, groups, 0.1, 0.95)
    assert found is not None
    assert (found.thresholds == NEVER).tolist() == [False, False, True]
    cost = cost_of(found.given(probability), truth)
    assert cost.wrong < 0.1
    assert cost.given > 0.6


def test_at_the_edge_limits_of_labels_are_given_no_more_often_than_their_risk():
    """Each label is wrong in exactly the share that is promised."""
    given = 0
    for seed in range(200):
        probability, truth = labelled(numpy.random.default_rng(seed), 300, [0.2] * 4, 0.4)
        given += limits_of_labels(probability, truth, numpy.arange(300), 0.2, 0.95) is not None
    assert given <= 200 * 0.05 + 3 * (200 * 0.05) ** 0.5


def test_what_cannot_be_promised_of_any_label_is_not_promised():
    probability, truth = labelled(numpy.random.default_rng(0), 300, [0.5, 0.5], 0.4)
    assert limits_of_labels(probability, truth, numpy.arange(300), 0.1, 0.95) is None


def test_a_costly_promise_says_what_it_costs_and_another_does_not():
    best = Cost(given=2.0, wrong=0.3, found=0.6)
    dear = Cost(given=7.2, wrong=0.75, found=0.9)
    line = says_cost(dear, best)
    assert line.startswith("7.2 labels a picture, about 75 in 100 of them wrong")
    assert says_cost(best, best) == ""
    assert says_share(dear, best) == (
        "Labels a picture: 2.0 before, 7.2 with the promise; of the labels that pictures have 60 % are given before, "
        "90 % with it"
    )


def test_a_cost_is_what_a_loop_counts():
    draws = numpy.random.default_rng(0)
    given, truth = draws.random((2, 30, 4)) < 0.4
    cells = [*zip(given.ravel().tolist(), truth.ravel().tolist())]
    right = cells.count((True, True))
    all_given = right + cells.count((True, False))
    expected = (all_given / 30, 1 - right / all_given, right / (right + cells.count((False, True))))
    cost = cost_of(given, truth)
    assert (cost.given, cost.wrong, cost.found) == pytest.approx(expected)
