"""Every CLIP that OpenAI has published, by its shapes, and small ones of each kind against the installed ``clip``."""

import sys

import clip
import pytest
import torch
from clip.model import build_model

from tests.prompting.models import stock_clip
from tests.prompting.test_encoders import relative
from trainers.common.errors import UserError
from trainers.common.fingerprints import tensor_hash
from trainers.prompting.backbone import build_backbone, load_backbone

# name: width E, pixels, layers and width of the image encoder, patch size, width and heads of the text encoder (12 layers each)
PUBLISHED = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512, 8),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512, 8),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640, 10),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768, 12),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024, 16),
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768, 12),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768, 12),
}


def shapes_of(model):
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def test_the_table_has_all_of_them():
    assert set(PUBLISHED) == set(clip.available_models())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_shapes_make_the_published_model(name):
    embed_dim, pixels, layers, width, patch_size, text_width, heads = PUBLISHED[name]
    with torch.device("meta"):  # shapes without numbers
        stock = clip.model.CLIP(
            embed_dim, pixels, layers, width, patch_size, 77, 49408, text_width, heads, 12
        )
        ours = build_backbone(stock.state_dict())
    assert shapes_of(ours.text) | {
        f"visual.{key.removeprefix('network.')}": shape
        for key, shape in shapes_of(ours.image).items()
    } | {"logit_scale": torch.Size([])} == shapes_of(stock)
    assert (ours.image.image_size, ours.embed_dim, ours.text.layers) == (pixels, embed_dim, 12)
    assert ours.text.transformer.resblocks[0].attn.heads == heads
    if patch_size:
        assert (
            ours.image.transformer.resblocks[0].attn.heads
            == stock.visual.transformer.resblocks[0].attn.num_heads
        )
    else:
        assert ours.image.network.attnpool.num_heads == stock.visual.attnpool.num_heads


@pytest.mark.parametrize(
    "layers, width, patch_size, pixels",
    [
        ((1, 1, 2, 1), 8, None, 64),
        ((2, 1, 1, 1), 10, None, 96),
        ((1, 2, 3, 1), 12, None, 128),
        ((1, 2, 4, 2), 16, None, 160),
        (2, 192, 16, 48),
        (3, 64, 14, 42),
    ],
)
def test_small_models_of_each_kind_have_the_features_that_clip_itself_gives_their_weights(
    layers, width, patch_size, pixels
):
    state = stock_clip(layers, width, patch_size, pixels).state_dict()
    ours, stock = build_backbone(state), build_model(dict(state)).float()
    stock.load_state_dict(state)  # clip's build_model has rounded them to fp16
    images, tokens = (
        torch.randn(1, 2, 3, pixels, pixels),
        clip.tokenize(["a cat", "two large dogs"]),
    )
    assert ours.image.image_size == pixels
    assert relative(ours.image(images)[0], stock.encode_image(images[0])) < 1e-5
    assert relative(ours.text.encode_tokens(tokens), stock.encode_text(tokens)) < 1e-5


def test_an_openai_clip_is_told_by_the_weights_that_earlier_runs_have_recorded(vit):
    assert tensor_hash(vit.signature()) == tensor_hash(
        [vit.text.positional_embedding, vit.text.text_projection]
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_a_trainings_checkpoint_loads_as_its_weights(tmp_path, stock_vit, wrap):
    torch.save(wrap(stock_vit.state_dict()), tmp_path / "epoch_3.pt")
    assert torch.equal(
        load_backbone(str(tmp_path / "epoch_3.pt")).text.text_projection, stock_vit.text_projection
    )


def test_safetensors_load(tmp_path, stock_resnet, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in stock_resnet.state_dict().items()}, path)
    images = torch.randn(1, 2, 3, 32, 32)
    assert (
        relative(load_backbone(str(path)).image(images)[0], stock_resnet.encode_image(images[0]))
        < 1e-5
    )
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="clip.safetensors can't be read as CLIP weights"):
        load_backbone(str(path))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(
        UserError, match="needs the package safetensors to be read: pip install safetensors"
    ):
        load_backbone(str(path))


def test_open_clips_models_need_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        UserError, match="needs the package open_clip_torch .*: pip install open_clip_torch"
    ):
        load_backbone("open_clip:ViT-B-16/laion2b_s34b_b88k")
