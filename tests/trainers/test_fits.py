"""Methods that are fitted to features of training images: GDA, ProLIP, the linear probe,
Tip-Adapter."""

import numpy
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal

from tests.conftest import BASE, make_method
from tests.prompting.models import pair, relative
from tests.reference import unit
from tests.trainers.formulas.adapters import ProLIP
from trainers.gda import ALPHAS
from trainers.linearprobe import GRID, SEARCH_STEPS, fit_logistic, searched_strength
from trainers.maths.gaussians import (
    DENSITY_FOLDS,
    discriminants,
    fit_gaussians,
    gaussians_of_texts,
    held_out_log_densities,
    log_densities,
    pooled_gaussians,
)
from trainers.prompting.towers import Towers

CLASSES, WIDTH = 4, 6

# ---- Gaussians ----


def images(counts=(5, 9, 1, 0), noise=0.3):
    """Features (N, E) in float64 and labels (N,) in any order."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centres = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    spread = torch.randn(len(labels), WIDTH, generator=generator, dtype=torch.float64)
    return centres[labels] + noise * spread, labels


def by_numpy(features, labels):
    """Means, and the precision E ((N − 1) S + tr(S) I)⁻¹."""
    features, labels = features.numpy(), labels.numpy()
    means = numpy.tile(features.mean(axis=0), (CLASSES, 1))  # where a class has no images
    for k in {*labels.tolist()}:
        means[k] = features[labels == k].mean(axis=0)
    away = features - means[labels]
    covariance = away.T @ away / (len(features) - 1)
    shrunken = away.T @ away + numpy.trace(covariance) * numpy.eye(WIDTH)
    return means, WIDTH * numpy.linalg.inv(shrunken)


def test_means_precision_and_densities_are_those_of_loops_and_of_scipy():
    features, labels = images()
    means, precision = fit_gaussians(features, labels, CLASSES)
    expected = by_numpy(features, labels)
    numpy.testing.assert_allclose(means, expected[0], rtol=1e-9, atol=1e-12)
    numpy.testing.assert_allclose(precision, expected[1], rtol=1e-9, atol=1e-12)
    covariance = numpy.linalg.inv(precision.numpy())
    covariance = (covariance + covariance.T) / 2
    densities = [multivariate_normal(mean, covariance).logpdf(features) for mean in means.numpy()]
    constant = numpy.stack(densities, axis=1) - log_densities(features, means, precision).numpy()
    assert constant == pytest.approx(constant.mean(), rel=1e-9)


def test_of_one_image_a_class_all_directions_count_alike():
    features, labels = images((1, 1, 1, 1))
    means, precision = fit_gaussians(features, labels, CLASSES)
    assert torch.equal(means[labels], features)
    torch.testing.assert_close(precision, WIDTH * torch.eye(WIDTH, dtype=torch.float64))


def test_each_image_is_judged_by_the_images_of_other_folds():
    features, labels = images()
    found = held_out_log_densities(features, labels, CLASSES)
    folds = torch.empty_like(labels)
    for k in range(CLASSES):  # round the folds
        folds[labels == k] = torch.arange(1, 1 + (labels == k).sum()) % DENSITY_FOLDS
    for index, fold in enumerate(folds):
        means, precision = by_numpy(features[folds != fold], labels[folds != fold])
        away = features[index].numpy() - means  # (K, E)
        expected = [-one @ precision @ one / 2 for one in away]
        assert found[index].tolist() == pytest.approx(expected, rel=1e-9)


def test_gdas_pooled_classifier_is_the_published_one():
    """main_base2new.py: the mean of the classes' covariances; W = M P, b_k = −½ m_k P m_k."""
    features, labels = images((30, 30, 30, 30))
    of_class = [features[labels == k] for k in range(CLASSES)]
    means = torch.stack([members.mean(dim=0) for members in of_class])
    precision = torch.stack([members.T.cov() for members in of_class]).mean(dim=0).pinverse()
    torch.testing.assert_close(pooled_gaussians(features, labels, CLASSES), (means, precision))
    bias = [-mean @ precision @ mean / 2 for mean in means]
    expected = (means @ precision).float(), torch.stack(bias).float()
    torch.testing.assert_close(discriminants(means, precision), expected)


def test_gda_fits_all_views_and_takes_the_first_of_the_best_alphas(run):
    trainer, record, _ = run("GDA", *BASE)
    model, learned = trainer.model, trainer.model.learner
    assert len(learned.features) == 2 * 12  # two views of four images a class
    (features,), labels = model.towers.features_of(trainer.run.validation_images())
    assert len(labels) == 9  # the whole split
    added = F.linear(features, learned.weight, learned.bias)
    logits = [model.zero_shot(features) + alpha * added for alpha in ALPHAS]
    right = [(each.argmax(1) == labels).sum().item() for each in logits]
    assert record["learned"]["alpha"] == pytest.approx(ALPHAS[right.index(max(right))])


def test_no_image_is_near_its_own_class_where_texts_stand_for_images():
    """Each class's mean and precision are those of a list without its images."""
    features, labels = images((5, 5, 5, 5))
    texts = torch.randn(CLASSES, WIDTH, dtype=torch.float64)
    means, precision = gaussians_of_texts(features, texts, labels)
    alone = [gaussians_of_texts(features[labels != k], texts[k : k + 1]) for k in range(CLASSES)]
    torch.testing.assert_close(means, torch.cat([mean for mean, _ in alone]))
    torch.testing.assert_close(precision, sum(each for _, each in alone) / CLASSES)


def test_gdas_answers_to_other_classes_have_a_temperature_of_their_own(run):
    """It is the best for the training images, beside a mistake that was not seen, where their classes have
    no images of their own."""
    trainer, record, _ = run("GDA", *BASE)
    model, learned = trainer.model, trainer.model.learner
    of_images = torch.tensor([item.label for item in trainer.loaders.images.train_x])
    labels = of_images.repeat(len(learned.features) // len(of_images))
    gaussians = gaussians_of_texts(learned.features, model.hand_crafted, labels)
    votes = F.linear(learned.features, *discriminants(*gaussians))
    logits = model.zero_shot(learned.features) + learned.alpha * votes
    fitted_one = record["learned"]["text_temperature"]
    unseen = 1 / (len(labels) + 2)
    others = logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
    losses = [
        (1 - unseen) * F.cross_entropy(logits / temperature, labels)
        + unseen * F.cross_entropy(logits / temperature, others)
        for temperature in (fitted_one, *numpy.logspace(-2, 2, 41))
    ]
    assert losses[0] <= min(losses) + 1e-4
    other = make_method("GDA", model.backbone, ["grooved", "woven"])
    other.load(learned.state_dict(), model.classnames)
    logits = other(torch.randn(1, 3, 3, 32, 32)).logits
    expected = (logits[0] / fitted_one).softmax(dim=-1)
    torch.testing.assert_close(other.predict(logits).probability, expected)


# ---- ProLIP ----


@pytest.mark.parametrize("views", [3, 7])
def test_prolips_training_is_the_published_loop(in_float64, views):
    """methods/ProLIP.py: Adam with ε = 1e-4 and a cosine over full batches, one view a step, λ = 1
    / shots."""
    ours, stock = pair("vit")
    names = ["banded", "dotted", "striped"]
    method = make_method("ProLIP", ours, names, LR=1e-2, STEPS=7, VIEWS=views, REG_WEIGHT=1.0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    shown = [torch.randn(1, 6, 3, 32, 32) for _ in range(views)]
    waiting = iter(shown)

    def training(augmented=False):
        assert augmented
        view = next(waiting)
        return [(view[:, :4], labels[:4]), (view[:, 4:], labels[4:])]

    published = ProLIP(stock, method)
    start = stock.visual.proj.detach()
    published.projection = proj = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([proj], lr=1e-2, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for step in range(7):
        _, loss = published(shown[step % views], labels)
        optimizer.zero_grad()
        (loss + (proj - start).square().sum() / 2).backward()
        optimizer.step()
        schedule.step()
    method.start(training, None)
    assert next(waiting, None) is None
    assert relative(method.learner.vit_proj - start, proj - start) < 1e-6
    assert torch.equal(ours.image.proj, start)


# ---- the linear probe ----


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("C", [0.1, 30.0])
def test_weights_are_the_minimum_of_the_regularised_cross_entropy(classes, C):
    """½ |W|² + C Σ CE has no slope there. Of two classes, whose weights are opposite, the
    difference alone is regularised: ½ |w₁ − w₀|²."""
    torch.manual_seed(0)
    features, labels = unit(torch.randn(60, 16)), torch.arange(60) % classes
    weight, bias = (part.requires_grad_() for part in fit_logistic(features, labels, C, classes))
    logits = features.double() @ weight.T + bias
    size = (weight[1] - weight[0]).square().sum() if classes == 2 else weight.square().sum()
    loss = size / 2 + C * F.cross_entropy(logits, labels, reduction="sum")
    slopes = torch.autograd.grad(loss, [weight, bias])
    if classes == 2:
        slopes = [slope[1] - slope[0] for slope in slopes]
    limit = 1.1e-4 * C * len(features)  # the solver's tolerance, of the mean over images
    assert all(slope.abs().max() < limit for slope in slopes)


def test_a_class_without_images_is_never_the_probes_answer():
    features = unit(torch.randn(6, 8))
    weight, bias = fit_logistic(features, torch.tensor([0, 2, 2, 0, 3, 3]), 1.0, 4)
    probability = (features.double() @ weight.T + bias).softmax(dim=1)
    assert probability[:, 1].max() == 0
    assert weight.any(dim=1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("peak", [2.7e-3, 0.4, 55.0, 1e6])
def test_the_search_ends_where_the_official_one_does(peak):
    """lpclip/linear_probe.py in words: the end with the higher accuracy stays, the other moves to
    the middle."""

    def accuracy(C):
        return -abs(numpy.log10(C) - numpy.log10(peak))

    best = max(GRID, key=accuracy)
    left, right = 0.1 * best, 10 * best
    for _ in range(SEARCH_STEPS):
        final = right if accuracy(left) < accuracy(right) else left
        middle = (left * right) ** 0.5
        left, right = (middle, right) if final == right else (left, middle)
    assert searched_strength(accuracy) == pytest.approx(final, rel=1e-6)
    assert abs(numpy.log10(final / peak)) < 0.02 + (peak == 2.7e-3)


def test_the_probe_is_what_the_features_of_training_and_validation_images_say(run):
    trainer, record, _ = run("LinearProbe")
    probe, names = trainer.model.learner, trainer.model.classnames
    (features,), labels = trainer.model.towers.features_of(trainer.run.training_images())
    assert labels.tolist() == [label for label in range(len(names)) for _ in range(4)]
    weight, bias = fit_logistic(features, labels, record["learned"]["C"], len(names))
    torch.testing.assert_close(probe.weight, weight.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(probe.bias, bias.float(), rtol=1e-4, atol=1e-5)


# ---- Tip-Adapter ----


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF"])
def test_it_keeps_the_mean_feature_of_each_images_views_and_only_f_trains_it(
    run, monkeypatch, name
):
    views, features_of = [], Towers.features_of

    def noted(self, batches, **normalize):
        found = features_of(self, batches, **normalize)
        views.extend([found] if normalize else [])
        return found

    monkeypatch.setattr(Towers, "features_of", noted)
    cache = run(name)[0].model.learner
    (first, labels), (second, _) = views
    assert not torch.equal(first, second)  # views are drawn at random
    assert first.norm(dim=-1).std() > 0  # they are not normalised before the mean
    assert labels.tolist() == cache.labels.tolist() == [k for k in range(6) for _ in range(4)]
    assert torch.equal(cache.keys.detach(), unit((first + second)[0] / 2)) == (name == "TipAdapter")


def test_beta_and_alpha_are_the_first_of_the_best_of_a_grid_on_the_whole_validation_split(run):
    node = "TRAINER.TIPADAPTER.SEARCH"
    steps = f"{node}_SCALE", "[30.0, 40.0]", f"{node}_STEP", "[5, 4]"
    trainer, record, _ = run("TipAdapter", *steps, *BASE, "DATASET.NUM_SHOTS", "1")
    model, cache, accuracy = trainer.model, trainer.model.learner, {}
    (features,), labels = model.towers.features_of(trainer.run.validation_images())
    assert len(labels) == 9
    zero_shot = model.zero_shot(features)
    for beta in [0.1 + i * 29.9 / 5 for i in range(5)]:
        votes = torch.exp(-beta * (1 - features @ cache.keys.T)) @ F.one_hot(cache.labels).float()
        for alpha in [0.1 + j * 39.9 / 4 for j in range(4)]:
            right = (zero_shot + alpha * votes).argmax(1) == labels
            accuracy[beta, alpha] = right.sum().item()
    assert len(set(accuracy.values())) > 1
    best = max(accuracy, key=accuracy.get)
    assert (record["learned"]["beta"], record["learned"]["alpha"]) == pytest.approx(best)
