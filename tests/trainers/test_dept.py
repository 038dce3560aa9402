"""DePT's logits, loss and gradients against loops with the stock encoders, and what becomes of the head."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled
from tests.reference import stock_classifier, stock_context_features, stock_image_features, unit
from trainers.dept import DePTCoOpMethod

BASE, NEW = ("DATASET.SUBSAMPLE_CLASSES", "base"), ("DATASET.SUBSAMPLE_CLASSES", "new")


def features(model, trainer, images):
    """Raw texts (K, E) and images (B, E) under the prompts of CoOp, KgCoOp or MaPLe."""
    learner, names = trainer.model.learner, trainer.model.classnames
    deep = list(getattr(learner, "compound_prompts_text", []))
    words = "a photo of a" if deep else None
    texts = stock_context_features(model, learner.ctx, names, words, deep, normalize=False)
    if not deep:
        return texts, model.encode_image(images)
    visual = [project(layer) for project, layer in zip(learner.compound_prompt_projections, deep)]
    return texts, stock_image_features(model, images, learner.proj(learner.ctx), visual)


@pytest.mark.parametrize("method, own", [("CoOp", 0), ("KgCoOp", 8), ("MaPLe", 0)])
def test_logits_loss_and_gradients_are_those_of_the_published_formula(run, stock_vit, method, own):
    name = f"DePT{method}"
    trainer = run(
        name,
        f"TRAINER.{name.upper()}.HEAD_WEIGHT",
        "0.6",
        f"TRAINER.{name.upper()}.PROMPT_WEIGHT",
        "0.5",
        flags=("--no-train",),
    )[0]
    torch.manual_seed(4)
    learner = scrambled(trainer.model.learner)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    head = learner.head
    texts, pictures = features(stock_vit, trainer, images)
    logits = stock_vit.logit_scale.exp() * unit(pictures) @ unit(texts).T
    headed = torch.stack(
        [
            head.linear.weight @ (head.image.scale * picture + head.image.bias) + head.linear.bias
            for picture in pictures
        ]
    )
    of_texts = torch.stack(
        [
            head.linear.weight @ (head.text.scale * texts[k] + head.text.bias) + head.linear.bias
            for k in labels
        ]
    )
    both = [
        F.cross_entropy(row, label)
        for rows in (of_texts, headed)
        for row, label in zip(rows, labels)
    ]
    hand_crafted = stock_classifier(
        stock_vit, "a photo of a {}, a type of texture.", trainer.model.classnames
    )
    expected = (
        0.5 * F.cross_entropy(logits, labels)
        + 0.6 * sum(both) / 6
        + own * (1 - (unit(texts) * hand_crafted).sum(1).mean())
    )
    references = torch.autograd.grad(expected, list(learner.parameters()))
    torch.testing.assert_close(scores.logits, torch.stack([logits, headed]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        trainer.model.answer(images[None]).probability,
        (0.4 * logits + 0.6 * headed).softmax(1),
        rtol=1e-5,
        atol=1e-5,
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() / reference.norm() < 1e-5


def test_promptsrc_keeps_its_regularisers_and_its_mean_has_the_head(run):
    """Without the head's share the loss is PromptSRC's, gradients too; in training the head is in the weighted mean over epochs."""
    plain = run("PromptSRC", name="plain", flags=("--no-train",))[0]
    ours = run(
        "DePTPromptSRC",
        "TRAINER.DEPTPROMPTSRC.HEAD_WEIGHT",
        "0.0",
        "TRAINER.DEPTPROMPTSRC.PROMPT_WEIGHT",
        "1.0",
        name="ours",
    )[0]
    assert set(ours.model.base.memory["aggregate"]) == set(
        ours.model.learner.state_dict()
    ) and torch.equal(
        ours.model.base.memory["aggregate"]["head.linear.weight"],
        ours.model.learner.head.linear.weight,
    )
    plain.model.learner.load_state_dict(ours.model.learner.state_dict(), strict=False)
    images, labels = torch.randn(1, 3, 3, 32, 32), torch.tensor([0, 5, 2])
    losses = [
        trainer.model.loss(trainer.model.scores(images), labels)[0] for trainer in (ours, plain)
    ]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, trainer.model.learner.ctx)[0]
        for loss, trainer in zip(losses, (ours, plain))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_other_classes_are_answered_by_the_prompts_alone(run):
    trained, _, folder = run("DePTCoOp", *BASE, name="base")
    flags = ("--eval-only", "--model-dir", str(folder))
    tested, record, _ = run("DePTCoOp", *NEW, name="new", flags=flags)
    assert tested.model.learner.head is None and record["metrics"]["test"]["images"] == 12
    images = torch.randn(1, 2, 3, 32, 32)
    assert len(tested.model(images).logits) == 1 and len(trained.model(images).logits) == 2


def test_some_of_the_trained_classes_are_answered_by_the_heads_rows_of_them_too(trained):
    """ImageNet-A's and -R's are some of ImageNet's: officially the head's rows of those are kept."""
    whole = trained("DePTCoOp")[0].model
    some = [4, 0, 2]
    names = [whole.classnames[k] for k in some]
    part = DePTCoOpMethod(whole.settings, names, whole.backbone, "DescribableTextures")
    part.load(whole.learner.state_dict(), whole.classnames)
    images = torch.randn(1, 5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(part(images).logits, whole(images).logits[..., some])


def test_the_head_has_a_learning_rate_of_its_own(run):
    trainer = run("DePTMaPLe", flags=("--no-train",))[0]
    groups = trainer.optim.param_groups
    assert [group["initial_lr"] for group in groups] == pytest.approx([0.02, 0.13])
    assert sum(p.numel() for p in groups[1]["params"]) == 4 * 48 + 48 * 6 + 6
    assert sum(len(group["params"]) for group in groups) == len(
        list(trainer.model.learner.parameters())
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("HEAD_WEIGHT", "1.5", "is 1.5, it must be at most 1"),
        ("HEAD_LR", "-1.0", "must not be negative"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.DEPTCOOP.{key}", value, trainer="DePTCoOp")
    assert f"TRAINER.DEPTCOOP.{key}" in error and message in error
