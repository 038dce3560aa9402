"""CDC's evidence: lists of classes, fusion, reliability, and prompts of former versions, each
against the formula in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_method
from tests.prompting.models import pair, relative
from tests.runs import prompts_of
from tests.trainers.formulas.templates import fused_evidence
from trainers.evidence import fitted_reliabilities

NAMES = [f"thing {number}" for number in range(6)]
TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")
OFFSET = torch.tensor([19.0, 19.5, 20.0, 20.5], dtype=torch.float64)


def method_of(names=NAMES, name="CDC", **settings):
    """CDC of texts alone, in evaluation, whose offsets are not alike."""
    text = {"PROMPT_MODALITY": "text", "PROMPT_DEPTH": 1} if name == "CDC" else {}
    method = make_method(name, pair("vit")[0], names, N_TEMPLATES=4, **text, **settings).eval()
    method.learner.offset.copy_(OFFSET)
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
    method = method_of([f"thing {k}" for k in range(classes)], EVIDENCE_LEVEL=5.0)
    method.learner.trained_classes.fill_(6)
    logits = answers(classes)
    by_class = (logits - OFFSET[:, None, None] + 5 - 2).exp()  # e_k / K, K ≥ 6
    alpha = fused(max(6, classes) * by_class, 1 / 4)
    prediction = method.predict(logits)
    assert relative(prediction.probability, share(alpha)) < 1e-9
    assert relative(prediction.vacuity, classes / alpha.sum(-1)) < 1e-9


@pytest.mark.parametrize("reliability", ["fitted", "independent"])
@pytest.mark.parametrize("loss", ["evidential", "cross_entropy"])
@pytest.mark.parametrize("fusion", ["dempster", "mean_probability", "sum_logits"])
def test_fusion_rules(in_float64, fusion, loss, reliability):
    method, logits = method_of(FUSION=fusion, LOSS=loss, RELIABILITY=reliability), answers()
    method.learner.reliability.fill_(0.3)
    evidence = 6 * (logits - OFFSET[:, None, None] + 2).exp()
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
    assert relative(prediction.template_probability, votes) < 1e-9
    assert relative(prediction.energy, -logits.logsumexp(-1).mean(0)) < 1e-9
    if is_evidential:
        assert relative(prediction.vacuity, 6 / alpha.sum(-1)) < 1e-9
    else:
        assert prediction.vacuity is None  # no evidence was learned


def test_training_starts_where_zero_shot_evidence_is_c_nats_above_one_per_class(in_float64):
    method, images = method_of(EVIDENCE_START=2.5), torch.randn(1, 12, 3, 32, 32)
    labels = torch.arange(12) % 6
    method.start(lambda *_: [(images[:, :8], labels[:8]), (images[:, 8:], labels[8:])], None)
    stock = pair("vit")[1]
    features = F.normalize(stock.encode_image(images[0]), dim=-1)
    sums = (stock.logit_scale.exp() * features @ method.hand_crafted.T).exp().sum(1).log()
    assert relative(method.learner.offset, (sums.mean() - 2.5).expand(4)) < 1e-9


def test_reliability_is_fitted_on_validation_images_and_kept_with_the_prompts(run):
    """Of the templates' answers, and once more of all witnesses', among whom the image witness
    counts twice as much as all templates together."""
    trainer, record, folder = run("CDC", *TEXT, name="trained")
    with torch.no_grad():
        batches = [trainer.parse_batch_test(batch) for batch in trainer.val_loader]
        logits = torch.cat([trainer.model(images).logits for images, _ in batches], dim=1)
    labels = torch.cat([label for _, label in batches])
    evidence = trainer.model.log_evidence(logits)
    alone = fitted_reliabilities(evidence[:4], labels, 4)
    joint = fitted_reliabilities(evidence, labels, 4)
    assert len(logits) == 5 and 1 / 4 not in alone and joint[4] != 1
    for witnesses, weights in ((4, alone), (5, joint)):
        torch.testing.assert_close(trainer.model.reliabilities(witnesses), weights)
    expected = pytest.approx(alone[0].item(), abs=1e-6)
    assert record["learned"]["reliability"] == expected
    for value, kept in (("fitted", expected), ("independent", 1)):
        options = (*TEXT, "TRAINER.CDC.RELIABILITY", value)
        _, again, _ = run("CDC", *options, flags=prompts_of(folder), name=value)
        assert again["learned"] == {"reliability": kept}
        assert (again["metrics"] == record["metrics"]) == (value == "fitted")


@pytest.mark.parametrize("name", ["CDC", "CDCTCP"])
@pytest.mark.parametrize("classes", [3, 6, 9])
def test_prompts_with_a_learned_offset_answer_as_they_did(in_float64, classes, name):
    """As commit 4e1f990 wrote them: log e = l − offset − shift − log(K_trained / K), ω as stored.
    Those over another method had a K-free offset, log e = l − offset − shift + log K."""
    made, method = method_of(name=name), method_of([f"thing {k}" for k in range(classes)], name)
    torch.manual_seed(1)
    shift, offset = torch.randn(4), torch.tensor(18.0)
    ours = ("offset", "trained_classes", "reliability", "joint_reliability", "witness.")
    known = made.learner.state_dict()
    state = {key: known[key] for key in known if not key.startswith(ours)}
    state |= {"offset": offset, "offset_shift": shift, "reliability": torch.tensor(0.37)}
    if name == "CDC":
        state["trained_classes"] = torch.tensor(6)
    method.load(state, NAMES)
    logits = answers(classes)
    log_evidence = logits - (offset + shift)[:, None, None] + math.log(classes)
    if name == "CDC":
        log_evidence -= math.log(6)
    assert relative(method.log_evidence(logits), log_evidence) < 1e-9
    alpha = fused(log_evidence.exp(), 0.37)
    assert relative(method.predict(logits).probability, share(alpha)) < 1e-9
    weights = torch.tensor([0.37] * 4 + [4 * 0.37])
    torch.testing.assert_close(method.reliabilities(5), weights)  # as later ones had it
    del state["reliability"]  # still earlier ones
    method.load(state, NAMES)
    assert method.learner.reliability == 1 and method.learner.witness is None
