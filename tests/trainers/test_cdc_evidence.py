"""CDC's evidence: its loss, lists of classes, fusion, reliability, and prompts of former versions, each against the formula in float64."""

import math

import clip
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image

from tests.conftest import trainer_node
from trainers import cdc
from trainers.cdc import CDCMethod, add_cdc_config
from trainers.cdcover import CDCTCPMethod, add_cdctcp_config
from trainers.evaluation.prediction import Scores
from trainers.evidence import dempster, fitted_factor
from trainers.losses import consistency_loss, decoupling_loss
from trainers.method import Method

NAMES = [f"thing {number}" for number in range(6)]
TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")
OFFSET = torch.tensor([19.0, 19.5, 20.0, 20.5])


def method_of(vit, names=NAMES, **settings):
    """CDC of texts alone, in evaluation, whose offsets are not alike."""
    given = {"PREC": "fp32", "PROMPT_MODALITY": "text", "PROMPT_DEPTH": 1, "N_CTX": 4, **settings}
    node = trainer_node(add_cdc_config, *(part for pair in given.items() for part in pair))
    method = CDCMethod(node, names, vit).eval()
    method.learner.offset.copy_(OFFSET)
    return method


def answers(images=5, classes=6):
    """Logits (M, B, K) as encoders may give them."""
    torch.manual_seed(3)
    return torch.randn(4, images, classes) * 3 + 20


def by_formula(evidence, reliability):
    """α of the fused opinion, K (Π_m (1 + e^m / K)^ω_m − 1) + 1, of evidence (M, B, K)."""
    classes = evidence.shape[-1]
    weights = torch.as_tensor(reliability, dtype=torch.float64).expand(len(evidence))
    return classes * ((1 + evidence / classes) ** weights[:, None, None]).prod(0) - classes + 1


# ---- the loss ----


@pytest.mark.parametrize(
    "fusion, loss",
    [("dempster", "evidential"), ("mean_probability", "evidential"), ("dempster", "cross_entropy")],
)
def test_the_loss_is_the_sum_of_its_named_parts(vit, fusion, loss, monkeypatch):
    """In training evidence is at the level that it starts from; the fused term has ω = 1/M."""
    method = method_of(
        vit, FUSION=fusion, LOSS=loss, DECOUPLING_WEIGHT=0.7, CONSISTENCY_WEIGHT=1.3
    ).train()
    logits, labels = answers(), torch.tensor([0, 1, 2, 3, 5])
    texts = F.normalize(torch.randn(4, 6, 48), dim=-1)
    evidence = (logits.double() - OFFSET.double()[:, None, None] + math.log(6)).exp()
    alphas = [*(evidence + 1)] + [by_formula(evidence, 1 / 4)] * (fusion == "dempster")
    expected = 0.0
    for alpha in alphas:
        right = alpha[range(5), labels]
        trusted = torch.digamma(alpha.sum(1)) - torch.digamma(right)
        shares = ((alpha - 1).sum(1) / (right - 1)).log()
        expected += ((trusted + shares) / 2).mean()
    if loss == "cross_entropy":
        expected = sum(F.cross_entropy(one.double(), labels) for one in logits)
    apart = decoupling_loss(texts, method.hand_crafted)
    near = consistency_loss(texts, method.hand_crafted)
    fusions = []
    monkeypatch.setattr(cdc, "dempster", lambda *parts: fusions.append(1) or dempster(*parts))
    total, figures = method.loss(Scores(logits, None, texts, None), labels)
    assert total.item() == pytest.approx((expected + 0.7 * apart + 1.3 * 4 * near).item(), rel=1e-5)
    assert figures["loss_de"].item() == pytest.approx(apart.item(), rel=1e-5)
    assert len(fusions) == (loss == "evidential")


# ---- lists of classes ----


@pytest.mark.parametrize("classes", [2, 6, 40])
def test_evidence_on_a_shorter_list_is_that_of_the_trained_one_and_its_share_on_a_longer_one(
    vit, classes
):
    """Of a class: e_k is the same on any list up to the trained one, e_k / K on any from it on."""
    method = method_of(vit, [f"thing {k}" for k in range(classes)], EVIDENCE_LEVEL=5.0)
    method.learner.trained_classes.fill_(6)
    logits = answers(classes=classes)
    by_class = (logits.double() - OFFSET.double()[:, None, None] + 5 - 2).exp()  # e_k / K, K ≥ 6
    alpha = by_formula(max(6, classes) * by_class, 1 / 4)
    prediction = method.predict(logits)
    torch.testing.assert_close(
        prediction.probability.double(), alpha / alpha.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        prediction.vacuity.double(), classes / alpha.sum(-1), rtol=1e-4, atol=1e-7
    )


def test_vacuity_changes_with_a_longer_list_only_by_what_its_classes_get(vit):
    """Cosines as CLIP's are, asked of prompts for ten classes: classes that are far from the image
    change nothing, and those as near as CLIP's wrong ones (0.22 ± 0.02, the right one 0.30 ± 0.03)
    lower the vacuity; on a list of two it is lower, since what speaks for a class stays."""
    torch.manual_seed(0)
    right, wrong = 30 + 3 * torch.randn(4, 500, 1), 22 + 2 * torch.randn(4, 500, 999)
    far, near = {}, {}
    for classes in (2, 10, 100, 1000):
        method = method_of(vit, ["thing"] * classes)
        method.learner.trained_classes.fill_(10)
        method.learner.offset.fill_(32)
        for kept, others in ((far, torch.full_like(wrong, 0.0)), (near, wrong)):
            logits = torch.cat([right, others[..., : classes - 1]], dim=2)
            kept[classes] = method.predict(logits).vacuity
    for classes in (100, 1000):
        torch.testing.assert_close(far[classes], far[10], rtol=0, atol=1e-5)
    assert (far[2] < far[10]).all()
    for fewer, more in ((10, 100), (100, 1000)):
        assert (near[more] <= near[fewer] + 1e-6).all()
        assert near[fewer].mean() - near[more].mean() < 0.15


# ---- answers ----


@pytest.mark.parametrize("reliability", ["fitted", "independent"])
@pytest.mark.parametrize("loss", ["evidential", "cross_entropy"])
@pytest.mark.parametrize("fusion", ["dempster", "mean_probability", "sum_logits"])
def test_fusion_rules(vit, fusion, loss, reliability):
    method, logits = method_of(vit, FUSION=fusion, LOSS=loss, RELIABILITY=reliability), answers()
    method.learner.reliability.fill_(0.3)
    evidence = (logits.double() - OFFSET.double()[:, None, None] + math.log(6) + 2).exp()
    alpha, exact = evidence + 1, logits.double()
    is_evidential = loss == "evidential"
    votes = alpha / alpha.sum(-1, keepdim=True) if is_evidential else exact.softmax(-1)
    fused = by_formula(evidence, 0.3 if reliability == "fitted" else 1.0)
    expected = {
        "dempster": fused / fused.sum(-1, keepdim=True),
        "mean_probability": votes.mean(0),
        "sum_logits": exact.sum(0).softmax(-1),
    }[fusion]
    prediction = method.predict(logits)
    torch.testing.assert_close(prediction.probability.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        prediction.template_probability.double(), votes, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(prediction.energy.double(), -exact.logsumexp(-1).mean(0))
    if is_evidential:
        torch.testing.assert_close(
            prediction.vacuity.double(), 6 / fused.sum(-1), rtol=1e-4, atol=1e-7
        )
    else:
        assert prediction.vacuity is None  # no evidence was learned


def test_training_starts_where_zero_shot_evidence_is_c_nats_above_one_per_class(run):
    trainer, _, _ = run("CDC", *TEXT, "TRAINER.CDC.EVIDENCE_START", "2.5", "OPTIM.MAX_EPOCH", "1")
    backbone = trainer.model.backbone
    tokens = clip.tokenize([f"{name} texture." for name in trainer.model.classnames])
    texts = F.normalize(backbone.text.encode_tokens(tokens), dim=-1)
    transform = T.Compose(
        [
            T.Resize(32, T.InterpolationMode.BICUBIC),
            T.CenterCrop(32),
            T.ToTensor(),
            T.Normalize(trainer.cfg.INPUT.PIXEL_MEAN, trainer.cfg.INPUT.PIXEL_STD),
        ]
    )
    sums = []
    for item in trainer.dm.dataset.train_x:
        pixels = transform(Image.open(item.impath).convert("RGB"))[None, None]
        image = F.normalize(backbone.image(pixels)[0, 0], dim=-1)
        sums.append((backbone.logit_scale * texts @ image).exp().sum().log().item())
    offset = trainer.model.learner.offset
    torch.testing.assert_close(
        offset, torch.full((4,), sum(sums) / len(sums) - 2.5), rtol=1e-4, atol=0
    )


def test_reliability_is_fitted_on_validation_images_and_kept_with_the_prompts(run):
    """The image witness counts as all templates together; the factor is of all."""
    trainer, record, folder = run("CDC", *TEXT, name="trained")
    with torch.no_grad():
        batches = [trainer.parse_batch_test(batch) for batch in trainer.val_loader]
        logits = torch.cat([trainer.model(images).logits for images, _ in batches], dim=1)
    labels = torch.cat([label for _, label in batches])
    weights = torch.tensor([1 / 4] * 4 + [1.0])
    factor = fitted_factor(trainer.model.log_evidence(logits), labels, weights)
    expected = pytest.approx(factor / 4, abs=1e-6)
    assert len(logits) == 5 and factor != 1
    assert record["learned"]["reliability"] == expected
    again = {}
    for reliability in ("fitted", "independent"):
        _, again[reliability], _ = run(
            "CDC",
            *TEXT,
            "TRAINER.CDC.RELIABILITY",
            reliability,
            flags=("--eval-only", "--model-dir", str(folder)),
            name=reliability,
        )
    assert again["fitted"]["metrics"]["test"] == record["metrics"]["test"]
    assert again["fitted"]["learned"] == {"reliability": expected}
    assert again["independent"]["learned"] == {"reliability": 1}
    assert again["independent"]["metrics"]["test"]["nll"] != record["metrics"]["test"]["nll"]


# ---- prompts of former versions ----


@pytest.mark.parametrize("name", ["CDC", "CDCTCP"])
@pytest.mark.parametrize("classes", [3, 6, 9])
def test_prompts_with_a_learned_offset_answer_as_they_did(vit, classes, name):
    """As commit 4e1f990 wrote them: log e = l − offset − shift − log(K_trained / K), ω as stored.
    Those over another method had a K-free offset, log e = l − offset − shift + log K."""
    asked = [f"thing {k}" for k in range(classes)]
    torch.manual_seed(1)
    shift, offset = torch.randn(4), torch.tensor(18.0)
    if name == "CDC":
        made, method = method_of(vit), method_of(vit, asked)
    else:
        node = trainer_node(add_cdctcp_config, "PREC", "fp32", "LAYER", 2, "N_TEMPLATES", 4)
        made, method = (CDCTCPMethod(node, names, vit).eval() for names in (NAMES, asked))
    ours = {"offset", "trained_classes", "reliability"}
    state = {
        key: value
        for key, value in made.learner.state_dict().items()
        if key not in ours and not key.startswith("witness.")
    }
    state |= {"offset": offset, "offset_shift": shift, "reliability": torch.tensor(0.37)}
    if name == "CDC":
        state["trained_classes"] = torch.tensor(6)
    method.load(state, NAMES)
    logits = answers(classes=classes)
    log_evidence = logits.double() - (offset + shift).double()[:, None, None] + math.log(classes)
    if name == "CDC":
        log_evidence -= math.log(6)
    torch.testing.assert_close(
        method.log_evidence(logits).double(), log_evidence, rtol=1e-5, atol=1e-5
    )
    alpha = by_formula(log_evidence.exp(), 0.37)
    torch.testing.assert_close(
        method.predict(logits).probability.double(),
        alpha / alpha.sum(-1, keepdim=True),
        rtol=1e-4,
        atol=1e-6,
    )
    del state["reliability"]  # still earlier ones
    method.load(state, NAMES)
    assert method.learner.reliability == 1
    assert method.learner.witness is None and isinstance(method, Method)
