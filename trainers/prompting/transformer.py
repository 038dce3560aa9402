"""The transformer that both towers of CLIP are made of, with CLIP's parameter names, and the vision
transformer, which takes deep prompts. The text encoder, which computes less than it is asked for, is
in ``text.py``.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import resize

CPU_BATCH = 32  # images that stay in a CPU's cache: of more, pieces or templates go one by one


class LayerNorm(nn.LayerNorm):
    """Layer norm that computes in fp32 where its input has half precision, as CLIP's does."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(dtype)
        bias = self.bias.to(dtype)
        return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class Attention(nn.Module):
    """The parameters of multi-head attention, named as ``nn.MultiheadAttention`` names them, which
    is what CLIP's checkpoints hold. ``Block.project`` and ``attend`` compute it in steps, so that
    the caller decides who attends to whom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """Attention of N sequences, (N, L, H, D / H) each, L queries and another number of keys → (N,
    L, D).

    mask: (L, number of keys), added to their products: −∞ where a query doesn't see a key; ``causal``:
        it sees the keys up to itself; all without either.
    """
    dtype = query.dtype
    # on a CPU the backward pass in bfloat16 takes ten times as long as in fp32
    is_slow = query.device.type == "cpu" and dtype == torch.bfloat16
    with torch.autocast("cpu", enabled=False) if is_slow else contextlib.nullcontext():
        # (N, H, L, D/H) each
        query, key, value = (
            (part.float() if is_slow else part).transpose(1, 2) for part in (query, key, value)
        )
        mask = None if mask is None else mask.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        return attended.transpose(1, 2).flatten(2).to(dtype)  # (N, L, D)


QUICK_GELU = "quick_gelu"
GELU = "gelu"
SLOPE = 1.702  # of QuickGELU


def quick_gelu(x: Tensor) -> Tensor:
    """The activation of OpenAI's models, x · sigmoid(1.702 x) = silu(1.702 x) / 1.702."""
    return F.silu(SLOPE * x) / SLOPE


class MLP(nn.Module):
    """Two linear maps with an activation between them: QuickGELU, or GELU, x · Φ(x) (Hendrycks &
    Gimpel, 2016), as most of OpenCLIP's models have it.

    QuickGELU's two factors go into the matrix products, which scale at no cost. There remains
    one pass over the largest tensor of the block instead of three, and one tensor kept for the
    gradient instead of three.

    Args:
        width, hidden: of the block (D) and between the maps (W).
        activation: ``quick_gelu`` or ``gelu``.
    """

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.is_quick = activation == QUICK_GELU

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        fc = self.c_fc
        proj = self.c_proj
        if not self.is_quick:
            mapped: Tensor = proj(F.gelu(fc(x)))
            return mapped
        tokens = x.flatten(0, -2)  # (N, D)
        hidden = torch.addmm(SLOPE * fc.bias, tokens, fc.weight.t(), alpha=SLOPE)  # (N, W)
        hidden = F.silu(hidden, inplace=not hidden.requires_grad)
        return torch.addmm(proj.bias, hidden, proj.weight.t(), alpha=1 / SLOPE).view(x.shape)


class Adapter(nn.Module):
    """A method's changes in one frozen block; this one, whose functions others override,
    changes nothing.

    ``project`` and ``leave`` see tokens in any arrangement (the text encoder packs texts of
    different lengths one after the other), so their result for a token may depend on that token
    alone.
    """

    def enter(self, tokens: Tensor) -> Tensor:
        """Tokens that enter the block, (N, L, D) → (N, L', D): of an image all, the class token
        first; of texts the prefix, the start token first."""
        return tokens

    def project(self, normed: Tensor, projected: Tensor, parts: str) -> Tensor:
        """Queries, keys and values (…, 3D) that the block makes of normed tokens (…, D); ``parts``
        says which of the three, "q" or "kv" alone."""
        return projected

    def leave(self, block: "Block", tokens: Tensor, output: Tensor) -> Tensor:
        """The block's output (…, D) for tokens (…, D)."""
        return output


class Block(nn.Module):
    """Pre-norm residual block, as it is or under an adapter."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.heads = heads
        self.attn = Attention(width)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, hidden, activation)
        self.ln_2 = LayerNorm(width)

    def project(self, x: Tensor, parts: str = "qkv", adapter: Adapter | None = None) -> Tensor:
        """(…, D) → queries, keys and values (…, 3, heads, D / heads); ``parts`` may be "q" or "kv"
        alone."""
        normed = self.ln_1(x)
        width = x.shape[-1]
        first = "qkv".index(parts)
        rows = slice(first * width, (first + len(parts)) * width)
        weight = self.attn.in_proj_weight[rows]
        bias = self.attn.in_proj_bias[rows]
        projected = F.linear(normed, weight, bias)  # (…, 3D)
        if adapter is not None:
            projected = adapter.project(normed, projected, parts)
        of_heads: Tensor = projected.unflatten(-1, (len(parts), self.heads, -1))  # (…, 3, H, D/H)
        return of_heads

    def finish(self, x: Tensor, attended: Tensor, adapter: Adapter | None = None) -> Tensor:
        """Add the residuals around attention and around the MLP, given the attention's output for the queries
        x (…, D), in the same shape."""
        attended = x + self.attn.out_proj(attended)
        output = attended + self.mlp(self.ln_2(attended))
        return output if adapter is None else adapter.leave(self, x, output)


class Transformer(nn.Module):
    """A stack of blocks; the towers run them one by one because deep prompts come in between.

    Args:
        width, layers, heads: D, L, H.
        hidden: width between the two maps of the MLPs.
        activation: of the MLPs, ``quick_gelu`` or ``gelu``.
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.width = width
        self.layers = layers
        blocks = (Block(width, heads, hidden, activation) for _ in range(layers))
        self.resblocks: Any = nn.ModuleList(blocks)  # by torch's hints they would be any modules


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

    takes_prompts = True
    computes_in_half = True
    kind = "ViT"

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
        """Take images of that many pixels from now on, by ``resize``."""
        resize(self.positional_embedding, image_size, self.conv1.kernel_size[0])
        self.image_size = image_size

    def forward(
        self,
        images: Tensor,
        prompts: Sequence[Tensor] = (),
        adapters: Iterable[Adapter | None] = (),
        readout: Readout | None = None,
    ) -> Tensor:
        """Features of B images under M templates.

        Args:
            images: (V, B, 3, H, W); V = M gives each template its own view, V = 1 shows all
                templates the same one.
            prompts: one for each layer, as far as any has: (M, n, D) tokens put after the patches,
                and in deeper layers in the place of the prompts before (Khattak et al., 2023, MaPLe,
                §3.2).
            adapters: one or None for each layer, as far as any has.
            readout: of a second feature, or None.

        Returns:
            (M, B, E), not normalised; without prompts (V, B, E). With a readout twice as many:
            after each feature the second one.
        """
        templates = len(prompts[0]) if prompts else len(images)
        if images.device.type == "cpu" and templates * images.shape[1] > CPU_BATCH:
            if not prompts:
                return self.in_pieces(images, adapters, readout)
            if templates > 1:
                return self.in_turn(images, prompts, adapters, readout)
        return self.encode(images, prompts, adapters, readout)

    def in_pieces(
        self, images: Tensor, adapters: Iterable[Adapter | None], readout: Readout | None
    ) -> Tensor:
        """Run ``forward`` on images without prompts, ``CPU_BATCH`` at a time."""
        encoded = []
        for piece in images.flatten(0, 1).split(CPU_BATCH):
            encoded.append(self.encode(piece[None], (), adapters, readout))
        # (1, V·B, E), or two with a readout
        joined = torch.cat(encoded, dim=1).unflatten(1, images.shape[:2])
        together: Tensor = joined.transpose(0, 1).flatten(0, 1)
        return together

    def in_turn(
        self,
        images: Tensor,
        prompts: Sequence[Tensor],
        adapters: Iterable[Adapter | None],
        readout: Readout | None,
    ) -> Tensor:
        """Run ``forward`` on one template after the other."""
        encoded = []
        for m in range(len(prompts[0])):
            shown = images[m % len(images)]
            own = [layer[m : m + 1] for layer in prompts]
            encoded.append(self.encode(shown[None], own, adapters, readout))
        return torch.cat(encoded)

    def encode(
        self,
        images: Tensor,
        prompts: Sequence[Tensor],
        adapters: Iterable[Adapter | None],
        readout: Readout | None,
    ) -> Tensor:
        """Run ``forward`` on all images and templates at once."""
        views, batch = images.shape[:2]
        templates = len(prompts[0]) if prompts else views
        x = self.embed(images.flatten(0, 1))  # (V·B, 1 + N, D)
        of_images = []  # (M·B, n, D) each
        for prompt in prompts:
            # not repeat_interleave, which ONNX can't do for any number of images
            of_images.append(prompt.to(x.dtype)[:, None].expand(-1, batch, -1, -1).flatten(0, 1))
        if prompts:
            x = x.unflatten(0, (views, batch)).expand(templates, -1, -1, -1).flatten(0, 1)
            x = torch.cat([x, of_images[0]], dim=1)  # (M·B, 1 + N + n, D)
        x = self.ln_pre(x)
        deeper = [None, *of_images[1:]]
        layers = [*zip_longest(self.transformer.resblocks, deeper, adapters)]
        last, _, last_adapter = layers[-1]
        for block, tokens, adapter in layers:
            if tokens is not None:
                x = torch.cat([x[:, : -tokens.shape[1]], tokens], dim=1)
            if adapter is not None:
                x = adapter.enter(x)
            if block is not last:
                attended = attend(*block.project(x, adapter=adapter).unbind(-3))
                x = block.finish(x, attended, adapter)
        read = self.read_last(x, last, last_adapter, readout)  # (M·B, R, D)
        features = [read[:, 0] @ self.proj]  # (M·B, E)
        if readout:
            features.append(readout.feature(read[:, 1:]).to(read.dtype))
        features = [feature.view(templates, batch, -1) for feature in features]
        return torch.stack(features, dim=1).flatten(0, 1)  # (M, B, E)

    def embed(self, images: Tensor) -> Tensor:
        """Return the class token and N patches of images (B, 3, H, W), with their positions, (B, 1 + N, D)."""
        dtype = self.conv1.weight.dtype
        patches = self.conv1(images.to(dtype))  # (B, D, √N, √N)
        patches = patches.flatten(2).transpose(1, 2)  # (B, N, D)
        first = self.class_embedding.to(dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1)  # (B, 1 + N, D)
        return x + self.positional_embedding.to(dtype)

    def read_last(
        self, x: Tensor, last: Block, adapter: Adapter | None, readout: Readout | None
    ) -> Tensor:
        """Return the last layer's output at the class token and where a readout is, R tokens of x (M·B, L, D)."""
        read = x[:, : 1 + readout.tokens] if readout else x[:, :1]  # (M·B, R, D)
        key, value = last.project(x, "kv", adapter).unbind(-3)  # (M·B, L, H, D/H)
        (query,) = last.project(read, "q", adapter).unbind(-3)  # (M·B, R, H, D/H)
        attended = attend(query, key, value)
        output: Tensor = self.ln_post(last.finish(read, attended, adapter))
        return output
