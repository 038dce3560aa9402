"""CDC's evidence: lists of classes, fusion and reliability, each against the formula in float64."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_method
from tests.prompting.models import pair, relative
from tests.runs import prompts_of
from tests.trainers.conftest import answered
from tests.trainers.formulas.templates import fused_evidence
from trainers.data.loader import Pairs
from trainers.maths.evidence import LEVEL, fitted_factor

NAMES = [f"thing {number}" for number in range(6)]
TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")
OFFSET = 19.5


def method_of(names=NAMES, **settings):
    """CDC of texts alone, in evaluation."""
    text = {"PROMPT_MODALITY": "text", "PROMPT_DEPTH": 1}
    method = make_method("CDC", pair("vit")[0], names, N_TEMPLATES=4, **text, **settings).eval()
    method.learner.evidence.offset.fill_(OFFSET)
    return method


def answers(classes=6):
    """Logits (M, B, K) as encoders may give them."""
    torch.manual_seed(3)
    return torch.randn(4, 5, classes) * 3 + 20


def fused(evidence, reliability):
    """α (B, K) of the fused opinion."""
    return fused_evidence(evidence, [reliability] * len(evidence)) + 1


def share(alpha):
    return alpha / alpha.sum(-1, keepdim=True)


@pytest.mark.parametrize("classes", [2, 6, 40])
def test_evidence_on_a_shorter_list_is_that_of_the_trained_one_and_its_share_on_a_longer_one(
    in_float64, classes
):
    """Of a class: e_k is the same on any list up to the trained one, e_k / K on any from it on."""
    method = method_of([f"thing {k}" for k in range(classes)])
    method.learner.evidence.trained_classes.fill_(6)
    logits = answers(classes)
    by_class = (logits - OFFSET + LEVEL).exp()  # e_k / K, K ≥ 6
    alpha = fused(max(6, classes) * by_class, 1 / 4)
    prediction = method.predict(logits)
    assert relative(prediction.probability, share(alpha)) < 1e-9
    assert relative(prediction.vacuity, classes / alpha.sum(-1)) < 1e-9


@pytest.mark.parametrize("reliability", ["fitted", "independent"])
@pytest.mark.parametrize("loss", ["evidential", "cross_entropy"])
@pytest.mark.parametrize("fusion", ["dempster", "mean_probability", "sum_logits"])
def test_fusion_rules(in_float64, fusion, loss, reliability):
    method, logits = method_of(FUSION=fusion, LOSS=loss, RELIABILITY=reliability), answers()
    method.learner.evidence.reliability.fill_(0.3)
    evidence = 6 * (logits - OFFSET + LEVEL).exp()
    is_evidential = loss == "evidential"
    votes = share(evidence + 1) if is_evidential else logits.softmax(-1)
    alpha = fused(evidence, 0.3 if reliability == "fitted" else 1.0)
    expected = {
        "dempster": share(alpha),
        "mean_probability": votes.mean(0),
        "sum_logits": logits.sum(0).softmax(-1),
    }[fusion]
    prediction = method.predict(logits)
    assert relative(prediction.probability, expected) < 1e-9
    assert relative(prediction.votes, votes) < 1e-9
    if is_evidential:
        assert relative(prediction.vacuity, 6 / alpha.sum(-1)) < 1e-9
        assert relative(prediction.vote_vacuity, 6 / (evidence + 1).sum(-1)) < 1e-9
    else:
        assert prediction.vacuity is None  # no evidence was learned


def test_training_starts_where_zero_shot_evidence_is_as_large_as_its_level(in_float64):
    """The mean over images of log Σ_k e_k / K, under the untrained CLIP's texts."""
    method, images = method_of().train(), torch.randn(1, 12, 3, 32, 32)
    labels = torch.arange(12) % 6
    method.start(lambda *_: [(images[:, :8], labels[:8]), (images[:, 8:], labels[8:])], None)
    stock = pair("vit")[1]
    features = F.normalize(stock.encode_image(images[0]), dim=-1)
    logits = stock.logit_scale.exp() * features @ method.hand_crafted.T
    sums = logits.exp().sum(1).log()
    assert relative(method.learner.evidence.offset, sums.mean()) < 1e-9
    for is_training in (True, False):
        evidence = method.train(is_training).learner.evidence(logits[None]).exp().mean(-1)
        assert relative(evidence.log().mean(), torch.tensor(LEVEL)) < 1e-9


def test_reliability_is_fitted_on_validation_images_and_kept_with_the_prompts(run):
    """One number, that nothing but validation images sets; ω = 1 is the paper's rule."""
    trainer, record, folder = run("CDC", *TEXT, name="trained")
    batches = Pairs(trainer.val_loader)
    scores, labels = answered(trainer.model, batches)
    logits = torch.cat([each.logits for each in scores], dim=1)
    factor = fitted_factor(trainer.model.learner.evidence(logits), labels, [1 / 4] * 4)
    assert factor != 1
    fitted = {"reliability": pytest.approx(factor / 4, abs=1e-6)}
    assert float(trainer.model.reliability) == fitted["reliability"]
    for value, expected in (("fitted", fitted), ("independent", {"reliability": 1})):
        options = (*TEXT, "TRAINER.CDC.RELIABILITY", value)
        _, again, _ = run("CDC", *options, flags=prompts_of(folder), name=value)
        assert again["learned"] == expected
        assert (again["metrics"] == record["metrics"]) == (value == "fitted")
