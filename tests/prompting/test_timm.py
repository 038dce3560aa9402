"""timm's image encoders against timm itself: features, pixels and sources of weights."""

import logging

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.hub import serving
from tests.runs import refuses
from trainers.common.setting import node_of
from trainers.data.transforms import pixels_of_test
from trainers.prompting.backbone import load_backbone, pixels_of
from trainers.settings import RUN

timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")

SMALL = [
    "convnext_atto",
    "deit_tiny_distilled_patch16_224",
    "edgenext_xx_small",
    "efficientnet_lite0",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "regnetx_002",
    "resnet10t",
    "vit_tiny_patch16_224",
]
LARGE = [
    "convnext_tiny.dinov3_lvd1689m",
    "dm_nfnet_f0",
    "eva02_tiny_patch14_224",
    "swin_tiny_patch4_window7_224",
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_small_patch16_dinov3",
]
ARCHITECTURES = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
TINY = "test_vit"  # timm's own, for tests: 160 pixels


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory):
    """``weights_of(name, **settings)``: timm's network with random weights, and their file."""

    def make(name, **settings):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, **settings).eval()
        for (
            parameter
        ) in network.parameters():  # zeros and ones would hide a weight in a wrong place
            parameter.data += 0.01 * torch.randn_like(parameter)
        path = tmp_path_factory.mktemp("weights") / "own.safetensors"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
        return network, path

    return make


def photograph():
    pixels = numpy.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype="uint8")
    return Image.fromarray(pixels).resize((700, 450), Image.Resampling.BICUBIC)


def shown_by(name, image):
    """A picture (3, H, W) as a run with that backbone tests it."""
    node = node_of(RUN).INPUT
    node.update(TRANSFORMS=("normalize",), **pixels_of(name))
    return pixels_of_test(node)(image)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_features_of_a_picture_are_timms_own(weights_of, architecture):
    network, path = weights_of(architecture)
    name = f"timm:{architecture}/{path}"
    backbone = load_backbone(name)
    image = photograph()
    ours = backbone.image(shown_by(name, image)[None, None])[0]  # (1, E)
    data = timm.data.resolve_data_config(model=network)
    theirs = timm.data.create_transform(**data, is_training=False)(image)[None]
    network.reset_classifier(0)
    expected = network(theirs)
    assert ours.shape == (1, backbone.embed_dim)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_images_may_have_another_size_where_timm_can_resize(weights_of):
    for architecture, size in ((TINY, 96), ("test_resnet", 64)):
        network, path = weights_of(architecture)
        backbone = load_backbone(f"timm:{architecture}/{path}")
        backbone.image.interpolate_positions(size)
        images = torch.randn(1, 2, 3, size, size)
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=(size, size))
        network.reset_classifier(0)
        torch.testing.assert_close(backbone.image(images)[0], network(images[0]))
        assert backbone.image.image_size == size
    name = f"timm:mixer_s32_224/{weights_of('mixer_s32_224')[1]}"
    with refuses("takes no images of 96 pixels .its size is fixed.: give another INPUT.SIZE"):
        load_backbone(name).image.interpolate_positions(96)


# ---- where weights come from ----


@torch.no_grad()
def test_a_folder_and_a_repository_that_timm_has_saved(weights_of, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    network, _ = weights_of(TINY, num_classes=7, depth=3)
    facts = {"license": "some-licence", "mean": [0.1, 0.2, 0.3], "crop_pct": 0.8}
    timm.models.save_for_hf(
        network, tmp_path / "saved", {"pretrained_cfg": facts, "model_args": {"depth": 3}}
    )
    images = torch.randn(1, 2, 3, 160, 160)
    folder = f"timm:local-dir:{tmp_path}/saved"
    found = load_backbone(folder)
    network.reset_classifier(0)
    torch.testing.assert_close(found.image(images)[0], network(images[0]))
    assert found.normalization[0] == [0.1, 0.2, 0.3]
    assert pixels_of(folder)["CROP_PCT"] == 0.8
    assert caplog.text.count("have the licence some-licence") == 1, "once, at loading"
    with serving("someone/birds", monkeypatch, tmp_path / "cache") as hub:
        hub.files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
        name = "timm:hf-hub:someone/birds"
        assert pixels_of(name)["CROP_PCT"] == 0.8
        assert hub.downloads == ["config.json"], "nothing is loaded for pixels"
        again = load_backbone(name)
        assert len(hub.downloads) == 2
        load_backbone(name)
        assert len(hub.downloads) == 2
    assert torch.equal(again.image(images), found.image(images))


def test_a_name_of_the_list_is_downloaded_from_where_timm_says(weights_of, tmp_path, monkeypatch):
    network, path = weights_of(TINY)
    with serving("timm/test_vit.r160_in1k", monkeypatch, tmp_path / "cache") as hub:
        hub.files = {"model.safetensors": path.read_bytes()}
        images = torch.randn(1, 2, 3, 160, 160)
        network.reset_classifier(0)
        found = load_backbone(f"timm:{TINY}")
        torch.testing.assert_close(found.image(images)[0], network(images[0]))


def test_mistakes_are_one_line(weights_of, tmp_path):
    _, path = weights_of("test_resnet")
    with refuses("timm has no network or weights 'resnet81'.* timm.list_pretrained"):
        load_backbone("timm:resnet81")
    with refuses("own.safetensors holds no weights of test_vit"):
        load_backbone(f"timm:{TINY}/{path}")
    with refuses("nowhere.pt is not a file"):
        load_backbone(f"timm:{TINY}/nowhere.pt")
    with refuses("is neither a file nor a known CLIP.*timm's image encoders as timm:<model>"):
        load_backbone("tim:resnet18")
    with refuses("pictures here are square"):
        load_backbone("timm:vit_base_patch16_sapiens2")


def test_weights_that_lack_a_part_are_refused_and_nothing_stays_random(weights_of, tmp_path):
    network, _ = weights_of(TINY)
    state = network.state_dict()
    missing = next(name for name in state if "blocks.1" in name)
    del state[missing]
    torch.save(state, tmp_path / "part.pt")
    with refuses("holds no weights of test_vit: .*Missing key"):
        load_backbone(f"timm:{TINY}/{tmp_path}/part.pt")


@pytest.mark.parametrize(
    "content, message",
    [
        ("no json", "can't be read as a network of timm"),
        (
            '{"architecture": "test_vit9"}',
            "which the installed timm does not have .did you mean test_vit",
        ),
        (
            '{"architecture": "test_vit", "model_args": {"checkpoint_path": "/etc/passwd"}}',
            "its model_args have checkpoint_path",
        ),
        ('{"architecture": "test_vit", "mean": 3}', "its mean is 3"),
        ('{"architecture": "test_vit", "input_size": "large"}', "its input_size is large"),
    ],
)
def test_a_folder_that_describes_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with refuses(message):
        load_backbone(f"timm:local-dir:{tmp_path}")
