"""What adapters change in the two towers, against the blocks of ``clip`` taken apart, in float64."""

import clip
import pytest
import torch
import torch.nn.functional as F

from tests.prompting.models import NAMES, assert_same, double, pair
from trainers.prompting import image
from trainers.prompting.image import Readout
from trainers.prompting.prompts import FixedTokens, Prompts
from trainers.prompting.transformer import Adapter


class Everything(Adapter):
    """Puts tokens after the first one, shears queries, keys and values, and adds to the output."""

    def __init__(self, first):
        super().__init__()
        self.rest = 1 if first else 3  # from where on the tokens are not put there by a layer
        self.put = torch.nn.Parameter(torch.randn(2, 128))
        self.shear = torch.nn.Parameter(torch.randn(3, 128, 128) * 0.1)
        self.more = torch.nn.Linear(128, 128)
        self.double()

    def enter(self, tokens):
        put = self.put.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], put, tokens[:, self.rest :]], dim=1)

    def project(self, normed, projected, parts):
        shears = [torch.tanh(normed @ self.shear["qkv".index(part)]) for part in parts]
        return projected + torch.cat(shears, dim=-1)

    def leave(self, block, tokens, output):
        return output + self.more(block.ln_1(tokens)).relu()


def through_stock(blocks, x, adapters, causal):
    """(N, L, D) → (N, L, D) through blocks of ``clip``, under an adapter or None each."""
    for block, adapter in zip(blocks, adapters):
        x = x if adapter is None else adapter.enter(x)
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
        attended = attention.out_proj((weights.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
        out = x + attended
        out = out + block.mlp(block.ln_2(out))
        x = out if adapter is None else out + torch.relu(adapter.more(normed))
    return x


@pytest.fixture
def adapters():
    """Of all layers but the first, of which two and three put tokens in."""
    torch.manual_seed(3)
    return [None, Everything(first=True), Everything(first=False)]


def parameters(adapters):
    return [parameter for adapter in filter(None, adapters) for parameter in adapter.parameters()]


@pytest.mark.parametrize("last", [None, Everything(first=False)])
@pytest.mark.parametrize("template", ["a photo of a {}, my own.", "{}"])
def test_adapted_texts_are_those_of_the_77_position_loop(adapters, template, last):
    (ours, stock), adapters = pair("vit"), [*adapters, last]
    prompts = FixedTokens.of_prompt(ours.text, template, NAMES)(text_adapters=adapters)
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in NAMES])
    x = stock.token_embedding(tokens) + stock.positional_embedding
    x = through_stock(stock.transformer.resblocks, x, adapters, causal=True)
    expected = stock.ln_final(x)[torch.arange(len(x)), tokens.argmax(1) + 2] @ stock.text_projection
    features = ours.text(*prompts.texts(slice(0, len(NAMES))))[0]
    assert_same(features, expected, parameters(adapters))


@pytest.mark.parametrize("at_once", [1, 1000])
def test_adapted_images_and_what_is_read_beside_the_class_token(adapters, monkeypatch, at_once):
    monkeypatch.setattr(image, "CPU_BATCH", at_once)
    ours, stock = pair("vit")
    images, visual = double(2, 3, 3, 32, 32), stock.visual
    readout = Readout(2, lambda tokens: tokens.prod(dim=1)[:, :48])
    ours = ours.image(images, *Prompts(image_adapters=adapters, readout=readout).images())
    x = visual.conv1(images.flatten(0, 1)).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding)
    x = visual.ln_post(through_stock(visual.transformer.resblocks, x, adapters, causal=False))
    features, second = x[:, 0] @ visual.proj, (x[:, 1] * x[:, 2])[:, :48]
    expected = torch.stack([features[:3], second[:3], features[3:], second[3:]])
    assert_same(ours, expected, parameters(adapters))


def test_an_adapter_that_overrides_nothing_changes_nothing():
    (ours, _), images = pair("vit"), double(1, 2, 3, 32, 32)
    tokens = FixedTokens.of_prompt(ours.text, "a photo of a {}.", NAMES)
    adapted = tokens(text_adapters=[Adapter()] * 4, image_adapters=[None, Adapter()])
    for part in (tokens(), adapted):
        assert_same(ours.image(images, *part.images()), ours.image(images))
    plain, same = (ours.text(*part.texts(slice(0, 4))) for part in (tokens(), adapted))
    assert torch.equal(plain, same)
