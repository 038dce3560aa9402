"""Loading a CLIP: by name, from TorchScript, from a state dict; sizes from the weights; errors a user can act on."""

import hashlib
import io
import urllib.error
from pathlib import Path

import clip
import pytest
import torch

from trainers.common.errors import UserError
from trainers.prompting import backbone as backbone_module
from trainers.prompting.backbone import load_backbone


@pytest.mark.parametrize("as_half", [False, True])
def test_a_state_dict_file_loads_in_fp32_with_the_same_weights(tmp_path, stock_vit, as_half):
    state = {
        key: value.half() if as_half else value for key, value in stock_vit.state_dict().items()
    }
    torch.save(state, tmp_path / "clip.pt")
    ours = load_backbone(str(tmp_path / "clip.pt"))
    assert ours.text.positional_embedding.dtype == torch.float32
    assert torch.equal(ours.image.proj, state["visual.proj"].float())
    assert torch.equal(ours.log_scale, state["logit_scale"].float())
    assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("kind", ["stock_vit", "stock_resnet"])
def test_a_torchscript_archive_as_openai_publishes_them_loads(request, tmp_path, kind):
    stock = request.getfixturevalue(kind)
    images, tokens = torch.randn(2, 3, 32, 32), clip.tokenize(["a cat", "two dogs"])
    torch.jit.trace(stock, (images, tokens), check_trace=False).save(str(tmp_path / "clip.pt"))
    ours = load_backbone(str(tmp_path / "clip.pt"))
    torch.testing.assert_close(
        ours.image(images[None])[0], stock.encode_image(images), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        ours.text.encode_tokens(tokens), stock.encode_text(tokens), rtol=1e-4, atol=1e-4
    )


def test_every_size_is_read_from_the_weights(vit, resnet):
    assert (vit.text.width, vit.text.layers, vit.text.context_length) == (128, 4, 77)
    assert (vit.image.width, vit.image.layers, vit.image.image_size) == (128, 3, 32)
    assert vit.takes_visual_prompts and not resnet.takes_visual_prompts
    assert resnet.image.image_size == 32


def test_only_a_vit_has_a_vision_transformer(vit, resnet):
    assert vit.vision_transformer is vit.image
    with pytest.raises(TypeError, match="ResNet"):
        _ = resnet.vision_transformer


def test_the_tiny_clip_of_the_package_is_what_the_unmodified_clip_package_loads():
    ours = load_backbone("tiny")
    stock, _ = clip.load(str(backbone_module.WEIGHTS["tiny"]), device="cpu")
    images, tokens = (
        torch.randn(2, 3, ours.image.image_size, ours.image.image_size),
        clip.tokenize(["a cat", "two dogs"]),
    )
    torch.testing.assert_close(
        ours.image(images[None])[0], stock.encode_image(images), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        ours.text.encode_tokens(tokens), stock.encode_text(tokens), rtol=1e-4, atol=1e-4
    )


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"'ViT-B16'.*did you mean ViT-B/16\?.*tiny"):
        load_backbone("ViT-B16")


def test_weights_that_cannot_be_downloaded_say_which_file_goes_where(tmp_path, monkeypatch):
    def no_network(url):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(
        UserError, match=r"no route to host.*put the file ViT-B-16\.pt.*cache.ViT-B-16\.pt.*tiny"
    ):
        load_backbone("ViT-B/16", cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "cache" / "ViT-B-16.pt").exists()


@pytest.mark.parametrize("network", [True, False])
def test_a_file_of_the_users_in_the_place_of_the_weights_is_never_touched(
    tmp_path, monkeypatch, network
):
    """clip itself would download over it; a failed download deleted it."""

    def urlopen(url):
        assert network, "no route to host"
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    (tmp_path / "ViT-B-16.pt").write_bytes(b"mine")
    with pytest.raises(
        UserError,
        match=r"ViT-B-16\.pt is not OpenAI's ViT-B/16: its SHA-256 is [0-9a-f]{16}…, 4 bytes, not [0-9a-f]{16}…",
    ):
        load_backbone("ViT-B/16", cache_dir=str(tmp_path))
    assert (tmp_path / "ViT-B-16.pt").read_bytes() == b"mine"


def test_what_is_downloaded_gets_its_name_when_it_is_whole(tmp_path, monkeypatch, stock_vit):
    content = io.BytesIO()
    torch.save(stock_vit.state_dict(), content)
    seen = []

    def download(url, folder):
        seen.append((tmp_path / "cache" / "ViT-B-16.pt").exists())
        Path(folder, "ViT-B-16.pt").write_bytes(content.getvalue())
        return str(Path(folder, "ViT-B-16.pt"))

    monkeypatch.setattr("clip.clip._download", download)
    for _ in range(2):
        found = hashlib.sha256(content.getvalue()).hexdigest()
        monkeypatch.setitem(
            clip.clip._MODELS, "ViT-B/16", f"https://example.org/{found}/ViT-B-16.pt"
        )
        assert load_backbone("ViT-B/16", cache_dir=str(tmp_path / "cache")).takes_visual_prompts
    assert (
        seen == [False] and (tmp_path / "cache" / "ViT-B-16.pt").read_bytes() == content.getvalue()
    )


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="weights.pt can't be read as CLIP weights"):
        load_backbone(str(path))


def test_a_state_dict_of_another_model_is_refused(tmp_path, stock_vit):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match=r"other.pt holds no CLIP in OpenAI's format: text_projection"
    ):
        load_backbone(str(tmp_path / "other.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state dict but a list"):
        load_backbone(str(tmp_path / "list.pt"))
    state = stock_vit.state_dict()
    del state["visual.ln_pre.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"Missing key\(s\).*ln_pre.weight"):
        load_backbone(str(tmp_path / "cut.pt"))
