"""Positional embeddings for images of another size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.errors import UserError

MOST_PATCHES = 4096  # of an image: attention's memory grows with their square


def resize(positions: nn.Parameter, image_size: int, patch_size: int) -> None:
    """Resize positional embeddings to images of another size, both sizes in pixels, by
    ``interpolate``.

    Raises:
        UserError: the patches don't fill the image, or are too many.
    """
    if image_size < patch_size or image_size % patch_size:
        raise UserError(
            f"images of {image_size} pixels can't be cut into patches of {patch_size}: give "
            f"INPUT.SIZE as a multiple of {patch_size}"
        )
    if (image_size // patch_size) ** 2 > MOST_PATCHES:
        raise UserError(
            f"images of {image_size} pixels have {(image_size // patch_size) ** 2} patches of {patch_size}: give "
            f"INPUT.SIZE of at most {int(MOST_PATCHES**0.5) * patch_size}"
        )
    positions.data = interpolate(positions.data, image_size // patch_size)


def interpolate(positions: Tensor, grid: int) -> Tensor:
    """Positional embeddings for a grid of another size: bicubic, antialiased where it gets smaller.

    (Dosovitskiy et al., 2021, ViT, §3.2; the antialiasing as in open_clip and timm.)

    Args:
        positions: (1 + g², D). The first belongs to no place, but to a ViT's class token or to the
            mean that a ResNet's attention pool starts from; it stays. The others are a grid of
            g × g, row by row.
        grid: g', patches a side.

    Returns:
        (1 + g'², D).
    """
    old = side(positions)
    first = positions[:1]  # (1, D)
    places = positions[1:].t().unflatten(1, (old, old))  # (D, g, g)
    # (1, D, g', g')
    places = F.interpolate(
        places[None], (grid, grid), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([first, places[0].flatten(1).t()])


def side(positions: Tensor) -> int:
    """Patches a side g of positional embeddings (1 + g², D)."""
    places: int = round((len(positions) - 1) ** 0.5)
    return places
