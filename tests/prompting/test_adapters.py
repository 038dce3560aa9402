"""What adapters change in the two towers, against the blocks of the installed ``clip`` taken apart."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.prompting.test_encoders import NAMES, relative
from tests.reference import unit
from trainers.prompting import image
from trainers.prompting.image import Readout
from trainers.prompting.prompts import HandCraftedTokens, Prompts
from trainers.prompting.transformer import Adapter


class Everything(Adapter):
    """Puts tokens after the first one, shears queries, keys and values, and adds to the output."""

    def __init__(self, first):
        super().__init__()
        self.first = first  # whether no other layer has put tokens there before
        self.put = torch.nn.Parameter(torch.randn(2, 128))
        self.shear = torch.nn.Parameter(torch.randn(3, 128, 128) * 0.1)
        self.more = torch.nn.Linear(128, 128)

    def enter(self, tokens):
        return torch.cat(
            [
                tokens[:, :1],
                self.put.expand(len(tokens), -1, -1),
                tokens[:, 1 if self.first else 3 :],
            ],
            dim=1,
        )

    def project(self, normed, projected, parts):
        return projected + torch.cat(
            [torch.tanh(normed @ self.shear["qkv".index(part)]) for part in parts], dim=-1
        )

    def leave(self, block, tokens, output):
        return output + self.more(block.ln_1(tokens)).relu()


def stock_block(block, x, adapter, causal):
    """A block of ``clip``'s (N, L, D) → (N, L, D), under an adapter or None."""
    if adapter is not None:
        x = torch.cat(
            [x[:, :1], adapter.put.expand(len(x), -1, -1), x[:, 1 if adapter.first else 3 :]], dim=1
        )
    normed, attention = block.ln_1(x), block.attn
    parts = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    if adapter is not None:
        parts = [part + torch.tanh(normed @ shear) for part, shear in zip(parts, adapter.shear)]
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts
    )
    weights = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if causal:
        weights = weights + torch.full(weights.shape[-2:], -torch.inf).triu(1)
    attended = (weights.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    out = x + F.linear(attended, attention.out_proj.weight, attention.out_proj.bias)
    out = out + block.mlp(block.ln_2(out))
    return out if adapter is None else out + torch.relu(adapter.more(normed))


@pytest.fixture
def adapters():
    """Of all layers but the first, of which two and three put tokens in."""
    torch.manual_seed(3)
    return [None, Everything(first=True), Everything(first=False)]


def gradients(features, adapters):
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    return torch.autograd.grad(
        (features * weight).sum(),
        [p for adapter in filter(None, adapters) for p in adapter.parameters()],
    )


def assert_same(ours, theirs, adapters):
    assert relative(ours, theirs) < 1e-5
    for found, expected in zip(gradients(ours, adapters), gradients(theirs, adapters), strict=True):
        assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("template", ["a photo of a {}, my own.", "{}"])
def test_adapted_texts_are_those_of_the_77_position_loop(vit, stock_vit, adapters, template, last):
    adapters = adapters + [Everything(first=False)] if last else adapters
    prompts = HandCraftedTokens(vit.text, template, NAMES)(text_adapters=adapters)
    ours = vit.text(*prompts.texts(slice(0, len(NAMES))))[0]
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in NAMES])
    x = stock_vit.token_embedding(tokens) + stock_vit.positional_embedding
    for layer, block in enumerate(stock_vit.transformer.resblocks):
        x = stock_block(block, x, adapters[layer] if layer < len(adapters) else None, causal=True)
    theirs = (
        stock_vit.ln_final(x)[torch.arange(len(x)), tokens.argmax(1) + 2]
        @ stock_vit.text_projection
    )
    assert_same(ours, theirs, adapters)


@pytest.mark.parametrize("at_once", [1, 1000])
def test_adapted_images_and_what_is_read_beside_the_class_token(
    vit, stock_vit, adapters, monkeypatch, at_once
):
    monkeypatch.setattr(image, "CPU_BATCH", at_once)
    images, visual = torch.randn(2, 3, 3, 32, 32), stock_vit.visual
    readout = Readout(2, lambda tokens: tokens.prod(dim=1)[:, :48])
    ours = vit.image(images, *Prompts(image_adapters=adapters, readout=readout).images())
    x = visual.conv1(images.flatten(0, 1)).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    x = visual.ln_pre(x)
    for block, adapter in zip(visual.transformer.resblocks, adapters):
        x = stock_block(block, x, adapter, causal=False)
    x = visual.ln_post(x)
    features, second = x[:, 0] @ visual.proj, (x[:, 1] * x[:, 2])[:, :48]
    assert_same(ours, torch.stack([features[:3], second[:3], features[3:], second[3:]]), adapters)


def test_an_adapter_that_overrides_nothing_changes_nothing(vit):
    tokens, images = (
        HandCraftedTokens(vit.text, "a photo of a {}.", NAMES),
        torch.randn(1, 2, 3, 32, 32),
    )
    everywhere = tokens(text_adapters=[Adapter()] * 4, image_adapters=[None, Adapter()])
    texts = unit(vit.text(*everywhere.texts(slice(0, len(NAMES))))[0])
    torch.testing.assert_close(
        texts, vit.encode_classes("a photo of a {}.", NAMES), rtol=1e-6, atol=1e-6
    )
    assert torch.equal(vit.image(images, *everywhere.images()), vit.image(images))
    assert everywhere.change_images and not tokens().change_images


def test_adapters_for_more_layers_than_there_are_and_of_a_resnet_are_refused(vit, resnet):
    images = torch.zeros(1, 1, 3, 32, 32)
    with pytest.raises(ValueError, match="4 adapters for 3 layers"):
        vit.image(images, adapters=[None] * 4)
    with pytest.raises(ValueError, match="no adapters"):
        resnet.image(images, adapters=[Adapter()])
