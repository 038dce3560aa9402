"""Gaussians of features against loops of numpy and scipy's densities."""

import numpy
import pytest
import torch
from scipy.stats import multivariate_normal

from trainers.gaussians import FOLDS, fit_gaussians, held_out_log_densities, log_densities

CLASSES, WIDTH = 4, 6


def images(counts=(5, 9, 1, 0), seed=0):
    """Features (N, E) in float64 and labels (N,); of the third class one, of the last none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), WIDTH, generator=generator, dtype=torch.float64)
    return centres[labels] + 0.3 * noise, labels


def by_loops(features, labels):
    """Means, and the precision E ((N − 1) S + tr(S) I)⁻¹."""
    features, labels = features.numpy(), labels.tolist()
    means = numpy.empty((CLASSES, WIDTH))
    for k in range(CLASSES):
        members = [row for row, label in zip(features, labels) if label == k]
        means[k] = sum(members) / len(members) if members else features.mean(axis=0)
    covariance = numpy.zeros((WIDTH, WIDTH))
    for row, label in zip(features, labels):
        covariance += numpy.outer(row - means[label], row - means[label]) / (len(features) - 1)
    shrunken = (len(features) - 1) * covariance + numpy.trace(covariance) * numpy.eye(WIDTH)
    return means, WIDTH * numpy.linalg.inv(shrunken)


def test_means_and_precision_are_those_of_the_loops_whatever_the_order_of_the_images():
    features, labels = images()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    expected = by_loops(features, labels)
    for part in (
        fit_gaussians(features, labels, CLASSES),
        fit_gaussians(features[order], labels[order], CLASSES),
    ):
        for value, reference in zip(part, expected):
            numpy.testing.assert_allclose(value, reference, rtol=1e-9, atol=1e-12)


def test_of_one_image_a_class_all_directions_count_alike():
    features, _ = images((1, 1, 1, 1))
    means, precision = fit_gaussians(features, torch.arange(4), CLASSES)
    assert torch.equal(means, features)
    torch.testing.assert_close(precision, WIDTH * torch.eye(WIDTH, dtype=torch.float64))


def test_log_densities_are_scipys_up_to_a_constant():
    features, labels = images()
    means, precision = fit_gaussians(features, labels, CLASSES)
    covariance = numpy.linalg.inv(precision.numpy())
    expected = numpy.stack(
        [
            multivariate_normal(mean, (covariance + covariance.T) / 2).logpdf(features.numpy())
            for mean in means.numpy()
        ],
        axis=1,
    )
    constant = expected - log_densities(features, means, precision).numpy()
    assert constant == pytest.approx(constant.mean(), rel=1e-9)


def test_each_image_is_judged_by_the_images_of_other_folds():
    features, labels = images()
    found, seen = held_out_log_densities(features, labels, CLASSES), [0] * CLASSES
    folds = []
    for label in labels.tolist():
        seen[label] += 1
        folds.append(seen[label] % FOLDS)
    for index, fold in enumerate(folds):
        others = [other for other in range(len(labels)) if folds[other] != fold]
        means, precision = by_loops(features[others], labels[others])
        for k in range(CLASSES):
            away = features[index].numpy() - means[k]
            assert found[index, k].item() == pytest.approx(-away @ precision @ away / 2, rel=1e-9)
