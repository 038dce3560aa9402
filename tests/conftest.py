"""Fixtures that many tests share: small random CLIPs in the stock implementation, and ours with the same weights."""
import clip.model
import pytest
import torch

from trainers.prompting.backbone import build_backbone

VOCABULARY = 49408  # of CLIP's tokenizer


def random_clip(vision_layers=3, vision_width=128, patch_size=8, seed=0):
    """A small CLIP of the installed ``clip`` package with random weights large enough for every part to matter."""
    torch.manual_seed(seed)
    model = clip.model.CLIP(embed_dim=48, image_resolution=32, vision_layers=vision_layers, vision_width=vision_width,
                            vision_patch_size=patch_size, context_length=77, vocab_size=VOCABULARY,
                            transformer_width=128, transformer_heads=2, transformer_layers=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale" and parameter.dim() > 0:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.float().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def stock_vit():
    return random_clip()


@pytest.fixture(scope="session")
def stock_resnet():
    return random_clip(vision_layers=(1, 1, 1, 1), vision_width=8, patch_size=None)


@pytest.fixture(scope="session")
def vit(stock_vit):
    return build_backbone(stock_vit.state_dict())


@pytest.fixture(scope="session")
def resnet(stock_resnet):
    return build_backbone(stock_resnet.state_dict())
