"""GDA against the formulas of its public code, in float64."""

import pytest
import torch

from tests.reference import stock_classifier, unit
from trainers.gaussians import discriminants, fit_gaussians, gaussians_of_texts, pooled_gaussians
from trainers.gda import ALPHAS, GaussianClassifier

CLASSES, WIDTH = 4, 12


def samples(seed=0, images=200):
    torch.manual_seed(seed)
    features = unit(torch.randn(images, WIDTH, dtype=torch.float64) + 1)
    return features, torch.arange(images) % CLASSES, unit(torch.randn(CLASSES, WIDTH).double() + 1)


def classifier(means, precision):
    """W and b as the public code has them."""
    weight = torch.einsum("nd, dc -> nc", means, precision)
    return weight, -torch.einsum("nd, dc, nc -> n", means, precision, means) / 2


def shrunken(covariance, count):
    """The estimator of Kubokawa and Srivastava, D ((N − 1) S + tr(S) I)⁻¹."""
    scaled = (count - 1) * covariance + covariance.trace() * torch.eye(WIDTH).double()
    return WIDTH * torch.linalg.pinv(scaled)


def test_the_classifier_of_classes_with_images_is_the_published_one():
    """main_few_shots.py: one covariance around the classes' means, shrunken; main_base2new.py: the mean of the classes' covariances."""
    features, labels, _ = samples()
    of_class = [features[labels == k] for k in range(CLASSES)]
    means = torch.stack([images.mean(dim=0) for images in of_class])
    around = torch.cat([images - mean for images, mean in zip(of_class, means)])
    mean = torch.stack([images.t().cov() for images in of_class]).mean(dim=0)
    expected = [shrunken(around.t().cov(), len(features)), torch.linalg.pinv(mean)]
    for fit, precision in zip((fit_gaussians, pooled_gaussians), expected):
        torch.testing.assert_close(fit(features, labels, CLASSES), (means, precision))
        weight, bias = classifier(means, precision)
        ours = GaussianClassifier(0.5, WIDTH, CLASSES)
        ours.weight, ours.others = None, discriminants(means, precision)
        torch.testing.assert_close(ours.others, (weight.float(), bias.float()))
        images, zero_shot = features[:7].float(), torch.randn(7, CLASSES)
        logits = zero_shot + 0.5 * (images.double() @ weight.t() + bias)
        torch.testing.assert_close(ours(images, zero_shot).double(), logits, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("images, nearest", [(200, 64), (20, 20)])
def test_that_of_classes_without_images_is_made_of_their_texts(images, nearest):
    """main_base2new.py: the 64 nearest images and 16 copies of the text; covariances around the text."""
    features, _, texts = samples(1, images)
    means, precisions = [], []
    for text in texts:
        chosen = features[torch.topk(text @ features.t(), k=nearest).indices]
        means.append(torch.cat([chosen, text[None].repeat(16, 1)]).mean(dim=0))
        covariance = (chosen - text).t() @ (chosen - text) / (nearest - 1)
        precisions.append(shrunken(covariance, nearest))
    expected = torch.stack(means), torch.stack(precisions).mean(dim=0)
    torch.testing.assert_close(gaussians_of_texts(features, texts), expected)


def test_a_run_fits_all_views_and_takes_the_first_of_the_best_alphas(run):
    trainer, record, folder = run("GDA", "DATASET.SUBSAMPLE_CLASSES", "base", name="base")
    model = trainer.model
    assert len(model.learner.features) == 2 * 12, "two views of four images a class"
    (features,), labels = model.features_of(trainer.validation_images())
    assert len(labels) == 9, "the whole split"
    zero_shot = model.backbone.logit_scale * features @ model.hand_crafted.t()
    added = features @ model.learner.weight.t() + model.learner.bias
    right = [((zero_shot + a * added).argmax(1) == labels).sum().item() for a in ALPHAS]
    assert record["learned"]["alpha"] == pytest.approx(ALPHAS[right.index(max(right))])
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    flags = ("--eval-only", "--model-dir", str(folder))
    tested, record, _ = run("GDA", *new, name="new", flags=flags)
    assert record["prompts_hash"] == model.prompts_hash()
    weight, bias = classifier(
        *gaussians_of_texts(model.learner.features, tested.model.hand_crafted)
    )
    images = torch.randn(1, 3, 3, 32, 32)
    z = tested.model.encode_images(images)[0]
    logits = model.backbone.logit_scale * z @ tested.model.hand_crafted.t()
    logits = logits + model.learner.alpha * (z.double() @ weight.t() + bias)
    torch.testing.assert_close(
        tested.model.answer(images).probability.double(), logits.softmax(1), rtol=1e-3, atol=1e-5
    )


def test_some_of_the_trained_classes_have_their_rows(trained):
    """As ImageNet-A's and -R's are answered officially."""
    whole = trained("GDA")[0].model
    part = type(whole)(
        whole.settings, whole.classnames[4:1:-2], whole.backbone, "DescribableTextures"
    )
    part.load(whole.learner.state_dict(), whole.classnames)
    assert torch.equal(part.learner.weight, whole.learner.weight[[4, 2]])
    images = torch.randn(1, 2, 3, 32, 32)
    torch.testing.assert_close(part(images).logits, whole(images).logits[..., [4, 2]])


def test_the_prompt_is_the_data_sets(trained, stock_vit):
    model = trained("GDA")[0].model
    texts = stock_classifier(stock_vit, "{} texture.", model.classnames)
    torch.testing.assert_close(model.hand_crafted, texts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key, value", [("ALPHA", "-1.0"), ("AUGMENT_EPOCH", "0")])
def test_contradictions_are_refused(refusal, key, value):
    error = refusal(f"TRAINER.GDA.{key}", value, trainer="GDA")
    assert f"TRAINER.GDA.{key} is {value}, it must" in error
