"""CDCGDA: Gaussians of image features beside CDC's votes."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_method
from tests.prompting.models import relative
from tests.runs import prompts_of
from tests.trainers.conftest import answered
from tests.trainers.formulas.templates import fused_evidence
from tests.trainers.test_gaussians import check_added_names
from trainers.data.loader import Pairs
from trainers.maths.evidence import LEVEL, fitted_factor


def test_it_abstains_for_a_list_without_a_trained_class(loaded):
    """Then the answers are those of the templates alone."""
    other = loaded("CDCGDA").with_classes(["cat", "dog"])
    assert other.method.learner.gaussians is None
    with torch.no_grad():
        assert len(other.method(torch.randn(1, 5, 3, 32, 32), other.encoded).logits) == 4


def test_added_names_leave_the_trained_ones_their_gaussians(loaded):
    check_added_names(loaded("CDCGDA"))


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
    batches = Pairs(trainer.val_loader)
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
