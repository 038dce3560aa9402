"""Which labels are probably wrong, against the likelihood's own loop, and on made-up pictures whose wrong
labels are known."""

import math

import numpy
import pytest

from report.review import (
    LIKELY_WRONG,
    LISTED_PICTURE,
    LISTED_UNSHOWN,
    Noisy,
    WrongLabels,
    probably_wrong,
    wrong_labels,
    wrong_multi_labels,
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
        assert (by.probability[by.listed] >= LIKELY_WRONG).all()
    assert found > 0.7 * (found + missed)
    assert expected / listed == pytest.approx(found / listed, abs=0.1)


def in_sets(seed, share, labels=5, images=300):
    """Probabilities (N, K) under which labels are drawn, given labels (N, K), and which pictures have a wrong
    one: missing, or of another picture."""
    draws = numpy.random.default_rng(seed)
    probability = 1 / (1 + numpy.exp(-draws.normal(-2, 4, (images, labels))))
    truth = draws.random((images, labels)) < probability
    wrong = draws.random((images, labels)) < share
    return probability, truth ^ wrong, wrong.any(axis=1)


@pytest.mark.parametrize(
    "made, found, unshown",
    [(made_up, wrong_labels, LISTED_UNSHOWN), (in_sets, wrong_multi_labels, 0)],
)
def test_where_all_labels_are_right_few_are_listed_and_none_is_said_to_be_wrong(
    made, found, unshown
):
    """In 60 folders; more than 4 of them by chance in 1 of 100."""
    lists = [found(*made(seed, 0)[:2]) for seed in range(60)]
    assert sum(each.is_shown for each in lists) <= 4
    assert all(len(each.listed) <= unshown * 300 for each in lists if not each.is_shown)
    assert sum(len(each.listed) for each in lists) <= LISTED_UNSHOWN * 60 * 300


def test_the_likeliest_are_listed_where_too_few_answers_show_that_they_are_wrong():
    """Of 40 pictures, the two that are most probably wrong."""
    hidden = 0
    for seed in range(30):
        probability, label, wrong = made_up(seed, 0.1, images=40, clearness=2.0)
        found = wrong_labels(probability, label)
        if wrong.any() and not found.is_shown:
            hidden += 1
            assert len(found.listed) == 2
            assert found.says() == (
                "Nothing shows that any label is wrong; here are the likeliest: 2 labels"
            )
            assert found.probability[found.listed].min() >= sorted(found.probability)[-2]
    assert hidden


def test_no_multi_label_picture_is_listed_where_too_few_answers_show_that_any_is_wrong():
    hidden = 0
    for seed in range(30):
        found = wrong_multi_labels(*in_sets(seed, 0.02, images=20)[:2])
        if not found.is_shown and found.probability.max() >= LISTED_PICTURE:
            hidden += 1
            assert not len(found.listed)
            assert found.says() == "Nothing shows that any label is wrong"
    assert hidden


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


@pytest.mark.parametrize(
    "is_multi_label, words",
    [(False, "2 labels, {} are wrong"), (True, "2 pictures, {} have a wrong label")],
)
def test_the_sentence_says_how_many_are_to_be_expected_wrong(is_multi_label, words):
    found = WrongLabels(numpy.array([0.5, 0.3, 0.0]), numpy.array([0, 1]), True, is_multi_label)
    assert found.says() == words.format("about 40 in 100 of which")
    none = WrongLabels(numpy.zeros(3), numpy.array([], int), is_shown=False)
    assert none.says() == "Nothing shows that any label is wrong"


def test_pictures_with_a_wrong_label_are_listed_with_the_precision_that_is_expected():
    """Labels that were removed from pictures and added to others."""
    found = missed = listed = 0
    expected = 0.0
    for seed in range(10):
        probability, truth, wrong = in_sets(seed, 0.03)
        by = wrong_multi_labels(probability, truth)
        assert by.probability.shape == (300,)
        assert (by.probability[by.listed] >= LISTED_PICTURE).all()
        found += wrong[by.listed].sum()
        missed += wrong.sum() - wrong[by.listed].sum()
        listed += len(by.listed)
        expected += by.precision * len(by.listed)
    assert found > 0.6 * (found + missed)
    assert expected / listed == pytest.approx(found / listed, abs=0.1)


def test_a_picture_is_wrong_where_any_of_its_labels_is():
    """By the probabilities of its labels, each fitted as an answer of two classes."""
    probability, truth, _ = in_sets(0, 0.05)
    cells = numpy.stack([1 - probability.ravel(), probability.ravel()], axis=1)
    of_cell = wrong_labels(cells, truth.ravel().astype(int)).probability.reshape(truth.shape)
    expected = [1 - math.prod(1 - each for each in row) for row in of_cell.tolist()]
    assert wrong_multi_labels(probability, truth).probability == pytest.approx(expected)
