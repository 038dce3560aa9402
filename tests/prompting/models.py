"""Small random models for the tests of this folder, in float64, where equalities hold to 1e-9."""

import functools

import clip.model
import torch

from tests.conftest import VOCABULARY, random_clip
from trainers.prompting.backbone import build_backbone

NAMES = [
    "cat",
    "a very long class name with many, many words, that goes on: and on; and on",
    "person_on_a_bike",
    "x-ray of a left hand (front view), 1920's style",
]
# layers, width and patch size of the image encoder, and the pixels it takes
SIZES = {
    "vit-14": (3, 64, 14, 42),
    "vit-16": (2, 192, 16, 48),
    "resnet-96": ((2, 1, 1, 1), 10, None, 96),
    "resnet-128": ((1, 2, 3, 1), 12, None, 128),
}
# of a small CLIP of transformers
TOWER = {"num_attention_heads": 2, "hidden_size": 128, "intermediate_size": 512}
CONFIG = {
    "model_type": "clip",
    "projection_dim": 48,
    "vision_config": {**TOWER, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
    "text_config": {**TOWER, "num_hidden_layers": 4},
}


@torch.no_grad()
def noisy(model):
    """The model, frozen, with weights large enough for every part to matter."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_") and parameter.dim() > 0:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.float().eval().requires_grad_(False)


def stock(kind):
    """A CLIP of the installed ``clip``, in fp32."""
    torch.manual_seed(1)
    if kind == "vit":
        return random_clip()
    if kind == "resnet":
        return random_clip(vision_layers=(1, 1, 1, 1), vision_width=8, patch_size=None)
    layers, width, patch_size, pixels = SIZES[kind]
    return noisy(clip.model.CLIP(48, pixels, layers, width, patch_size, 77, VOCABULARY, 64, 1, 2))


def exact(model):
    """The model in float64; clip's and open_clip's layer norms would go through fp32."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.__class__ = torch.nn.LayerNorm
    return model.double()


@functools.cache
def pair(kind):
    """Ours and the stock CLIP of the same weights; neither is to be changed."""
    theirs = stock(kind)
    return build_backbone(theirs.state_dict()).double(), exact(theirs)


def double(*shape):
    """Gaussian numbers that a gradient can be asked for."""
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def assert_same(ours, theirs, inputs=()):
    """Equal in value and in the gradient of a random sum with respect to each input."""
    assert relative(ours, theirs) < 1e-9
    weight = torch.randn(ours.shape, dtype=ours.dtype)
    gradients = (
        torch.autograd.grad((features * weight).sum(), inputs) if inputs else ()
        for features in (ours, theirs)
    )
    for gradient, reference in zip(*gradients):
        assert relative(gradient, reference) < 1e-9
