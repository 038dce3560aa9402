"""The transformer block that both towers of CLIP are made of, with CLIP's parameter names."""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    visible: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """Attention of N sequences, (N, L, H, D / H) each, L queries and another number of keys → (N,
    L, D).

    visible: (L, number of keys) which keys a query sees; ``causal``: those up to itself; all
        without either.
    """
    dtype = query.dtype
    # on a CPU the backward pass in bfloat16 takes ten times as long as in fp32
    is_slow = query.device.type == "cpu" and dtype == torch.bfloat16
    with torch.autocast("cpu", enabled=False) if is_slow else contextlib.nullcontext():
        query, key, value = (
            (part.float() if is_slow else part).transpose(1, 2) for part in (query, key, value)
        )  # (N, H, L, D/H) each
        attended = F.scaled_dot_product_attention(query, key, value, visible, is_causal=causal)
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

    Of QuickGELU both factors go into the matrix products, which scale at no cost. What is left is
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
    """What a method changes in one frozen block; this one, of which others are made by overriding,
    changes nothing.

    ``project`` and ``leave`` see tokens in any arrangement (the text encoder packs texts of
    different lengths one after the other), so what they make of a token may depend on that token
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

    def project(
        self, x: Tensor, parts: str = "qkv", adapter: Adapter | None = None
    ) -> tuple[Tensor, ...]:
        """(…, D) → queries, keys and values, each (…, heads, D / heads); ``parts`` may be "q" or "kv"
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
        split: tuple[Tensor, ...] = projected.unflatten(-1, (len(parts), self.heads, -1)).unbind(
            -3
        )  # (…, H, D/H) each
        return split

    def finish(self, x: Tensor, attended: Tensor, adapter: Adapter | None = None) -> Tensor:
        """The residual around attention and around the MLP, given what the queries of x (…, D)
        attended to, in the same shape."""
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
