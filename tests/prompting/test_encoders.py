"""Our towers against the installed ``clip``'s own: features to 1e-5 relative, gradients to 1e-4."""

import clip
import pytest
import torch

from tests.reference import prompted_embeddings, stock_image_features, stock_text_features
from trainers.prompting import image
from trainers.prompting.prompts import embed, start_embedding
from trainers.prompting.tokens import class_tokens

NAMES = [
    "cat",
    "a very long class name with many, many words, that goes on: and on; and on",
    "person_on_a_bike",
    "bus",
    "x-ray of a left hand (front view), 1920's style",
]


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def padded_tokens(names, n_ctx):
    return clip.tokenize(
        [" ".join(["X"] * n_ctx) + f" {name.replace('_', ' ')}." for name in names]
    )


@pytest.mark.parametrize(
    "texts", [NAMES, ["one"], [f"a photo of a {name}." for name in NAMES], ["a", "a b", "a b c"]]
)
def test_plain_texts_have_the_features_of_clips_encode_text(vit, stock_vit, texts):
    tokens = clip.tokenize(texts)
    assert relative(vit.text.encode_tokens(tokens), stock_vit.encode_text(tokens)) < 1e-5


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("templates", [1, 4])
@pytest.mark.parametrize("n_ctx", [1, 4, 16])
def test_prompted_texts_match_the_77_position_loop_in_value_and_gradient(
    vit, stock_vit, templates, n_ctx, depth
):
    torch.manual_seed(n_ctx)
    shape = (templates, n_ctx, vit.text.width)
    context = torch.randn(shape, requires_grad=True)
    deep = [torch.randn(shape, requires_grad=True) for _ in range(depth - 1)]
    weight = torch.randn(templates, len(NAMES), 48)

    tokens = class_tokens(NAMES, 76 - n_ctx)
    prefix = torch.cat([start_embedding(vit.text).expand(templates, 1, -1), context], dim=1)
    ours = vit.text(prefix, embed(vit.text, tokens.ids)[None], tokens.end[None], deep)
    grads = torch.autograd.grad((ours * weight).sum(), [context, *deep])

    padded = padded_tokens(NAMES, n_ctx)
    theirs = torch.stack(
        [
            stock_text_features(
                stock_vit,
                prompted_embeddings(stock_vit, padded, context[m]),
                padded.argmax(1),
                [layer[m] for layer in deep],
            )
            for m in range(templates)
        ]
    )
    expected = torch.autograd.grad((theirs * weight).sum(), [context, *deep])

    assert relative(ours, theirs) < 1e-5
    for grad, reference in zip(grads, expected):
        assert relative(grad, reference) < 1e-4


def test_each_template_may_bring_its_own_suffix(vit, stock_vit):
    tokens = clip.tokenize(["a photo of a cat.", "a sketch of my big dog."])
    embedded = vit.text.token_embedding(tokens)
    features = vit.text(
        embedded[:, :1], embedded[:, None, 1:12], tokens.argmax(1)[:, None] - 1
    )  # two templates, one class
    assert relative(features[:, 0], stock_vit.encode_text(tokens)) < 1e-5


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("templates", [1, 4])
@pytest.mark.parametrize("own_views", [True, False])
@pytest.mark.parametrize("at_once", [1, 1000])  # one template after the other, and all together
def test_prompted_images_match_the_loop_in_value_and_gradient(
    vit, stock_vit, monkeypatch, at_once, templates, depth, own_views
):
    monkeypatch.setattr(image, "CPU_BATCH", at_once)
    torch.manual_seed(depth)
    images = torch.randn(templates if own_views else 1, 3, 3, 32, 32)
    prompts = [torch.randn(templates, 2, 128, requires_grad=True) for _ in range(depth)]
    weight = torch.randn(templates, 3, 48)
    ours = vit.image(images, prompts[0], prompts[1:])
    grads = torch.autograd.grad((ours * weight).sum(), prompts)
    theirs = torch.stack(
        [
            stock_image_features(
                stock_vit,
                images[m if own_views else 0],
                prompts[0][m],
                [layer[m] for layer in prompts[1:]],
            )
            for m in range(templates)
        ]
    )
    expected = torch.autograd.grad((theirs * weight).sum(), prompts)
    assert relative(ours, theirs) < 1e-5
    for grad, reference in zip(grads, expected):
        assert relative(grad, reference) < 1e-4


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_plain_images_have_the_features_of_clips_encode_image(request, kind):
    ours, stock = request.getfixturevalue(kind), request.getfixturevalue(f"stock_{kind}")
    images = torch.randn(2, 3, 3, 32, 32)
    features = ours.image(images)
    for view in range(2):
        assert relative(features[view], stock.encode_image(images[view])) < 1e-5


def test_a_frozen_resnet_does_not_follow_the_data(resnet):
    before = resnet.image.network.bn1.running_mean.clone()
    resnet.train()
    resnet.image(torch.randn(1, 4, 3, 32, 32))
    assert torch.equal(before, resnet.image.network.bn1.running_mean)
    assert not resnet.image.network.training


def test_a_resnet_refuses_prompts(resnet):
    with pytest.raises(ValueError, match="a ResNet takes no prompts"):
        resnet.image(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 2, 8))


def test_more_deep_prompts_than_layers_are_refused(vit):
    deep = [torch.zeros(1, 2, 128)] * 4
    with pytest.raises(ValueError, match="4 deep prompts for 4 layers: at most 3"):
        vit.text(
            torch.zeros(1, 3, 128),
            torch.zeros(1, 1, 2, 128),
            torch.zeros(1, 1, dtype=torch.long),
            deep,
        )
    with pytest.raises(ValueError, match="4 deep prompts for 3 layers: at most 2"):
        vit.image(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 2, 128), deep)
    with pytest.raises(ValueError, match="give those as well"):
        vit.image(torch.zeros(1, 1, 3, 32, 32), None, deep[:1])


def test_more_tokens_than_positions_are_refused(vit):
    with pytest.raises(ValueError, match="70 [+] 8 tokens for 77 positions"):
        vit.text(
            torch.zeros(1, 70, 128), torch.zeros(1, 1, 8, 128), torch.zeros(1, 1, dtype=torch.long)
        )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_half_precision_stays_near_fp32(stock_vit, dtype, tolerance):
    from trainers.prompting.backbone import build_backbone

    half = build_backbone(stock_vit.state_dict()).to(dtype)
    tokens = clip.tokenize(NAMES)
    images = torch.randn(1, 2, 3, 32, 32)
    assert (
        relative(half.text.encode_tokens(tokens).float(), stock_vit.encode_text(tokens)) < tolerance
    )
    assert relative(half.image(images)[0].float(), stock_vit.encode_image(images[0])) < tolerance
