"""CLIP's ResNets, which take no prompts."""

import torch
from torch import Tensor

from .clip_package import clip_module
from .positions import resize

RESNET_STRIDE = 32  # pixels a side of one place of a ResNet's attention pool: it halves five times


class ResNetImageEncoder(clip_module("model").ModifiedResNet):  # type: ignore[misc]  # clip has no types
    """CLIP's ResNet of the installed ``clip`` package under the call of ``ImageEncoder``."""

    takes_prompts = False
    computes_in_half = True
    kind = "ResNet"

    def __init__(self, *sizes: object) -> None:
        super().__init__(*sizes)
        # the layout that convolutions compute in: nothing is reordered between them
        self.to(memory_format=torch.channels_last)
        self.image_size = self.input_resolution

    def interpolate_positions(self, image_size: int) -> None:
        """Resize the attention pool's positions (``resize``), to take images of that many pixels from now on."""
        resize(self.attnpool.positional_embedding, image_size, RESNET_STRIDE)
        self.image_size = image_size

    def forward(self, images: Tensor, *_: object) -> Tensor:
        """(V, B, 3, H, W) → (V, B, E).

        There are no prompts, adapters or readout: a convolutional network has no tokens to put them
        beside and no blocks to change (``Method.check_towers``).
        """
        features = super().forward(images.flatten(0, 1))  # (V·B, E)
        of_views: Tensor = features.unflatten(0, images.shape[:2])
        return of_views
