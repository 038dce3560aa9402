"""Small random models for the tests of this folder."""

import clip.model
import torch

from tests.conftest import VOCABULARY


@torch.no_grad()
def noisy(model, seed=0):
    """The model, frozen, with weights large enough for every part to matter."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_") and parameter.dim() > 0:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.float().eval().requires_grad_(False)


def stock_clip(layers, width, patch_size, pixels):
    """A CLIP of the installed ``clip``: sizes of the image encoder; the text encoder's width is 64."""
    torch.manual_seed(1)
    return noisy(clip.model.CLIP(48, pixels, layers, width, patch_size, 77, VOCABULARY, 64, 1, 2))
