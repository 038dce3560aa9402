"""The Gaussians' evidence, and what it says of lists with classes that were not trained; their fit:
test_fits.py."""

import math

import numpy
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from torch.nn.functional import normalize

from tests.conftest import make_method
from tests.prompting.models import relative
from tests.trainers.test_fits import images
from trainers.evaluation.uncertainty import TEMPERATURE_BOUNDS
from trainers.maths.gaussians import (
    ADDED,
    DENSITY_FACTORS,
    MARGIN,
    GaussianEvidence,
    among_added,
    fit_gaussians,
    gaussians_of_texts,
    held_out_log_densities,
)


def features(*counts):
    pictures, labels = images(counts, noise=0.5)
    return pictures.float(), labels


def test_its_log_evidence_is_of_the_densities_that_are_most_likely_on_held_out_images():
    pictures, labels = features(10, 10, 10, 10)
    gaussians = GaussianEvidence(6, 4)
    gaussians.fit(pictures, labels)
    held_out = held_out_log_densities(pictures, labels, 4).numpy()
    right = [
        log_softmax(factor * held_out, axis=1)[range(40), labels] for factor in DENSITY_FACTORS
    ]
    best = DENSITY_FACTORS[int(numpy.argmax([likely.mean() for likely in right]))]
    assert DENSITY_FACTORS[0] < best < DENSITY_FACTORS[-1]
    levels = logsumexp(best * held_out, axis=1)
    assert levels.std(ddof=1) > 1.2
    means, precision = (value.numpy() for value in fit_gaussians(pictures, labels, 4))
    away = pictures.double().numpy()[:, None] - means  # (N, K, E)
    expected = -best / 2 * numpy.einsum("nke,ef,nkf->nk", away, precision, away) - levels.mean()
    level = logsumexp(expected, axis=1, keepdims=True)
    expected += level / levels.std(ddof=1) - level
    numpy.testing.assert_allclose(gaussians(pictures), expected, rtol=1e-4, atol=1e-4)


def test_it_abstains_where_nothing_can_be_held_out_and_until_it_is_fitted():
    gaussians, loaded = GaussianEvidence(6, 4), GaussianEvidence(6, 4)
    gaussians.fit(*features(1, 1, 1, 1))
    assert not gaussians.is_fitted
    gaussians.fit(*features(10, 10, 10, 10))
    loaded.load_state_dict(gaussians.state_dict())
    assert loaded.is_fitted


def gda(backbone):
    return make_method("GDA", backbone, ["cat", "dog", "owl", "elk"])


@torch.no_grad()
def test_gdas_evidence_is_of_images_and_not_of_their_views(vit):
    """Of two views of one image neither is held out from the other: each would judge its twin."""
    torch.manual_seed(0)
    method, alone = gda(vit), gda(vit)
    views, labels = torch.randn(2, 24, vit.embed_dim), torch.arange(24) % 4
    method.set_gaussians(views, labels)
    mean = (normalize(views[0], dim=-1) + normalize(views[1], dim=-1)) / 2
    alone.learner.gaussians.fit(normalize(mean, dim=-1), labels)
    found = method.learner.gaussians.state_dict()
    torch.testing.assert_close(found, alone.learner.gaussians.state_dict())


@torch.no_grad()
def test_gdas_text_temperature_is_of_gaussians_that_have_not_seen_an_images_class(vit):
    torch.manual_seed(0)
    method = gda(vit)
    learner, labels = method.learner, torch.arange(24) % 4
    learner.features = normalize(torch.randn(24, vit.embed_dim), dim=-1)
    learner.alpha.fill_(0.1)
    method.fit_text_temperature(labels)
    means, precision = [], 0
    for k, text in enumerate(method.hand_crafted):
        of_class = gaussians_of_texts(learner.features[labels != k], text[None])
        means.append(of_class[0][0])
        precision = precision + of_class[1] / 4
    means = torch.stack(means)
    votes = (
        learner.features.double() @ precision @ means.t()
        - (means @ precision * means).sum(dim=1) / 2
    )
    logits = (method.zero_shot(learner.features) + 0.1 * votes).numpy()

    others = logits.copy()
    others[range(24), labels] = -numpy.inf
    unseen = 1 / 26  # a mistake that was not seen, see fit_temperature

    def loss(temperature):
        likely = log_softmax(logits / temperature, axis=1)
        of_label = likely[range(24), labels]
        of_other = likely[range(24), others.argmax(axis=1)]
        return -((1 - unseen) * of_label + unseen * of_other).mean()

    best = minimize_scalar(loss, bounds=TEMPERATURE_BOUNDS, options={"xatol": 1e-6}).x
    assert 0.1 < best < 50
    assert learner.text_temperature.item() == pytest.approx(best, rel=1e-3)


def check_added_names(classifier):
    """Holds that shares among trained classes are as on a list of these alone, and returns the answers
    to (1, 7, …) images of a list of added, trained, added, trained names, with what gave them."""
    first, second, *_ = classifier.classnames
    mixed = classifier.with_classes(["cat", second, "dog", first])
    known = classifier.with_classes([second, first])
    images = torch.randn(1, 7, 3, 32, 32)
    with torch.no_grad():
        answer, alone = (
            each.method.answer(images, each.encoded).probability for each in (mixed, known)
        )
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(7))
    trained, added = answer[:, [1, 3]], answer[:, [0, 2]]
    assert trained.sum(dim=1).max() > 0.01
    assert added.sum(dim=1).max() > 0.01
    torch.testing.assert_close(trained, alone * trained.sum(dim=1, keepdim=True))
    return mixed, images, answer


def test_added_names_leave_the_trained_ones_their_gaussians(loaded):
    """Shares among added ones are as by the texts."""
    mixed, images, answer = check_added_names(loaded("GDA"))
    added = answer[:, [0, 2]]
    with torch.no_grad():
        logits = mixed.method.zero_shot(mixed.method.towers.encode_images(images)[0])
    shares = logits[:, [0, 2]].softmax(dim=1)
    torch.testing.assert_close(added, shares * added.sum(dim=1, keepdim=True))


def test_an_image_is_of_trained_classes_by_the_texts_and_the_level_of_its_evidence(in_float64):
    """Against the probabilities one by one; the answer to a typical image of added classes moves by
    less than the margin."""
    torch.manual_seed(0)
    asked = [2, ADDED, 0, ADDED, ADDED]
    texts = torch.randn(6, 5).log_softmax(dim=1)
    known = torch.randn(6, 2).log_softmax(dim=1)
    level = torch.tensor([0.0, 1.5, -1.5, 2.0, 7.0, -90.0])
    found = among_added(texts, known, level, asked).exp()
    for p, q, height, answer in zip(texts.exp(), known.exp(), level, found):
        odds = (p[0] + p[2]) / (p[1] + p[3] + p[4]) * math.exp(min(2, max(-2, height)) - MARGIN)
        trained = odds / (1 + odds)
        others = p[[1, 3, 4]] / p[[1, 3, 4]].sum()
        assert relative(answer[[0, 2]], trained * q) < 1e-9
        assert relative(answer[[1, 3, 4]], (1 - trained) * others) < 1e-9
