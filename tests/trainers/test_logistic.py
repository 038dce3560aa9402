"""The linear probe beside the texts: a minimum at every strength, and the texts' answers where little is
known."""

import pytest
import torch
import torch.nn.functional as F

from trainers.maths.logistic import BIAS_PRIOR, STRENGTHS, TEXT_PRIOR, Softmax, regressions


def drawn(images=80, classes=4, width=12, seed=0):
    """Features, labels and the texts' logits, which know something of the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = centres[labels] + 2 * torch.randn(images, width, generator=generator) + 3
    texts = F.one_hot(labels, classes) + torch.randn(images, classes, generator=generator)
    return F.normalize(features, dim=-1), labels, texts


@pytest.mark.parametrize("classes", [2, 5])
def test_each_regression_is_the_minimum_of_its_objective(classes):
    """½ |W|² + C Σ CE(W z + b + s t), and next to nothing of b and s, in the features' own coordinates: a
    step of Newton's method from there would lower it by less than ½ %."""
    features, labels, texts = drawn(classes=classes)
    some = STRENGTHS[::4]

    def logits(point):
        weight, bias, share = point.split([12 * classes, classes, 1])
        return features.double() @ weight.view(classes, 12).t() + bias + share * texts

    def objective(point, strength):
        prior = (
            point.square()
            @ torch.tensor([1.0] * 12 * classes + [BIAS_PRIOR] * classes + [TEXT_PRIOR]).double()
        )
        return prior / 2 + strength * F.cross_entropy(logits(point), labels, reduction="sum")

    for strength, found in zip(some, regressions(features, labels, texts, some, Softmax())):
        point = torch.cat([found.weight.ravel(), found.bias, found.text_weight[None]]).double()
        torch.testing.assert_close(found(features, texts), logits(point), rtol=1e-5, atol=1e-5)
        slope = torch.func.grad(objective)(point, strength)
        curvature = torch.func.hessian(objective)(point, strength)
        lowered = slope @ torch.linalg.solve(curvature, slope) / 2
        assert lowered < 0.005 * objective(point, strength)


def test_few_images_leave_the_texts_answers_and_a_class_without_images_a_finite_one():
    features, labels, texts = drawn()
    weak, *_ = regressions(features, labels, texts, [3e-3], Softmax())
    difference = weak(features, texts) - weak.text_weight * texts
    assert (difference - difference.mean(dim=0)).abs().max() < 0.05
    assert weak.text_weight > 0.3
    of_two = labels < 2
    *_, strong = regressions(features[of_two], labels[of_two], texts[of_two], STRENGTHS, Softmax())
    logits = strong(features, texts)
    assert logits.isfinite().all()
    assert logits.abs().max() < 1e4


@pytest.mark.parametrize("images", [1, 2])
def test_features_that_are_alike_teach_nothing_but_the_labels_frequencies(images):
    features = torch.ones(images, 6) / 6**0.5
    labels = torch.arange(images)
    (found,) = regressions(features, labels, torch.zeros(images, 3), [1.0], Softmax())
    assert not found.weight.any()
    assert found.bias[:images].min() > found.bias[images:].max()
