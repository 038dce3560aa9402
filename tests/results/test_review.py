"""Which labels are probably wrong, against the definition's own loop."""

import numpy
import pytest

from results.review import probably_wrong


@pytest.mark.parametrize("seed", range(4))
def test_wrong_labels_are_the_least_probable_ones_off_the_diagonal_of_the_confident_joint(seed):
    """Of made-up pictures whose labels are wrong in a fifth of the cases, with all classes known: those
    as improbable that half of them would not be there if all labels were right."""
    generator = numpy.random.default_rng(seed)
    classes, images = 4, 60
    truth = generator.integers(0, classes, images)
    label = numpy.where(generator.random(images) < 0.2, (truth + 1) % classes, truth)
    logits = generator.normal(size=(images, classes)) + 3 * numpy.eye(classes)[truth]
    probability = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
    means = [probability[label == k, k].mean() for k in range(classes)]
    expected = []
    for image in range(images):
        confident = [k for k in range(classes) if probability[image, k] >= means[k]]
        if confident and max(confident, key=lambda k: probability[image, k]) != label[image]:
            expected.append(image)
    own = probability[numpy.arange(images), label]
    limits = []
    for limit in own:
        by_chance = sum(chance for chance in probability.flat if chance <= limit)
        if by_chance <= 0.5 * (own <= limit).sum():
            limits.append(limit)
    expected = [image for image in expected if own[image] <= max(limits)]
    expected.sort(key=lambda image: own[image])
    top = numpy.argsort(-probability, axis=1)
    found = probably_wrong(label, top, numpy.take_along_axis(probability, top, axis=1))
    assert found.tolist() == expected
    are_wrong = label != truth
    assert are_wrong[found].mean() > 0.8 and len(found) > 0.3 * are_wrong.sum()


@pytest.mark.parametrize("seed", range(4))
def test_of_right_labels_hardly_any_is_listed_however_often_the_answer_is_wrong(seed):
    """Labels that are drawn from the probabilities are right, and those calibrated."""
    generator = numpy.random.default_rng(seed)
    probability = generator.dirichlet(numpy.full(5, 0.5), size=300)
    label = (generator.random((300, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    top = numpy.argsort(-probability, axis=1)
    answered_wrongly = (top[:, 0] != label).sum()
    found = probably_wrong(label, top, numpy.take_along_axis(probability, top, axis=1))
    assert answered_wrongly > 80 and len(found) < 0.2 * answered_wrongly


def test_a_label_beyond_the_most_probable_classes_counts_as_improbable():
    label = numpy.array([0, 0, 0, 1, 1, 2])
    top = numpy.array([[0, 1], [0, 1], [1, 2], [1, 0], [1, 0], [2, 0]])
    found = probably_wrong(label, top, numpy.array([[0.88, 0.1]] * 6))
    assert found.tolist() == [2]
