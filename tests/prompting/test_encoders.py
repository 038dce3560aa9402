"""Our towers against the installed ``clip``'s own, in float64; prompted ones: tests/trainers/test_formulas.py."""

import clip
import pytest
import torch

from tests.prompting.models import NAMES, SIZES, assert_same, double, pair, relative
from trainers.prompting.backbone import build_backbone


@pytest.mark.parametrize("kind", ["vit", "resnet", *SIZES])
def test_features_are_those_of_encode_image_and_encode_text(kind):
    ours, theirs = pair(kind)
    images = double(2, 3, 3, *2 * [ours.image.image_size])
    assert_same(ours.image(images)[1], theirs.encode_image(images[1]))
    for texts in (NAMES, ["one"], [f"a photo of a {name}." for name in NAMES], ["a", "a b"]):
        tokens = clip.tokenize(texts)
        assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens))


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
