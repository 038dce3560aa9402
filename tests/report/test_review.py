"""Which labels are probably wrong, against the definition's own loop."""

import numpy
import pytest

from report.review import probably_wrong


@pytest.mark.parametrize("seed", range(4))
def test_wrong_labels_are_the_least_probable_ones_off_the_diagonal_of_the_confident_joint(seed):
    """Of made-up pictures whose labels are wrong in a fifth of the cases: those as improbable that
    half of them would not be there if all labels were right."""
    generator = numpy.random.default_rng(seed)
    classes, images = 4, 60
    truth = generator.integers(0, classes, images)
    label = numpy.where(generator.random(images) < 0.2, (truth + 1) % classes, truth)
    logits = generator.normal(size=(images, classes)) + 3 * numpy.eye(classes)[truth]
    probability = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
    means = numpy.array([probability[label == k, k].mean() for k in range(classes)])
    own = probability[numpy.arange(images), label]
    limits = [
        limit
        for limit in own
        if probability[probability <= limit].sum() <= 0.5 * (own <= limit).sum()
    ]
    expected = []
    for image in numpy.argsort(own):
        confident = numpy.where(probability[image] >= means, probability[image], 0)
        is_another = confident.any() and confident.argmax() != label[image]
        if is_another and own[image] <= max(limits):
            expected.append(image)
    top = numpy.argsort(-probability, axis=1)
    found = probably_wrong(label, top, numpy.take_along_axis(probability, top, axis=1))
    assert found.tolist() == expected
    assert (label != truth)[found].mean() > 0.8


def test_a_label_beyond_the_most_probable_classes_counts_as_improbable():
    label = numpy.array([0, 0, 0, 1, 1, 2])
    top = numpy.array([[0, 1], [0, 1], [1, 2], [1, 0], [1, 0], [2, 0]])
    found = probably_wrong(label, top, numpy.array([[0.88, 0.1]] * 6))
    assert found.tolist() == [2]
