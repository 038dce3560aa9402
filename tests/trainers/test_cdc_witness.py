"""CDC's image witness: what it is fitted to, for which lists it speaks, and that it is kept with the prompts."""

import numpy
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import prompts_of
from trainers.classifier import PromptedClassifier
from trainers.gaussians import FACTORS, ImageWitness, fit_gaussians, held_out_log_densities


def features(images=40, classes=4, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + 0.5 * torch.randn(images, width, generator=generator), labels


def test_its_log_evidence_is_of_the_densities_that_are_most_likely_on_held_out_images():
    pictures, labels = features()
    witness = ImageWitness(6, 4)
    witness.fit(pictures, labels)
    held_out = held_out_log_densities(pictures, labels, 4).numpy()
    losses = []
    for factor in FACTORS:
        exponentials = numpy.exp(factor * (held_out - held_out.max(axis=1, keepdims=True)))
        right = exponentials[range(len(labels)), labels] / exponentials.sum(axis=1)
        losses.append(-numpy.log(right).mean())
    best = FACTORS[int(numpy.argmin(losses))]
    assert FACTORS[0] < best < FACTORS[-1]
    level = numpy.log(numpy.exp(best * held_out).sum(axis=1)).mean()
    means, precision = (value.numpy() for value in fit_gaussians(pictures, labels, 4))
    away = pictures.double().numpy()[:, None] - means  # (N, K, E)
    expected = -best / 2 * numpy.einsum("nke,ef,nkf->nk", away, precision, away) - level
    numpy.testing.assert_allclose(witness(pictures), expected, rtol=1e-4, atol=1e-4)


def test_it_abstains_where_nothing_can_be_held_out_and_until_it_is_fitted():
    witness, loaded = ImageWitness(6, 4), ImageWitness(6, 4)
    witness.fit(*features(images=4))
    assert not witness.is_fitted
    witness.fit(*features())
    loaded.load_state_dict(witness.state_dict())
    assert witness.is_fitted and loaded.is_fitted


@pytest.fixture
def classifier(trained):
    return PromptedClassifier.load(trained("CDC")[1])


def scores_of(classifier):
    torch.manual_seed(0)
    with torch.no_grad():
        return classifier.method(torch.randn(1, 5, 3, 32, 32), classifier.encoded)


def test_after_training_it_holds_the_classes_means_under_the_prompts(trained):
    trainer, _ = trained("CDC")
    with torch.no_grad():
        batches = [*trainer.training_images()]
        pictures = torch.cat([trainer.model(images).image_features for images, _ in batches], dim=1)
    labels = torch.cat([label for _, label in batches])
    pictures = F.normalize(pictures.mean(dim=0), dim=-1)
    for k, mean in enumerate(trainer.model.learner.witness.means):
        torch.testing.assert_close(mean, pictures[labels == k].mean(dim=0))


def test_it_speaks_for_any_part_of_its_classes_as_for_the_whole(classifier):
    """In any order, and again on a part of the part; the evidence e_k of a class stays."""
    names, whole = classifier.classnames, scores_of(classifier)
    assert len(whole.logits) == 5
    evidence = classifier.method.log_evidence(whole.logits)[-1]
    for chosen in ([4, 1, 3], [5, 4, 3, 2, 1, 0]):
        part = classifier.with_classes([names[index] for index in chosen])
        found = part.method.log_evidence(scores_of(part).logits)[-1]
        torch.testing.assert_close(found, evidence[:, chosen], rtol=1e-4, atol=1e-3)
    again = part.with_classes([names[0], names[5]])
    found = again.method.log_evidence(scores_of(again).logits)[-1]
    torch.testing.assert_close(found, evidence[:, [0, 5]], rtol=1e-4, atol=1e-3)


def test_it_abstains_for_a_list_with_a_class_that_it_has_not_seen(classifier):
    """Then the answers are those of the templates alone; nor does it come back with the whole list."""
    other = classifier.with_classes([*classifier.classnames[:3], "cat"])
    for each in (other, other.with_classes(classifier.classnames)):
        assert each.method.learner.witness is None and len(scores_of(each).logits) == 4


def test_prompts_of_an_epoch_before_the_last_answer_without_it(run):
    _, record, folder = run("CDC", "TRAIN.CHECKPOINT_FREQ", "1")
    test = prompts_of(folder)
    early, _, _ = run("CDC", flags=(*test, "--load-epoch", "2"), name="early")
    last, again, _ = run("CDC", flags=test, name="last")
    pictures = torch.randn(1, 5, 3, 32, 32)
    with torch.no_grad():
        counts = [len(each.model.eval()(pictures).logits) for each in (early, last)]
    assert counts == [4, 5] and again["metrics"]["test"] == record["metrics"]["test"]
