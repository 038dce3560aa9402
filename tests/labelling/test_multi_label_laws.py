"""What is chosen for multi-label pictures: settings, samples and promises."""

import json
import math

import numpy
import pytest
import torch

from labelling.bets import BETS, limit_of_error, limit_of_missed
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.parts import of_each_label, sampled
from labelling.rules import Wanted, rule_of
from labelling.task import MultiLabel
from tests.runs import make_record, refuses, write_answers
from trainers.data.lists import Image
from trainers.learners.features import Grid

# ---- settings ----


class Deaf:
    """A classifier that learns nothing from labels. Its setting says whether it answers with what a
    picture shows, or with the opposite: labels reach the answers by the choice of the setting alone."""

    grid = Grid([(10 ** (power / 2),) for power in range(-2, 7)], (10**1.5,))

    def held_out_logits(self, features, labels, asked, settings):
        shown = 2 * (asked > 0).float() - 1
        return (shown * (math.log10(number) - 1) for (number,) in settings)

    def fit(self, features, labels, setting):
        pass


class Uncalibrated(MultiLabel):
    """The task without what is set after the choice."""

    def calibrate(self, *_):
        pass


def answers_in_folds(shown, labels):
    """Probabilities (N, K) of pictures that show (N, K), each answered from the other folds: every fifth
    picture is in the same one."""
    features = shown.float()
    known = FeatureSet(features[None], features, labels, torch.arange(len(labels)) % 5)
    return cross_fit(Deaf(), Uncalibrated(), known).probability


@pytest.mark.parametrize("changed", [[7], [*range(2, 200, 5)]], ids=["a picture's", "a fold's"])
def test_labels_have_no_part_in_the_setting_of_their_own_fold(changed):
    """Hardly more than half of the others' labels are what the pictures show: with a whole fold's the
    opposite setting would be the best."""
    fold = torch.arange(200) % 5
    shown = torch.randint(2, (200, 2)).bool()
    others = (fold != changed[0] % 5).nonzero().flatten()
    labels = shown.clone()
    labels[others[:78]] = ~labels[others[:78]]
    before = answers_in_folds(shown, labels)
    labels[changed] = ~labels[changed]
    after = answers_in_folds(shown, labels)
    own = fold == changed[0] % 5
    assert before[own].equal(after[own])
    assert len(changed) == 1 or not before[others].equal(after[others])


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
    few = sampled(1, 3, (train, val, test), truth)
    assert len(few.train) == len(few.val) == 2
    assert few.test == test
    assert few.sample["origin"] == "drawn with seed 3"
    assert sampled(-1, 3, (train, val, test), truth).train == train
    assert sampled(1, 3, (train, test, test), truth).val == test


# ---- promises ----


def test_a_promise_of_several_starts_takes_as_much_more_evidence():
    """Bonferroni: 64 equal answers, of which there are two starts, with 64 and with 32 labels."""
    probability = numpy.full((64, 1), 0.9)
    between = 0
    for share in numpy.linspace(0.1, 0.5, 9):
        for wrong in range(32):
            truth = numpy.ones((64, 1), bool)
            truth[:wrong] = False
            bets = numpy.array(BETS)[:, None] / (1 - share)
            excess = numpy.where(truth[:, 0], -share, 1 - share)
            evidence = numpy.prod(1 - bets * excess, axis=1).mean()
            rule = limit_of_error(probability, truth, numpy.arange(64), share, 0.95)
            assert (rule is not None) == (evidence >= 2 / 0.05)
            between += 1 / 0.05 <= evidence < 2 / 0.05
    assert between


@pytest.mark.parametrize("limit", [limit_of_error, limit_of_missed])
def test_bets_are_for_as_many_labels_as_a_picture_can_have(limit):
    """The largest excess of a group, with all of its labels wrong, loses no more than the bet."""
    rng = numpy.random.default_rng(0)
    truth = numpy.ones((200, 3), bool)
    truth[:40] = False  # where everything that is given is wrong
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
