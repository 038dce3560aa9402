"""The transformer block that both towers of CLIP are made of, with CLIP's parameter names."""
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class LayerNorm(nn.LayerNorm):
    """Layer norm that computes in fp32 whatever the dtype of its input, as CLIP's does."""

    def forward(self, x):
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """CLIP's activation, x · sigmoid(1.702 x)."""

    def forward(self, x):
        if x.requires_grad:
            return x * torch.sigmoid(1.702 * x)
        return (1.702 * x).sigmoid_().mul_(x)  # nothing is kept for a gradient: in place, a third of the memory traffic


class Attention(nn.Module):
    """Multi-head attention in two steps, so that the caller decides who attends to whom.

    Named as ``nn.MultiheadAttention`` names its parameters, which is what CLIP's checkpoints hold.
    """

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, x):
        """(N, L, D) → queries, keys and values, each (N, heads, L, D / heads)."""
        n, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (N, L, 3D)
        qkv = qkv.view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (3, N, H, L, D/H)
        return qkv.unbind(0)

    def merge(self, attended):
        """(N, heads, L, D / heads) → (N, L, D)."""
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width)))
        self.ln_2 = LayerNorm(width)

    def project(self, x):
        return self.attn.project(self.ln_1(x))

    def finish(self, x, attended):
        """The residual around attention and around the MLP, given what the queries of ``x`` (N, L, D) attended to."""
        x = x + self.attn.merge(attended)
        return x + self.mlp(self.ln_2(x))

    def forward(self, x):
        """Full self-attention, (N, L, D) → (N, L, D)."""
        query, key, value = self.project(x)
        return self.finish(x, F.scaled_dot_product_attention(query, key, value))


class Transformer(nn.Module):
    """A stack of blocks; the towers run them one by one because deep prompts come in between."""

    def __init__(self, width, layers, heads):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))


def check_depth(deep_prompts, layers):
    """Deep prompts enter in front of layers 1 … len(deep_prompts); there have to be that many.

    Raises:
        ValueError: more deep prompts than layers behind the first.
    """
    if len(deep_prompts) > layers - 1:
        raise ValueError(f"{len(deep_prompts)} deep prompts for {layers} layers: at most {layers - 1}, the first layer takes "
                         "its prompts at the input")
