"""Loading a CLIP by name or from a file: the same weights are the same model; errors to act on."""

import re
import sys

import clip
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import GOLDEN, refuses
from tests.prompting.models import relative
from trainers.common.fingerprints import tensor_hash
from trainers.prompting.backbone import WEIGHTS, load_backbone


def archive(stock, path):
    example = torch.randn(2, 3, 32, 32), clip.tokenize(["a cat", "two dogs"])
    torch.jit.trace(stock, example, check_trace=False).save(path)


def tensors(state):
    return {key: value.contiguous() for key, value in state.items()}


SAVED = {
    "clip.pt": lambda stock, path: torch.save(stock.state_dict(), path),
    "archive.pt": archive,  # as OpenAI publishes them
    "clip.safetensors": lambda stock, path: save_file(tensors(stock.state_dict()), path),
    "epoch_3.pt": lambda stock, path: torch.save({"state_dict": stock.state_dict()}, path),
    "parallel.pt": lambda stock, path: torch.save(
        {f"module.{key}": value for key, value in stock.state_dict().items()}, path
    ),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_file_of_any_format_is_the_model_of_its_weights(request, tmp_path, kind, name):
    stock, expected = request.getfixturevalue(f"stock_{kind}"), request.getfixturevalue(kind)
    SAVED[name](stock, f"{tmp_path}/{name}")
    ours = load_backbone(f"{tmp_path}/{name}")
    assert {key: tensor_hash([value]) for key, value in ours.state_dict().items()} == {
        key: tensor_hash([value]) for key, value in expected.state_dict().items()
    }
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_halves_load_in_fp32(tmp_path, stock_vit):
    torch.save(
        {key: value.half() for key, value in stock_vit.state_dict().items()}, f"{tmp_path}/a"
    )
    projection = load_backbone(f"{tmp_path}/a").image.proj
    assert torch.equal(projection, stock_vit.visual.proj.half().float())


def test_the_backbone_is_told_by_the_weights_that_earlier_runs_have_recorded(vit):
    recorded = [vit.text.positional_embedding, vit.text.text_projection]
    assert tensor_hash(vit.signature()) == tensor_hash(recorded)


def test_only_a_vit_has_a_vision_transformer(vit, resnet):
    assert vit.vision_transformer is vit.image and vit.takes_visual_prompts
    with pytest.raises(TypeError, match="ResNet"):
        _ = resnet.vision_transformer


def test_the_tiny_clip_is_what_the_unmodified_clip_package_loads(monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()  # a known name is no folder
    monkeypatch.chdir(tmp_path)
    ours, (stock, _) = load_backbone("tiny"), clip.load(str(WEIGHTS["tiny"]), device="cpu")
    images, tokens = torch.randn(1, 2, 3, 64, 64), clip.tokenize(["a cat", "two dogs"])
    assert relative(ours.image(images)[0], stock.encode_image(images[0])) < 1e-4
    assert relative(ours.text.encode_tokens(tokens), stock.encode_text(tokens)) < 1e-4


@pytest.mark.parametrize("name, message", GOLDEN["refusals"]["backbones"])
def test_a_name_that_is_not_to_be_had_is_answered_with_what_to_do(monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with refuses(re.escape(message)):
        load_backbone(name)


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "x.pt can't be read as CLIP weights"),
        (b"not a model", "x.pt can't be read as CLIP weights"),
        (b"PK\x03\x04 cut", "x.pt can't be read as CLIP weights"),
        (lambda state: [1, 2], "x.pt holds no state dict but a list"),
        (lambda state: {"weight": torch.zeros(3)}, "x.pt holds no CLIP in .* is missing"),
        (without("text_projection"), "'text_projection' is missing"),
        (without("visual.ln_pre.weight"), r"Missing key\(s\).*ln_pre.weight"),
        (lambda state: {**state, "head.weight": torch.zeros(2)}, "Unexpected key.*head.weight"),
    ],
)
def test_a_file_that_holds_no_clip_is_refused(tmp_path, stock_vit, content, message):
    if callable(content):
        torch.save(content(stock_vit.state_dict()), f"{tmp_path}/x.pt")
    else:
        (tmp_path / "x.pt").write_bytes(content)
    with refuses(message):
        load_backbone(f"{tmp_path}/x.pt")
