"""MMA against the official forward pass on the stock CLIP's blocks, all 77 positions."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import scrambled, trainer_node
from tests.reference import unit
from trainers.mma import SharedAdapters, add_mma_config, with_gradient


def adapted(x, blocks, adapters, shared, scale):
    """(L, N, D) through ``clip``'s blocks with an adapter beside those that have one, by number from 1."""
    for number, block in enumerate(blocks, 1):
        added = 0
        if str(number) in shared:
            down, (up_weight, up_bias) = (
                adapters[str(number)]["down"][0],
                adapters[str(number)]["up"].parameters(),
            )
            hidden = torch.relu(block.ln_1(x) @ down.weight.T + down.bias)
            hidden = torch.relu(
                hidden @ shared[str(number)][0].weight.T + shared[str(number)][0].bias
            )
            added = scale * (hidden @ up_weight.T + up_bias)
        x = block(x) + added
    return x


def reference_logits(model, learner, names, images, scale):
    tokens = clip.tokenize([f"a photo of a {name}." for name in names])
    x = (model.token_embedding(tokens) + model.positional_embedding).permute(1, 0, 2)
    x = adapted(
        x, model.transformer.resblocks, learner.text_adapter, learner.shared_adapter, scale
    ).permute(1, 0, 2)
    text = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    x = visual.ln_pre(x).permute(1, 0, 2)
    x = adapted(
        x, visual.transformer.resblocks, learner.visual_adapter, learner.shared_adapter, scale
    )
    image = visual.ln_post(x[0]) @ visual.proj
    return model.logit_scale.exp() * unit(image) @ unit(text).T


@pytest.mark.parametrize("start, end", [(1, 3), (2, 3), (2, 2)])
@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_logits_loss_and_gradients_are_those_of_the_official_way(run, stock_vit, start, end, scale):
    """Gradients are 1 / s times the true ones."""
    settings = {"START": start, "END": end, "SCALE": scale}
    options = [
        word
        for key, value in settings.items()
        for word in (f"TRAINER.MMA.ADAPTER_{key}", str(value))
    ]
    trainer = run("MMA", *options, flags=("--no-train",))[0]
    torch.manual_seed(1)
    learner = scrambled(trainer.model.learner)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 5, 2])
    scores = trainer.model.scores(images[None])
    loss, _ = trainer.model.loss(scores, labels)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    logits = reference_logits(stock_vit, learner, trainer.model.classnames, images, scale)
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(scores.logits[0], logits, rtol=1e-5, atol=2e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, reference in zip(
        gradients, torch.autograd.grad(expected, list(learner.parameters())), strict=True
    ):
        assert (gradient - reference / scale).norm() <= 1e-4 * (reference / scale).norm()


def test_only_the_gradient_is_multiplied():
    x = torch.randn(5, requires_grad=True)
    y = with_gradient(x, 1e-3)
    assert torch.equal(y, x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], 2e-3 * x)


def test_it_starts_as_the_official_code_does_and_has_the_published_size(vit_b16):
    torch.manual_seed(0)
    learner = SharedAdapters(trainer_node(add_mma_config), ["cat", "bus"], vit_b16)
    for name, parameter in learner.named_parameters():
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx((2 / len(parameter)) ** 0.5, rel=0.2), (
                name
            )
        else:
            assert not parameter.any(), name
    assert list(learner.shared_adapter) == ["5", "6", "7", "8", "9", "10", "11", "12"]
    assert {
        "text_adapter.5.down.0.weight",
        "visual_adapter.12.up.bias",
        "shared_adapter.5.0.weight",
    } <= set(learner.state_dict())
    assert (
        sum(parameter.numel() for parameter in learner.parameters())
        == 8 * (33_312 + 49_952 + 1_056)
        == 674_560
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("ADAPTER_START", "0", "is 0, it must be at least 1"),
        ("ADAPTER_START", "4", "ADAPTER_END is 3, it must be ADAPTER_START, 4, or more"),
        ("ADAPTER_END", "4", "has 3 layers"),
        ("ADAPTER_SCALE", "0.0", "it must be above 0"),
        ("TEXT_CTX_INIT", "a {}", "without braces"),
    ],
)
def test_contradictions_are_refused(refusal, key, value, message):
    assert message in refusal(f"TRAINER.MMA.{key}", value, trainer="MMA")
