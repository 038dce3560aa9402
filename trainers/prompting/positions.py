"""Positional embeddings of an image encoder for images of another size than it was trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.errors import UserError


def interpolate(positions: Tensor, grid: int) -> Tensor:
    """Positional embeddings for a grid of another size: bicubic, antialiased where it gets smaller.

    (Dosovitskiy et al., 2021, ViT, §3.2; the antialiasing as in open_clip and timm.)

    Args:
        positions: (1 + g², D). The first belongs to no place, but to a ViT's class token or to the mean that a ResNet's attention
            pool starts from; it stays. The others are a grid of g × g, row by row.
        grid: g', patches a side.

    Returns:
        (1 + g'², D).
    """
    old = side(positions)
    if grid == old:
        return positions
    first, places = positions[:1], positions[1:].t().unflatten(1, (old, old))  # (1, D), (D, g, g)
    places = F.interpolate(
        places[None], (grid, grid), mode="bicubic", antialias=True, align_corners=False
    )  # (1, D, g', g')
    return torch.cat([first, places[0].flatten(1).t()])


def side(positions: Tensor) -> int:
    """Patches a side g of positional embeddings (1 + g², D)."""
    return round((len(positions) - 1) ** 0.5)


def patches_a_side(image_size: int, patch_size: int) -> int:
    """Number of patches along one side of an image; both sizes in pixels.

    Raises:
        UserError: they don't fill the image.
    """
    if image_size < patch_size or image_size % patch_size:
        raise UserError(
            f"images of {image_size} pixels can't be cut into patches of {patch_size}: give INPUT.SIZE as a multiple of "
            f"{patch_size}"
        )
    return image_size // patch_size
