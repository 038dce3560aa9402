"""The linear probe beside the texts: a minimum at every strength, and the texts' answers where little is
known."""

import pytest
import torch
import torch.nn.functional as F

from trainers.linearprobe import STRENGTHS
from trainers.maths.logistic import BIAS, TEXT, regressions


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
    """½ |W|² + C Σ CE(W z + b + s t), and next to nothing of b and s, in the features' own coordinates: no
    smaller value is found from there by an independent search."""
    features, labels, texts = drawn(classes=classes)

    def objective(weight, bias, share, strength):
        logits = features.double() @ weight.t() + bias + share * texts
        prior = weight.square().sum() + BIAS * bias.square().sum() + TEXT * share.square()
        return prior / 2 + strength * F.cross_entropy(logits, labels, reduction="sum")

    for strength, found in zip(STRENGTHS, regressions(features, labels, texts, STRENGTHS)):
        parts = [
            part.clone(memory_format=torch.contiguous_format).requires_grad_()
            for part in (found.weight, found.bias, found.text_weight)
        ]
        before = objective(*parts, strength).item()
        search = torch.optim.LBFGS(parts, max_iter=300, line_search_fn="strong_wolfe")

        def closure():
            search.zero_grad()
            value = objective(*parts, strength)
            value.backward()
            return value

        search.step(closure)
        assert objective(*parts, strength).item() > 0.995 * before
        expected = features.double() @ found.weight.t() + found.bias + found.text_weight * texts
        torch.testing.assert_close(found(features, texts), expected, rtol=1e-5, atol=1e-5)


def test_few_images_leave_the_texts_answers_and_a_class_without_images_a_finite_one():
    features, labels, texts = drawn()
    weak, *_ = regressions(features, labels, texts, [3e-3])
    difference = weak(features, texts) - weak.text_weight * texts
    assert (difference - difference.mean(dim=0)).abs().max() < 0.05 and weak.text_weight > 0.3
    of_two = labels < 2
    *_, strong = regressions(features[of_two], labels[of_two], texts[of_two], STRENGTHS)
    logits = strong(features, texts)
    assert logits.isfinite().all() and logits.abs().max() < 1e4


@pytest.mark.parametrize("images", [1, 2])
def test_features_that_are_alike_teach_nothing_but_the_labels_frequencies(images):
    features = torch.ones(images, 6) / 6**0.5
    labels = torch.arange(images)
    (found,) = regressions(features, labels, torch.zeros(images, 3), [1.0])
    assert not found.weight.any() and found.bias[:images].min() > found.bias[images:].max()
