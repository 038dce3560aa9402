"""CDCGDA: Gaussians of image features beside CDC's votes."""

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, logsumexp

from tests.conftest import make_method
from tests.prompting.models import relative
from tests.runs import prompts_of
from tests.trainers.conftest import answered
from tests.trainers.formulas.templates import fused_evidence
from tests.trainers.test_fits import images
from trainers.cdc import LEVEL
from trainers.data.loader import pair_of
from trainers.maths.evidence import fitted_factor
from trainers.maths.gaussians import (
    ADDED,
    FACTORS,
    MARGIN,
    GaussianEvidence,
    among_added,
    fit_gaussians,
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
    right = [log_softmax(factor * held_out, axis=1)[range(40), labels] for factor in FACTORS]
    best = FACTORS[int(numpy.argmax([likely.mean() for likely in right]))]
    assert FACTORS[0] < best < FACTORS[-1]
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


def test_it_abstains_for_a_list_without_a_trained_class(loaded):
    """Then the answers are those of the templates alone."""
    other = loaded("CDCGDA").with_classes(["cat", "dog"])
    assert other.method.learner.gaussians is None
    with torch.no_grad():
        assert len(other.method(torch.randn(1, 5, 3, 32, 32), other.encoded).logits) == 4


@pytest.mark.parametrize("trainer", ["CDCGDA", "GDA"])
def test_added_names_leave_the_trained_ones_their_gaussians(loaded, trainer):
    """Shares among trained classes are as on a list of these alone, shares among added ones as by the
    texts."""
    classifier = loaded(trainer)
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
    if trainer == "GDA":
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


def test_prompts_of_an_epoch_before_the_last_answer_without_it(run):
    _, record, folder = run("CDCGDA", "TRAIN.CHECKPOINT_FREQ", "1")
    flags = prompts_of(folder)
    earlier, _, _ = run("CDCGDA", flags=(*flags, "--load-epoch", "2"), name="earlier")
    last, again, _ = run("CDCGDA", flags=flags, name="last")
    assert again["metrics"]["test"] == record["metrics"]["test"]
    image = torch.randn(1, 1, 3, 32, 32)
    with torch.no_grad():
        votes = [len(each.model.eval()(image).logits) for each in (earlier, last)]
    assert votes == [4, 5]


def test_after_training_it_holds_the_classes_means_under_the_prompts(just_trained):
    trainer, _ = just_trained("CDCGDA")
    scores, labels = answered(trainer.model, trainer.run.training_images())
    pictures = torch.cat([each.image_features for each in scores], dim=1).mean(dim=0)
    pictures = F.normalize(pictures, dim=-1)
    for k, mean in enumerate(trainer.model.learner.gaussians.means):
        torch.testing.assert_close(mean, pictures[labels == k].mean(dim=0))


def test_templates_and_gaussians_are_fused_with_their_reliabilities(in_float64, vit):
    """All templates together count as half of the Gaussians, times one factor; against the product
    of the masses."""
    method = make_method("CDCGDA", vit, [f"thing {k}" for k in range(6)], N_TEMPLATES=4).eval()
    method.learner.evidence.offset.fill_(19.0)
    method.learner.joint_factor.fill_(0.7)
    torch.manual_seed(3)
    templates = torch.randn(4, 5, 6) * 3 + 20
    gaussians = torch.randn(1, 5, 6) * 2 + LEVEL  # log(e_k / K)
    evidence = torch.cat([(templates - 19 + LEVEL).exp() * 6, gaussians.exp() * 6])
    fused = fused_evidence(evidence, [0.7 / 8] * 4 + [0.7]) + 1
    alone = evidence + 1  # α of each vote
    prediction = method.predict(torch.cat([templates, gaussians]))
    expected = {
        "probability": fused / fused.sum(-1, keepdim=True),
        "votes": alone / alone.sum(-1, keepdim=True),
        "vote_vacuity": 6 / alone.sum(-1),
        "vacuity": 6 / fused.sum(-1),
        "energy": -templates.logsumexp(-1).mean(0),
        "vote_weight": torch.tensor([1 / 12] * 4 + [2 / 3]),
    }
    for name, value in expected.items():
        assert relative(getattr(prediction, name), value) < 1e-7, name
    without = method.predict(templates).probability
    assert torch.equal(without, method.base.predict(templates).probability)


def test_all_reliabilities_are_fitted_to_validation_images(just_trained):
    trainer, _ = just_trained("CDCGDA")
    batches = (pair_of(batch) for batch in trainer.val_loader)
    scores, labels = answered(trainer.model, batches)
    logits, model = torch.cat([each.logits for each in scores], dim=1), trainer.model
    factor = fitted_factor(model.log_evidence(logits), labels, [1 / 8] * 4 + [1.0])
    torch.testing.assert_close(model.reliabilities, torch.tensor([factor / 8] * 4 + [factor]))
    alone = fitted_factor(model.base.learner.evidence(logits[:4]), labels, [1 / 4] * 4)
    assert model.base.reliability.item() == pytest.approx(alone / 4)


def test_training_is_cdcs(just_trained):
    """To the bit: the Gaussians are fitted afterwards."""
    (ours, _), (cdc, _) = just_trained("CDCGDA"), just_trained("CDC")
    learned = dict(ours.model.learner.named_parameters())
    for name, value in cdc.model.learner.named_parameters():
        assert torch.equal(learned[name], value)
