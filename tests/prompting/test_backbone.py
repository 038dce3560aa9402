"""Loading a CLIP: by name, from TorchScript, from a state dict; sizes from the weights; errors a user can act on."""
import urllib.error

import clip
import pytest
import torch

from trainers.errors import UserError
from trainers.prompting import backbone as backbone_module
from trainers.prompting.backbone import load_backbone


@pytest.mark.parametrize("as_half", [False, True])
def test_a_state_dict_file_loads_in_fp32_with_the_same_weights(tmp_path, stock_vit, as_half):
    state = {key: value.half() if as_half else value for key, value in stock_vit.state_dict().items()}
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
    torch.testing.assert_close(ours.image(images[None])[0], stock.encode_image(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.text.encode_tokens(tokens), stock.encode_text(tokens), rtol=1e-4, atol=1e-4)


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
    images, tokens = torch.randn(2, 3, ours.image.image_size, ours.image.image_size), clip.tokenize(["a cat", "two dogs"])
    torch.testing.assert_close(ours.image(images[None])[0], stock.encode_image(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.text.encode_tokens(tokens), stock.encode_text(tokens), rtol=1e-4, atol=1e-4)


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"'ViT-B16'.*did you mean ViT-B/16\?.*tiny"):
        load_backbone("ViT-B16")


def test_weights_that_cannot_be_downloaded_say_which_file_goes_where(tmp_path, monkeypatch):
    def no_network(url):
        raise urllib.error.URLError("no route to host")
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(UserError, match=r"no route to host.*put the file ViT-B-16\.pt.*cache.ViT-B-16\.pt.*tiny"):
        load_backbone("ViT-B/16", cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "cache" / "ViT-B-16.pt").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="weights.pt can't be read as CLIP weights"):
        load_backbone(str(path))


def test_a_state_dict_of_another_model_is_refused(tmp_path, stock_vit):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt holds no CLIP in OpenAI's format: text_projection"):
        load_backbone(str(tmp_path / "other.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state dict but a list"):
        load_backbone(str(tmp_path / "list.pt"))
    state = stock_vit.state_dict()
    del state["visual.ln_pre.weight"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"Missing key\(s\).*ln_pre.weight"):
        load_backbone(str(tmp_path / "cut.pt"))
