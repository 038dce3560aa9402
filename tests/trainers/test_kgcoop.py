"""KgCoOp's loss against a loop over classes with the stock encoders, and CoOp as its special case."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled, trainer_node
from tests.reference import stock_classifier, stock_context_features, unit
from trainers.kgcoop import add_kgcoop_config
from trainers.prompting.context import ContextLearner


@pytest.mark.parametrize("weight", ["8.0", "0.5"])
def test_loss_and_gradient_are_those_of_the_published_formula(run, stock_vit, weight):
    trainer = run("KgCoOp", "TRAINER.KGCOOP.W", weight, flags=("--no-train",))[0]
    torch.manual_seed(2)
    learner, names = scrambled(trainer.model.learner), trainer.model.classnames
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    loss, figures = trainer.model.loss(trainer.model.scores(images[None]), labels)
    (gradient,) = torch.autograd.grad(loss, learner.ctx)

    text = stock_context_features(stock_vit, learner.ctx, names)
    hand_crafted = stock_classifier(
        stock_vit, "a photo of a {}, a type of texture.", names
    )  # KgCoOp's own prompt for this data set
    distance = sum(1 - F.cosine_similarity(text[k], hand_crafted[k], dim=0) for k in range(6)) / 6
    logits = stock_vit.logit_scale.exp() * unit(stock_vit.encode_image(images)) @ text.T
    expected = F.cross_entropy(logits, labels) + float(weight) * distance
    (reference,) = torch.autograd.grad(expected, learner.ctx)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert figures["loss_kg"] == pytest.approx(distance.item(), rel=1e-3)
    assert (gradient - reference).norm() / reference.norm() < 1e-3


def test_without_the_term_it_is_coop(run):
    coop, coop_record, _ = run("CoOp", name="coop")
    ours, record, _ = run("KgCoOp", "TRAINER.KGCOOP.W", "0.0", name="kgcoop")
    torch.testing.assert_close(ours.model.learner.ctx, coop.model.learner.ctx)
    for figure in ("accuracy", "macro_f1", "nll", "ece"):
        assert record["metrics"]["test"][figure] == pytest.approx(
            coop_record["metrics"]["test"][figure], rel=1e-3, abs=1e-3
        )


def test_the_term_keeps_texts_near_the_hand_crafted_ones(run):
    def distance(weight):
        trainer, _, _ = run(
            "KgCoOp", "TRAINER.KGCOOP.W", weight, "OPTIM.MAX_EPOCH", "6", name=weight
        )
        with torch.no_grad():
            text, _ = trainer.model.encode()
            return 1 - (text[0] * trainer.model.hand_crafted).sum(-1).mean().item()

    assert distance("8.0") < distance("0.0")


def test_parameters_on_vit_b16_shapes(vit_b16):
    learner = ContextLearner.from_settings(
        trainer_node(add_kgcoop_config), ["cat", "dog"], vit_b16.text
    )
    assert sum(p.numel() for p in learner.parameters()) == 4 * 512


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("W", "-1.0", "is -1.0, it must not be negative"),
        ("N_CTX", "0", "must be at least 1"),
        ("CLASS_TOKEN_POSITION", "back", "takes one of end, middle, front"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.KGCOOP.{key}", value, trainer="KgCoOp")
    assert f"TRAINER.KGCOOP.{key}" in error and message in error
