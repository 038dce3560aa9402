"""Our towers against the installed ``clip``'s own, in float64: features and gradients."""

import clip
import pytest
import torch

from tests.prompting.models import NAMES, SIZES, assert_same, double, pair, relative
from tests.reference import prompted_embeddings, stock_image_features, stock_text_features
from trainers.prompting import image
from trainers.prompting.backbone import build_backbone
from trainers.prompting.prompts import embed
from trainers.prompting.tokens import class_tokens


@pytest.mark.parametrize("kind", ["vit", "resnet", *SIZES])
def test_features_are_those_of_encode_image_and_encode_text(kind):
    ours, theirs = pair(kind)
    images = double(2, 3, 3, *2 * [ours.image.image_size])
    assert_same(ours.image(images)[1], theirs.encode_image(images[1]))
    for texts in (NAMES, ["one"], [f"a photo of a {name}." for name in NAMES], ["a", "a b"]):
        tokens = clip.tokenize(texts)
        assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens))


@pytest.mark.parametrize("templates, n_ctx, depth", [(1, 16, 1), (1, 4, 3), (4, 1, 4), (3, 2, 2)])
def test_prompted_texts_are_those_of_the_77_position_loop(templates, n_ctx, depth):
    ours, theirs = pair("vit")
    prompts = [double(templates, n_ctx, ours.text.width) for _ in range(depth)]
    tokens = class_tokens(NAMES, 76 - n_ctx)
    start = embed(ours.text, clip.tokenize([""])[:, :1]).expand(templates, 1, -1)
    features = ours.text(
        torch.cat([start, prompts[0]], dim=1),
        embed(ours.text, tokens.ids)[None],
        tokens.end[None],
        prompts[1:],
    )
    padded = clip.tokenize([f"{'X ' * n_ctx}{name.replace('_', ' ')}." for name in NAMES])
    expected = [
        stock_text_features(
            theirs,
            prompted_embeddings(theirs, padded, prompts[0][m]),
            padded.argmax(1),
            [layer[m] for layer in prompts[1:]],
        )
        for m in range(templates)
    ]
    assert_same(features, torch.stack(expected), prompts)


def test_each_template_may_bring_its_own_suffix():
    ours, theirs = pair("vit")
    tokens = clip.tokenize(["a photo of a cat.", "a sketch of my big dog."])
    embedded = ours.text.token_embedding(tokens)
    ends = tokens.argmax(1)[:, None] - 1
    features = ours.text(embedded[:, :1], embedded[:, None, 1:12], ends)  # two of one class
    assert_same(features[:, 0], theirs.encode_text(tokens))


@pytest.mark.parametrize("templates, depth, views", [(1, 1, 1), (4, 3, 4), (4, 2, 1)])
@pytest.mark.parametrize("at_once", [1, 1000])  # one template after the other, and all together
def test_prompted_images_are_those_of_the_loop(monkeypatch, at_once, templates, depth, views):
    monkeypatch.setattr(image, "CPU_BATCH", at_once)
    ours, theirs = pair("vit")
    images = double(views, 3, 3, 32, 32)
    prompts = [double(templates, 2, 128) for _ in range(depth)]
    expected = [
        stock_image_features(
            theirs, images[m % views], prompts[0][m], [layer[m] for layer in prompts[1:]]
        )
        for m in range(templates)
    ]
    ours = ours.image(images, prompts[0], prompts[1:])
    assert_same(ours, torch.stack(expected), [images, *prompts])


def test_a_frozen_resnet_does_not_follow_the_data(resnet):
    before = resnet.image.network.bn1.running_mean.clone()
    resnet.train()
    resnet.image(torch.randn(1, 4, 3, 32, 32))
    assert torch.equal(before, resnet.image.network.bn1.running_mean)


def test_prompts_that_an_encoder_cannot_take_are_refused(vit, resnet):
    images, prompts, deep = torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 3, 128), [None] * 4
    one, end = torch.zeros(1, 1, 2, 128), torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="4 deep prompts for 4 layers: at most 3"):
        vit.text(prompts, one, end, deep)
    with pytest.raises(ValueError, match="4 deep prompts for 3 layers: at most 2"):
        vit.image(images, prompts, deep)
    with pytest.raises(ValueError, match="give those as well"):
        vit.image(images, None, deep[:1])
    with pytest.raises(ValueError, match="4 adapters for 3 layers"):
        vit.image(images, adapters=deep)
    for kind in ({"prompts": prompts}, {"adapters": deep}):
        with pytest.raises(ValueError, match="a ResNet takes no prompts and no adapters"):
            resnet.image(images, **kind)
    with pytest.raises(ValueError, match="76 [+] 2 tokens for 77 positions"):
        vit.text(prompts[:, :1].expand(1, 76, -1), one, end)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_stays_near_fp32(stock_vit, dtype, tolerance):
    half = build_backbone(stock_vit.state_dict()).to(dtype)
    tokens, images = clip.tokenize(NAMES), torch.randn(1, 2, 3, 32, 32)
    for ours, theirs in (
        (half.text.encode_tokens(tokens), stock_vit.encode_text(tokens)),
        (half.image(images)[0], stock_vit.encode_image(images[0])),
    ):
        assert relative(ours.float(), theirs) < tolerance
