"""Small random models for the tests of this folder, in float64, where equalities hold to 1e-10."""

import functools

import clip.model
import torch

from tests.conftest import GOLDEN, VOCABULARY, random_clip
from trainers.prompting.backbone import build_backbone

NAMES, SIZES = GOLDEN["models"]["names"], GOLDEN["models"]["sizes"]
CONFIG = GOLDEN["models"]["transformers"]


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
        package = type(module).__module__.partition(".")[0]
        if isinstance(module, torch.nn.LayerNorm) and package in ("clip", "open_clip"):
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
    assert relative(ours, theirs) < 1e-10
    weight = torch.randn(ours.shape, dtype=ours.dtype)
    gradients = (
        torch.autograd.grad((features * weight).sum(), inputs) if inputs else ()
        for features in (ours, theirs)
    )
    for gradient, reference in zip(*gradients):
        assert relative(gradient, reference) < 1e-10
