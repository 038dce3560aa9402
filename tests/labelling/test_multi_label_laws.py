"""What is chosen for multi-label pictures: thresholds, samples and promises."""

import json

import numpy
import pytest
from scipy.stats import binom

from labelling import PromptedClassifier
from labelling.limits import JOINT_SHARE, limit_of_error, limit_of_missed, starts_at
from labelling.parts import draw_sample, of_each_label
from labelling.rules import Wanted, rule_of
from tests.labelling.cases import MULTI, NAMES
from tests.runs import make_record, record_of, refuses, write_answers
from trainers.common.record_file import read_answers
from trainers.data.lists import Image
from trainers.evaluation.multi_label import best_thresholds

# ---- thresholds ----


def test_thresholds_are_the_best_for_what_was_answered_out_of_fold(run_of):
    """Those of a fold for the other folds, those of later pictures for all."""
    run = run_of(MULTI)
    arrays = read_answers(str(run), "test", record_of(run))
    probability, truth, fold = (arrays[name] for name in ("probability", "truth", "fold"))
    assert len({*fold.tolist()}) == 5
    for part, own in enumerate(arrays["threshold"]):
        others = fold != part
        assert own.tolist() == best_thresholds(probability[others], truth[others]).tolist()
    best = best_thresholds(probability, truth)
    assert len({*best.tolist()}) == 3
    assert PromptedClassifier.load(run).method.learner.thresholds.tolist() == best.tolist()
    per_label = record_of(run)["metrics"]["test"]["per_label"]
    assert [per_label[name]["threshold"] for name in NAMES] == best.tolist()


# ---- samples ----


def items(number):
    return [Image(f"{place}.png", 0, "") for place in range(number)]


def test_a_sample_has_as_many_pictures_of_each_label_and_no_more_than_that_takes():
    """A picture that is drawn for one label counts for its others."""
    has = numpy.zeros((30, 3), bool)
    has[:10, :2] = True  # both of two labels
    has[10:12, 2] = True  # a rare one
    own = items(30)
    truth = dict(zip([item.impath for item in own], has))
    chosen = of_each_label(own, truth, 4, seed=1)
    taken = numpy.array([truth[item.impath] for item in chosen])
    assert taken.sum(axis=0).tolist() == [4, 4, 2]
    assert (~taken.any(axis=1)).sum() == 4
    assert len(chosen) == 4 + 2 + 4
    assert chosen == [item for item in own if item in chosen], "in their order"
    assert chosen == of_each_label(own, truth, 4, seed=1)
    assert chosen != of_each_label(own, truth, 4, seed=2)


def test_a_sample_leaves_the_test_as_it_is_and_says_how_it_was_drawn():
    own = items(20)
    truth = {item.impath: numpy.array([place % 2 == 0]) for place, item in enumerate(own)}
    train, val, test = own[:10], own[10:14], own[14:]
    few = draw_sample(1, 3, (train, val, test), truth)
    assert len(few.train) == len(few.val) == 2
    assert few.test == test
    assert few.sample["origin"] == "drawn with seed 3"
    assert draw_sample(-1, 3, (train, val, test), truth).train == train
    assert draw_sample(1, 3, (train, test, test), truth).val == test


# ---- promises ----


@pytest.mark.parametrize("answers, starts", [(64, 2), (63, 1)])
def test_a_limit_that_is_several_starts_has_the_risk_of_all(answers, starts):
    """Equal answers stand under one limit, whatever number of them the starts ask for."""
    probability = numpy.full((answers, 1), 0.9)
    assert len([*starts_at(numpy.full(321, answers), answers)]) == starts
    for share in (0.1, 0.3, 0.5):
        for wrong in range(32):
            truth = numpy.ones((answers, 1), bool)
            truth[:wrong] = False
            chance = binom.cdf(wrong, answers, share)
            rule = limit_of_error(probability, truth, numpy.arange(answers), share, 0.95)
            assert (rule is not None) == (chance <= JOINT_SHARE * 0.05)


@pytest.mark.parametrize("limit", [limit_of_error, limit_of_missed])
def test_limits_are_for_as_many_labels_as_a_picture_can_have(limit):
    """Where all labels of some pictures are wrong."""
    rng = numpy.random.default_rng(0)
    truth = numpy.ones((200, 3), bool)
    truth[:60] = False  # where everything that is given is wrong
    probability = 0.5 + 0.4 * truth + 0.01 * rng.random((200, 3))
    with numpy.errstate(invalid="raise", divide="raise"):
        rule = limit(probability, truth, numpy.arange(200), 0.3, 0.95)
    assert rule.most == 3
    given = rule.given(probability)
    if limit is limit_of_error:
        assert (given == truth).all()
    else:
        assert 0 < (truth & ~given).sum() < 0.3 * truth.sum()


@pytest.mark.parametrize("option", ["max_error", "max_missed"])
def test_a_promise_rests_on_pictures_of_which_nothing_was_trained_on(tmp_path, option):
    """The others, of which the run answers everything rightly, would promise more."""
    rng = numpy.random.default_rng(0)
    is_new = numpy.arange(400) >= 360
    truth = rng.random((400, 2)) < 0.5
    probability = numpy.where(truth, 0.9, 0.1)
    probability[is_new] = rng.random((40, 2))
    names = ["cat", "dog"]
    facts = {"task": "multi-label", "classnames": names, "folds": 5}
    record = make_record(**facts)
    record["config"]["TEST"] = {"SPLIT": "test", "NO_TEST": False}
    (tmp_path / "results.json").write_text(json.dumps(record))
    arrays = {
        "probability": probability,
        "truth": truth,
        "group": numpy.arange(400),
        "is_new": is_new,
        "fold": numpy.zeros(400, int),
        "threshold": numpy.full((1, 2), 0.5),
    }
    write_answers(tmp_path, "test", arrays)
    with refuses("can't promise .*: 40 pictures or groups of them are too few"):
        rule_of(str(tmp_path), Wanted(**{option: 0.1}))
    write_answers(tmp_path, "test", {**arrays, "is_new": ~is_new})
    assert "At most 10 %" in rule_of(str(tmp_path), Wanted(**{option: 0.1})).says
