"""CLIP's image encoders: the ViT, which takes deep prompts, and the ResNets, which take none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.errors import UserError
from .clip_package import clip_module
from .transformer import Adapter, LayerNorm, Transformer, attend

RESNET_STRIDE = 32  # pixels a side of one place of a ResNet's attention pool: it halves five times
MOST_PATCHES = 4096  # of an image: attention's memory grows with their square
CPU_BATCH = 32  # images that stay in a CPU's cache: of more, pieces or templates go one by one


@dataclass
class Readout:
    """A second feature of an image, made of tokens that an ``Adapter`` has put after the class
    token.

    Attributes:
        tokens: how many.
        feature: (N, tokens, D), normed as the class token is → (N, E).
    """

    tokens: int
    feature: Callable[[Tensor], Tensor]


class ImageEncoder(nn.Module):
    """The vision transformer. Its parameters carry the names that CLIP's state dict has below
    ``visual.``.

    Args:
        transformer: of width D.
        image_size, patch_size: in pixels, both sides alike.
        embed_dim: width E of the space shared with texts.
    """

    def __init__(
        self, transformer: Transformer, image_size: int, patch_size: int, embed_dim: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        width = transformer.width
        self.width = width
        self.layers = transformer.layers
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        patches = (image_size // patch_size) ** 2
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = transformer
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def interpolate_positions(self, image_size: int) -> None:
        """Takes images of that many pixels from now on, see ``resize``."""
        resize(self.positional_embedding, image_size, self.conv1.kernel_size[0])
        self.image_size = image_size

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        deep_prompts: Sequence[Tensor] = (),
        adapters: Iterable[Adapter | None] = (),
        readout: Readout | None = None,
    ) -> Tensor:
        """Features of B images under M templates.

        Args:
            images: (V, B, 3, H, W); V = M gives each template its own view, V = 1 shows all
                templates the same one.
            prompts: (M, n, D) prompt tokens put after the patches, or None.
            deep_prompts: one for each layer after the first, as far as any has: (M, n, D), which
                take the place of the prompts before (Khattak et al., 2023, MaPLe, §3.2).
            adapters: one or None for each layer, as far as any has.
            readout: of a second feature, or None.

        Returns:
            (M, B, E), not normalised; without prompts (V, B, E). With a readout twice as many:
            after each feature the second one.
        """
        views, batch = images.shape[:2]
        templates = views if prompts is None else len(prompts)
        if images.device.type == "cpu" and templates * batch > CPU_BATCH:
            further = adapters, readout
            if prompts is None:
                pieces = images.flatten(0, 1).split(CPU_BATCH)
                encoded = [self(piece[None], None, (), *further) for piece in pieces]
                # (1, V·B, E), or two with a readout
                joined = torch.cat(encoded, dim=1).unflatten(1, (views, batch))
                together: Tensor = joined.transpose(0, 1).flatten(0, 1)
                return together
            if templates > 1:
                shown = images.expand(templates, *images.shape[1:])  # (M, B, 3, H, W)
                each = zip(*(part[:, None] for part in (shown, prompts, *deep_prompts)))
                parts = [self(view, prompt, deep, *further) for view, prompt, *deep in each]
                return torch.cat(parts)
        dtype = self.conv1.weight.dtype
        patches = self.conv1(images.flatten(0, 1).to(dtype))  # (V·B, D, √N, √N)
        patches = patches.flatten(2).transpose(1, 2)  # (V·B, N, D)
        first = self.class_embedding.to(dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1)  # (V·B, 1 + N, D)
        x = x + self.positional_embedding.to(dtype)

        def of_images(prompt: Tensor) -> Tensor:  # (M, n, D) → (M·B, n, D)
            # not repeat_interleave, which ONNX can't do for any number of images
            return prompt.to(dtype)[:, None].expand(-1, batch, -1, -1).flatten(0, 1)

        if prompts is not None:
            x = x.unflatten(0, (views, batch)).expand(templates, -1, -1, -1).flatten(0, 1)
            x = torch.cat([x, of_images(prompts)], dim=1)  # (M·B, 1 + N + n, D)
        x = self.ln_pre(x)
        blocks = self.transformer.resblocks
        for block, deep, adapter in zip_longest(blocks, [None, *deep_prompts], adapters):
            if deep is not None:
                x = torch.cat([x[:, : -deep.shape[1]], of_images(deep)], dim=1)
            if adapter is not None:
                x = adapter.enter(x)
            if block is not blocks[-1]:
                attended = attend(*block.project(x, adapter=adapter))
                x = block.finish(x, attended, adapter)
        # the last layer's output is read at the class token only, and where a readout is
        read = x[:, : 1 + readout.tokens] if readout else x[:, :1]  # (M·B, R, D)
        key, value = block.project(x, "kv", adapter)  # (M·B, 1 + N (+ n), H, D/H)
        (query,) = block.project(read, "q", adapter)  # (M·B, R, H, D/H)
        read = self.ln_post(block.finish(read, attend(query, key, value), adapter))  # (M·B, R, D)
        features = [read[:, 0] @ self.proj]  # (M·B, E)
        if readout:
            features.append(readout.feature(read[:, 1:]).to(read.dtype))
        features = [feature.view(templates, batch, -1) for feature in features]
        return torch.stack(features, dim=1).flatten(0, 1)  # (M, B, E)


class ResNetImageEncoder(clip_module("model").ModifiedResNet):  # type: ignore[misc]  # clip has no types
    """CLIP's ResNet of the installed ``clip`` package under the call of ``ImageEncoder``."""

    def __init__(self, *sizes: object) -> None:
        super().__init__(*sizes)
        # the layout that convolutions compute in: nothing is reordered between them
        self.to(memory_format=torch.channels_last)
        self.image_size = self.input_resolution

    def interpolate_positions(self, image_size: int) -> None:
        """Takes images of that many pixels from now on: the positions of the attention pool, see
        ``resize``."""
        resize(self.attnpool.positional_embedding, image_size, RESNET_STRIDE)
        self.image_size = image_size

    def forward(self, images: Tensor, *_: object) -> Tensor:
        """(V, B, 3, H, W) → (V, B, E).

        There are no prompts, adapters or readout: a convolutional network has no tokens to put them
        beside and no blocks to change, see ``Method.check_images``.
        """
        features: Tensor = (
            super().forward(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        )  # (V, B, E)
        return features


def resize(positions: nn.Parameter, image_size: int, patch_size: int) -> None:
    """Makes positional embeddings those of images of another size, both sizes in pixels, see
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
    places = F.interpolate(
        places[None], (grid, grid), mode="bicubic", antialias=True, align_corners=False
    )  # (1, D, g', g')
    return torch.cat([first, places[0].flatten(1).t()])


def side(positions: Tensor) -> int:
    """Patches a side g of positional embeddings (1 + g², D)."""
    places: int = round((len(positions) - 1) ** 0.5)
    return places
