"""TCP's logits, loss and gradients against the stock text encoder, a class and a layer at a time."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled, trainer_node
from tests.reference import prompted_embeddings, stock_classifier, stock_text_features, unit
from trainers.tcp import AFTER_CONTEXT, ClassAwarePrompts, add_tcp_config


def published_texts(model, learner, names, hand_crafted, layer=2):
    """(K, E): each class alone, its own tokens put over the context before the layer; DescribableTextures' words."""
    first, second, rows = learner.reduce, learner.expand, []
    for name, feature in zip(names, hand_crafted):
        hidden = first.weight @ feature + first.bias
        own = (second.weight @ (hidden * torch.sigmoid(1.702 * hidden)) + second.bias).reshape(
            4, -1
        )  # (n, D)
        tokens = clip.tokenize([f"X X X X {name} texture."])
        rows.append(
            stock_text_features(
                model,
                prompted_embeddings(model, tokens, learner.ctx),
                tokens.argmax(1),
                [None] * (layer - 1) + [own],
            )[0]
        )
    return unit(torch.stack(rows))


def test_logits_loss_and_gradients_are_those_of_the_published_formula(run, stock_vit):
    trainer = run("TCP", "TRAINER.TCP.W", "3.0", flags=("--no-train",))[0]
    torch.manual_seed(2)
    learner = scrambled(trainer.model.learner)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, figures = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))

    hand_crafted = stock_classifier(
        stock_vit, "a photo of a {}, a type of texture.", trainer.model.classnames
    )
    text = published_texts(stock_vit, learner, trainer.model.classnames, hand_crafted)
    logits = stock_vit.logit_scale.exp() * unit(stock_vit.encode_image(images)) @ text.T
    distance = sum(1 - F.cosine_similarity(text[k], hand_crafted[k], dim=0) for k in range(6)) / 6
    expected = F.cross_entropy(logits, labels) + 3 * distance
    references = torch.autograd.grad(expected, list(learner.parameters()))
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and figures[
        "loss_kg"
    ] == pytest.approx(distance.item(), rel=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient - reference).norm() / reference.norm() < 1e-4


def test_adam_has_the_published_eps(run):
    trainer = run("TCP", "OPTIM.NAME", "adam", flags=("--no-train",))[0]
    assert [group["eps"] for group in trainer.optim.param_groups] == [1e-3]
    assert (
        sum(p.numel() for group in trainer.optim.param_groups for p in group["params"])
        == trainer.model.count_parameters()[0]
    )


def test_parameters_on_vit_b16_shapes(vit_b16):
    learner = ClassAwarePrompts(
        trainer_node(add_tcp_config),
        torch.zeros(2, 512),
        ["cat", "dog"],
        vit_b16.text,
        AFTER_CONTEXT["UCF101"],
    )
    assert sum(p.numel() for p in learner.parameters()) == 4 * 512 + (512 * 128 + 128) + (
        128 * 4 * 512 + 4 * 512
    )
    assert [layer is None for layer in learner().deep_text] == [True] * 7 + [False]


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("W", "-1.0", "is -1.0, it must not be negative"),
        ("LAYER", "0", "must be at least 1"),
        ("LAYER", "4", "counted from 0, is 5, "),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    error = refusal(f"TRAINER.TCP.{key}", value, trainer="TCP")
    assert f"TRAINER.TCP.{key}" in error and message in error
