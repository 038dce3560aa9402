"""Folds, thresholds and promises of multi-label pictures."""

import math

import numpy
import pytest

from labelling.bets import (
    BETS,
    LEAST,
    LIMITS,
    PROMISES,
    Rule,
    above,
    against,
    limit_of_error,
    limit_of_missed,
    smallest_share,
)
from labelling.parts import stratified_folds
from labelling.threshold import OFFERED
from trainers.evaluation.multi_label import best_thresholds, thresholds_of_folds


def drawn(number=400, labels=4, sharpness=2.0, seed=0):
    """Probabilities that are true, labels, and groups of one or two pictures."""
    rng = numpy.random.default_rng(seed)
    groups = numpy.arange(number) - (numpy.arange(number) % 5 == 4)
    logits = sharpness * rng.normal(size=(number, labels))[groups] - 2
    probability = 1 / (1 + numpy.exp(-logits))
    truth = rng.random((number, labels))[groups] < probability
    return probability.astype(numpy.float32), truth, groups


def test_folds_keep_groups_whole_and_spread_each_label_evenly():
    _, truth, groups = drawn()
    truth[:, 0] = False
    truth[groups % 40 == 0, 0] = True  # a rare one
    fold = stratified_folds(truth, groups, 5, seed=1)
    assert all(len({*fold[groups == name]}) == 1 for name in groups)
    for label in range(4):
        counts = numpy.array([truth[fold == part, label].sum() for part in range(5)])
        assert counts.max() - counts.min() <= 3
    sizes = numpy.bincount(fold)
    assert sizes.max() - sizes.min() <= 12
    assert (fold == stratified_folds(truth, groups, 5, seed=1)).all()


def test_the_threshold_of_a_label_is_the_best_of_all_by_f1():
    probability, truth, _ = drawn(60)
    probability = probability.round(1)  # some are equal
    thresholds = best_thresholds(probability, truth)
    for label in range(4):
        right = truth[:, label]

        def f1(limit, answer=probability[:, label], right=right):
            given = answer >= limit
            return 2 * (given & right).sum() / (given.sum() + right.sum())

        best = max(f1(limit) for limit in numpy.unique(probability[:, label]))
        assert f1(thresholds[label]) == pytest.approx(best)


def test_the_thresholds_of_a_fold_are_those_that_are_best_for_the_others():
    probability, truth, groups = drawn(100)
    fold = stratified_folds(truth, groups, 5, 1)
    thresholds = thresholds_of_folds(probability, truth, fold)
    others = truth.copy()
    others[fold == 0] = ~others[fold == 0]
    changed = thresholds_of_folds(probability, others, fold)
    assert (thresholds[0] == changed[0]).all()
    assert (thresholds[1:] != changed[1:]).any()


def test_the_smallest_share_that_can_be_promised_is_what_the_limits_give():
    probability, truth, groups = drawn(1500, sharpness=6.0)
    for option, limit in PROMISES.items():
        made = [s for s in OFFERED if limit(probability, truth, groups, s, 0.95) is not None]
        assert smallest_share(option, probability, truth, groups, 0.95) == min(made)
        assert smallest_share(option, probability[:20], truth[:20], groups[:20], 0.95) is None


def test_a_rule_gives_the_most_probable_labels_first():
    rule = Rule(numpy.array([0.5, 0.2, 0.1]), most=2)
    given = rule.given(numpy.array([[0.6, 0.3, 0.9], [0.4, 0.1, 0.05]]))
    assert given.tolist() == [[True, False, True], [False, False, False]]


def test_sums_above_each_limit_are_means_over_a_groups_pictures():
    probability, truth, groups = drawn(30)
    found = above(probability, truth.astype(float), groups)
    for place, name in enumerate(numpy.unique(groups)):
        own = groups == name
        for number in (0, 100, 320):
            passed = probability[own] >= LIMITS[number]
            assert found[place, number] == pytest.approx((passed & truth[own]).sum() / own.sum())


def test_evidence_is_the_mean_product_of_the_bets():
    excess = numpy.array([[-0.1, 0.9], [-0.2, -0.1]])
    expected = numpy.mean([numpy.prod(1 - bet / 1.8 * excess, axis=0) for bet in BETS], axis=0)
    numpy.testing.assert_allclose(against(excess, 1.8), expected)


def test_evidence_is_rarely_large_where_the_promise_is_broken():
    """At a mean of zero, in at most 5 % of many draws it is 20 or more (Markov)."""
    rng = numpy.random.default_rng(0)
    wrong = rng.random((200, 4000)) < 0.2
    assert (against(wrong - 0.2, 0.8) >= 20).mean() <= 0.05
    right = rng.random((200, 4000)) < 0.05
    assert (against(right - 0.2, 0.8) >= 20).mean() > 0.9


def evidence_by_loops(excess, most):
    """The mean over the bets of the products over groups, each 1 − bet / most · excess."""
    return math.fsum(math.prod(1 - bet / most * each for each in excess) for bet in BETS) / len(
        BETS
    )


def mean_over_pictures(groups, values):
    """The mean of the values of each group's pictures."""
    return [math.fsum(own) / len(own) for own in ([*values[groups == name]] for name in {*groups})]


def error_limit_by_loops(probability, truth, groups, share, confidence):
    """See ``limit_of_error``."""
    most = int(truth.sum(axis=1).max())
    rank = (-probability).argsort(axis=1, kind="stable").argsort(axis=1)
    passed, having = [], []
    limits = [*LIMITS[::-1]]
    for limit in limits:
        given = (probability >= limit) & (rank < most)
        wrong = (given & ~truth).sum(axis=1) - share * given.sum(axis=1)
        passed.append(evidence_by_loops(mean_over_pictures(groups, wrong), (1 - share) * most))
        having.append(len({*groups[given.any(axis=1)]}))
    starts = []
    number = len({*groups})
    while number >= LEAST:
        reached = [place for place, count in enumerate(having) if count >= number]
        starts += reached[:1]
        number //= 2
    best = None
    for start in starts:
        place = start
        while place < len(limits) and passed[place] >= len(starts) / (1 - confidence):
            best = place if best is None else max(best, place)
            place += 1
    return None if best is None else limits[best]


def missed_limit_by_loops(probability, truth, groups, share, confidence):
    """See ``limit_of_missed``."""
    most = int(truth.sum(axis=1).max())
    best = None
    for limit in LIMITS:
        missed = (truth & (probability < limit)).sum(axis=1) - share * truth.sum(axis=1)
        evidence = evidence_by_loops(mean_over_pictures(groups, missed), (1 - share) * most)
        if evidence < 1 / (1 - confidence):
            break
        best = limit
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_limits_are_those_of_loops(seed, share):
    """Labels of a picture together, groups once, and a risk that all starts share."""
    probability, truth, groups = drawn(300, sharpness=4.0, seed=seed)
    truth[truth.all(axis=1), 0] = False
    for limit, expected in (
        (limit_of_error, error_limit_by_loops),
        (limit_of_missed, missed_limit_by_loops),
    ):
        rule = limit(probability, truth, groups, share, 0.95)
        found = None if rule is None else rule.thresholds[0]
        assert found == expected(probability, truth, groups, share, 0.95)
        if rule is not None:
            most = truth.sum(axis=1).max() if limit is limit_of_error else truth.shape[1]
            assert rule.most == most


@pytest.mark.parametrize("limit, share", [(limit_of_error, 0.3), (limit_of_missed, 0.3)])
def test_a_promise_holds_on_its_own_pictures_and_a_smaller_one_gives_less_room(limit, share):
    probability, truth, groups = drawn(1000, sharpness=4.0)
    rule = limit(probability, truth, groups, share, 0.95)
    given = rule.given(probability)
    is_error = limit is limit_of_error
    wrong = (given & ~truth).sum() if is_error else (truth & ~given).sum()
    of = given.sum() if is_error else truth.sum()
    assert 0 < wrong < share * of
    assert limit(probability, truth, groups, 1e-4, 0.95) is None
    stricter = limit(probability, truth, groups, 0.2, 0.95)
    if is_error:
        assert stricter is None or stricter.thresholds[0] >= rule.thresholds[0]
    else:
        assert stricter.thresholds[0] <= rule.thresholds[0]


def test_a_group_counts_once_however_many_pictures_it_has():
    probability, truth, groups = drawn(200, sharpness=4.0)
    tenfold = [numpy.repeat(values, 10, axis=0) for values in (probability, truth, groups)]
    for limit in (limit_of_error, limit_of_missed):
        once = limit(probability, truth, groups, 0.3, 0.95)
        many = limit(*tenfold, 0.3, 0.95)
        assert (once is None) == (many is None)
        if once is not None:
            assert once.thresholds[0] == many.thresholds[0]
