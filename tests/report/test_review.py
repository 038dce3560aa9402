"""Which labels are probably wrong, against the likelihood's own loop, and on made-up pictures whose wrong
labels are known."""

import math

import numpy
import pytest

from report.review import (
    FALSE_ALARM,
    LISTED,
    Noisy,
    WrongLabels,
    probably_wrong,
    wrong_in_sets,
    wrong_labels,
)


def made_up(seed, share, classes=6, images=300, clearness=4.0):
    """Probabilities (N, K) under which true labels are drawn, given labels (N,), and which are wrong."""
    draws = numpy.random.default_rng(seed)
    logits = draws.normal(size=(images, classes))
    logits[numpy.arange(images), draws.integers(0, classes, images)] += clearness
    probability = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
    truth = (probability.cumsum(axis=1) > draws.random((images, 1))).argmax(axis=1)
    wrong = draws.random(images) < share
    label = numpy.where(wrong, (truth + draws.integers(1, classes, images)) % classes, truth)
    return probability, label, wrong


def test_the_likelihood_is_that_of_the_definitions_loop():
    probability, label, _ = made_up(0, 0.2, images=20)
    noisy = Noisy(numpy.log(probability), numpy.ones(6), label)
    expected = 0.0
    for answers, given in zip(probability, label):
        powers = [p ** (1 / 1.7) for p in answers]
        right = powers[given] / sum(powers)
        expected -= math.log(0.9 * right + 0.1 * (1 - right) / 5)
    assert noisy.loss(math.log(1.7), math.log(0.1)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "temperature", [1.0, 2.5], ids=["calibrated", "a temperature that saw them"]
)
def test_wrong_labels_are_listed_with_the_precision_that_is_expected(temperature):
    """Over draws, whatever temperature the answers have had; and most of them are found."""
    found = missed = listed = 0
    expected = 0.0
    for seed in range(20):
        probability, label, wrong = made_up(seed, 0.1)
        power = probability ** (1 / temperature)
        by = wrong_labels(power / power.sum(axis=1, keepdims=True), label)
        found += wrong[by.listed].sum()
        missed += wrong.sum() - wrong[by.listed].sum()
        listed += len(by.listed)
        expected += by.precision * len(by.listed)
        assert (numpy.diff(by.probability[by.listed]) <= 0).all()
        assert (by.probability[by.listed] >= LISTED).all()
    assert found > 0.7 * (found + missed)
    assert expected / listed == pytest.approx(found / listed, abs=0.1)


def test_where_all_labels_are_right_few_folders_have_a_list():
    lists = [len(wrong_labels(*made_up(seed, 0)[:2]).listed) for seed in range(60)]
    assert numpy.count_nonzero(lists) <= 1.5 * FALSE_ALARM * 60
    assert sum(lists) < 0.02 * 60 * 300


def test_the_most_probable_classes_alone_say_nearly_the_same():
    """And exactly the same where they are all classes."""
    probability, label, _ = made_up(1, 0.1, classes=12)
    whole = wrong_labels(probability, label)
    order = numpy.argsort(-probability, axis=1)
    for kept in (5, 12):
        top = order[:, :kept]
        found = probably_wrong(label, top, numpy.take_along_axis(probability, top, axis=1))
        both = {*found.listed.tolist()} & {*whole.listed.tolist()}
        assert len(both) > 0.8 * len(whole.listed)
        if kept == 12:
            numpy.testing.assert_allclose(found.probability, whole.probability, rtol=1e-3)


def test_certain_answers_in_single_precision_have_finite_probabilities():
    """Most of which are 1, and all others 0."""
    draws = numpy.random.default_rng(0)
    label = numpy.arange(200) % 4
    logits = 300 * draws.random((200, 1)) * numpy.eye(4)[label]
    probability = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    probability = (probability / probability.sum(axis=1, keepdims=True)).astype(numpy.float32)
    sure = numpy.argsort(-logits.max(axis=1))[:5]
    label[sure] = (label[sure] + 1) % 4
    found = wrong_labels(probability, label)
    assert numpy.isfinite(found.probability).all()
    assert {*sure.tolist()} <= {*found.listed.tolist()}


def test_the_sentence_says_how_many_are_to_be_expected_wrong():
    found = WrongLabels(numpy.array([0.5, 0.3, 0.0]), numpy.array([0, 1]))
    assert found.says() == "2 labels, about 40 in 100 of which are wrong"
    none = WrongLabels(numpy.zeros(3), numpy.array([], int))
    assert none.says() == "Nothing shows that any label is wrong"


def test_wrong_labels_of_sets_are_cells():
    """Labels that were removed from pictures and added to others."""
    draws = numpy.random.default_rng(0)
    probability = 1 / (1 + numpy.exp(-draws.normal(-2, 4, (300, 5))))
    truth = draws.random((300, 5)) < probability
    wrong = draws.random((300, 5)) < 0.05
    found = wrong_in_sets(probability, truth ^ wrong)
    assert found.probability.shape == (1500,)
    assert wrong.ravel()[found.listed].mean() == pytest.approx(found.precision, abs=0.15)
    assert wrong.ravel()[found.listed].sum() > 0.4 * wrong.sum()
