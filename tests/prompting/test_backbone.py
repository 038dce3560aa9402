"""Loading a CLIP by name or from a file: the same weights are the same model; errors to act on."""

import json
import re
import sys

import clip
import pytest
import torch
from safetensors.torch import save_file

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.openmoji import SPLIT
from tests.prompting.models import NAMES, SIZES, assert_same, double, pair, relative
from tests.runs import REPOSITORY, refuses
from trainers.prompting.backbone import OWN_WEIGHTS, load_backbone
from trainers.prompting.hashes import tensor_hash


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


@pytest.mark.parametrize(
    "kind, name", [*(("vit", name) for name in SAVED), ("resnet", "archive.pt")]
)
def test_a_file_of_any_format_is_the_model_of_its_weights(request, tmp_path, kind, name):
    SAVED[name](request.getfixturevalue(f"stock_{kind}"), f"{tmp_path}/{name}")
    ours, expected = load_backbone(f"{tmp_path}/{name}"), request.getfixturevalue(kind)
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_halves_load_in_fp32(tmp_path, stock_vit):
    halves = {key: value.half() for key, value in stock_vit.state_dict().items()}
    torch.save(halves, f"{tmp_path}/a")
    assert torch.equal(load_backbone(f"{tmp_path}/a").image.proj, halves["visual.proj"].float())


def test_the_backbone_is_told_by_the_weights_that_earlier_runs_have_recorded(vit):
    recorded = [vit.text.positional_embedding, vit.text.text_projection]
    assert tensor_hash(vit.signature()) == tensor_hash(recorded)


def test_the_tiny_clip_is_what_the_unmodified_clip_package_loads(monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()  # a known name is no folder
    monkeypatch.chdir(tmp_path)
    ours, (stock, _) = load_backbone("tiny"), clip.load(str(OWN_WEIGHTS["tiny"]), device="cpu")
    images, tokens = torch.randn(1, 2, 3, 64, 64), clip.tokenize(["a cat", "two dogs"])
    assert relative(ours.image(images)[0], stock.encode_image(images[0])) < 1e-4
    assert relative(ours.text.encode_tokens(tokens), stock.encode_text(tokens)) < 1e-4


@pytest.mark.parametrize(
    "name, message",
    [
        ("ViT-B16", "did you mean ViT-B/16?"),
        ("hf:someone/other", "download someone/other"),
        ("open_clip:ViT-B-16/x", "needs the package open_clip_torch "),
    ],
)
def test_a_name_that_is_not_to_be_had_is_answered_with_what_to_do(monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with refuses(re.escape(message)):
        load_backbone(name)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "x.pt can't be read as CLIP weights"),
        ([1, 2], "x.pt holds no state dict but a list"),
        ({"weight": torch.zeros(3)}, "x.pt holds no CLIP in .* is missing"),
    ],
)
def test_a_file_that_holds_no_clip_is_refused(tmp_path, content, message):
    torch.save(content, f"{tmp_path}/x.pt")
    if content is None:
        (tmp_path / "x.pt").write_bytes(b"PK\x03\x04 cut")
    with refuses(message):
        load_backbone(f"{tmp_path}/x.pt")


# ---- our towers against clip's ----


@pytest.mark.parametrize("kind", ["vit", "resnet", *SIZES])
def test_features_are_those_of_encode_image_and_encode_text(kind):
    ours, theirs = pair(kind)
    images = double(2, 3, 3, *2 * [ours.image.image_size])
    assert_same(ours.image(images)[1], theirs.encode_image(images[1]))
    for texts in (NAMES, ["one"], [f"a photo of a {name}." for name in NAMES], ["a", "a b"]):
        tokens = clip.tokenize(texts)
        assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens))


def test_a_frozen_resnet_does_not_follow_the_data(resnet):
    before = resnet.image.bn1.running_mean.clone()
    resnet.train()
    resnet.image(torch.randn(1, 4, 3, 32, 32))
    assert torch.equal(before, resnet.image.bn1.running_mean)


# ---- the embedded tiny CLIP ----


@pytest.mark.slow
def test_the_committed_weights_have_the_model_cards_accuracy():
    """Zero-shot over all classes on the validation pictures, computed with the unmodified ``clip``
    alone."""
    card = (REPOSITORY / "trainers/prompting/weights/tiny.md").read_text("utf-8")
    stated = re.search(r'"a photo of a {}.", val \| ([0-9.]+)', card)
    split = json.loads(SPLIT.read_text("utf-8"))["val"]
    names = sorted({name for *_, name in split})
    stock, preprocess = clip.load(str(OWN_WEIGHTS["tiny"]), device="cpu")
    with torch.no_grad():
        images = torch.stack([preprocess(draw_emoji(code)) for code, _, _ in split])
        logits, _ = stock(images, clip.tokenize([f"a photo of a {name}." for name in names]))
    right = logits.argmax(1) == torch.tensor([label for _, label, _ in split])
    # two pictures of 203
    assert 100 * right.float().mean().item() == pytest.approx(float(stated.group(1)), abs=1.0)
