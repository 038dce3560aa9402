"""Folds, thresholds and promises of multi-label pictures."""

import math

import numpy
import pytest

from labelling.limits import (
    FEWEST_LABELS,
    LIMITS,
    NEVER,
    PROMISES,
    LabelLimits,
    limit_of_error,
    limit_of_missed,
    lowest_limit,
    possible_limits,
    sums_above_limits,
    worth_of,
)
from labelling.means import chance_of_mean
from labelling.parts import stratified_folds
from labelling.threshold import OFFERED
from tests.conftest import slow_but_for
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
        assert min(possible_limits(option, probability, truth, groups, 0.95)) == min(made)
        assert not possible_limits(option, probability[:20], truth[:20], groups[:20], 0.95)


def test_a_rule_gives_the_most_probable_labels_first():
    rule = LabelLimits(numpy.array([0.5, 0.2, 0.1]), most=2)
    given = rule.given(numpy.array([[0.6, 0.3, 0.9], [0.4, 0.1, 0.05]]))
    assert given.tolist() == [[True, False, True], [False, False, False]]


def test_sums_above_each_limit_are_means_over_a_groups_pictures():
    probability, truth, groups = drawn(30)
    found = sums_above_limits(probability, truth.astype(float), groups)
    for place, name in enumerate(numpy.unique(groups)):
        own = groups == name
        for number in (0, 100, 320):
            passed = probability[own] >= LIMITS[number]
            assert found[place, number] == pytest.approx((passed & truth[own]).sum() / own.sum())


def mean_over_pictures(groups, values):
    """The mean of the values of each group's pictures."""
    return numpy.array([numpy.mean(values[groups == name]) for name in sorted({*groups})])


def error_limit_by_loops(answer, wrong, groups, share, risk):
    """See ``lowest_limit``."""
    most = answer.shape[1]
    chances, having = [], []
    limits = [*LIMITS[::-1]]
    for limit in limits:
        given = answer >= limit
        excess = (given & wrong).sum(axis=1) - share * given.sum(axis=1)
        chances.append(chance_of_mean(mean_over_pictures(groups, excess), (1 - share) * most))
        having.append(math.fsum(mean_over_pictures(groups, given.sum(axis=1))) + 1e-9)
    starts = []
    number = len({*groups}) * most
    while number >= FEWEST_LABELS:
        reached = [place for place, count in enumerate(having) if count >= number]
        starts += reached[:1]
        number //= 2
    best = NEVER
    for start in starts:
        place = start
        shared = 0
        while place < len(limits):
            shared += starts.count(place)  # and those of later starts, while nothing has failed
            if chances[place] > shared * risk / len(starts):
                break
            best = min(best, limits[place])
            place += 1
    return best


def missed_limit_by_loops(probability, truth, groups, share, confidence):
    """See ``limit_of_missed``."""
    most = int(truth.sum(axis=1).max())
    best = None
    for limit in LIMITS:
        missed = (truth & (probability < limit)).sum(axis=1) - share * truth.sum(axis=1)
        excess = mean_over_pictures(groups, missed)
        if chance_of_mean(excess, (1 - share) * most) > 1 - confidence:
            break
        best = limit
    return best


@slow_but_for((0,), range(4), "seed")
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_limits_are_those_of_loops(seed, share):
    """Groups once, and a risk that all starts share."""
    probability, truth, groups = drawn(300, sharpness=4.0, seed=seed)
    found = lowest_limit(probability, ~truth, groups, share, 0.05)
    assert found == error_limit_by_loops(probability, ~truth, groups, share, 0.05)
    rule = limit_of_missed(probability, truth, groups, share, 0.95)
    expected = missed_limit_by_loops(probability, truth, groups, share, 0.95)
    assert (None if rule is None else rule.thresholds[0]) == expected
    if rule is not None:
        assert rule.most == truth.shape[1]


def likely(seed, pictures, wrong_of):
    """Probabilities and labels of pictures: each label is likely for two in five, and then wrong by
    ``wrong_of``."""
    draws = numpy.random.default_rng(seed)
    shape = pictures, len(wrong_of)
    is_likely = draws.random(shape) < 0.4
    probability = numpy.where(
        is_likely, draws.uniform(0.6, 1, shape), draws.uniform(0, 0.01, shape)
    )
    return probability, is_likely & (draws.random(shape) >= numpy.array(wrong_of))


def test_a_label_that_is_often_wrong_is_left_out_and_spoils_no_other():
    probability, truth = likely(0, 800, [0.01, 0.01, 0.7])
    rule = limit_of_error(probability, truth, numpy.arange(800), 0.1, 0.95)
    assert (rule.thresholds == NEVER).tolist() == [False, False, True]
    worth = worth_of(rule.given(probability), truth)
    assert worth.wrong < 0.1
    assert worth.given > 0.6


def test_one_limit_of_all_labels_is_given_what_labels_alone_are_too_few_for():
    probability, truth = likely(0, 100, [0.02] * 8)
    rule = limit_of_error(probability, truth, numpy.arange(100), 0.2, 0.95)
    assert len({*rule.thresholds}) == 1
    alone = [
        limit_of_error(probability[:, [k]], truth[:, [k]], numpy.arange(100), 0.05, 0.95)
        for k in range(8)
    ]
    assert alone == [None] * 8


def test_all_limits_that_are_tried_share_the_risk(monkeypatch):
    risks = []

    def lowest(*given):
        *_, risk = given
        risks.append(risk)
        return NEVER

    monkeypatch.setattr("labelling.limits.lowest_limit", lowest)
    assert limit_of_error(*drawn(50), 0.2, 0.95) is None
    assert len(risks) == 1 + 4, "one for all labels, and one for each"
    assert math.fsum(risks) == pytest.approx(0.05)


@pytest.mark.slow
def test_at_the_edge_limits_are_given_no_more_often_than_their_risk():
    """Each label is wrong in exactly the share that is promised."""
    given = 0
    for seed in range(200):
        probability, truth = likely(seed, 150, [0.2] * 4)
        given += limit_of_error(probability, truth, numpy.arange(150), 0.2, 0.95) is not None
    assert given <= 200 * 0.05 + 3 * (200 * 0.05) ** 0.5


def test_the_worth_of_labels_is_what_a_loop_counts():
    given, truth = numpy.random.default_rng(0).random((2, 30, 4)) < 0.4
    cells = [*zip(given.ravel().tolist(), truth.ravel().tolist())]
    right = cells.count((True, True))
    all_given = right + cells.count((True, False))
    worth = worth_of(given, truth)
    assert worth.given == pytest.approx(all_given / 30)
    assert worth.wrong == pytest.approx(1 - right / all_given)
    assert worth.found == pytest.approx(right / (right + cells.count((False, True))))


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
