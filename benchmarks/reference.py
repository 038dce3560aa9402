"""The field's usual way, which the benchmarks compare with: readable, exact and unoptimised.

Every text has all 77 positions, templates are encoded one at a time, blocks are those of the ``clip`` package, over (length, batch,
width) as in the public repositories of CLIP, CoOp (Zhou et al., 2022) and MaPLe (Khattak et al., 2023), whose deep prompts take the
place of the old ones by cutting and joining; all layers of the image encoder run on all tokens; opinions are fused two at a time with
the K × K table of TMC (Han et al., 2021).

Modules have the parameter names of ours and take their weights, so that outputs can be compared; their calls are those
of ours, so that a trainer works with either (``usual``).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.evidence import Opinion
from trainers.prompting import clip
from trainers.prompting import image as our_image
from trainers.prompting import text as our_text
from trainers.prompting.backbone import HEAD_WIDTH, Backbone
from trainers.prompting.transformer import LayerNorm


class TextEncoder(nn.Module):
    """Text tower over all positions.

    Args:
        ours: the ``TextEncoder`` whose sizes it has.
    """

    def __init__(self, ours: our_text.TextEncoder) -> None:
        super().__init__()
        length = ours.context_length
        mask = torch.full((length, length), float("-inf")).triu(
            1
        )  # (77, 77), added to the attention's logits
        self.transformer = clip.model.Transformer(
            ours.width, ours.layers, ours.width // HEAD_WIDTH, mask
        )
        self.token_embedding = nn.Embedding(*ours.token_embedding.weight.shape)
        self.positional_embedding = nn.Parameter(
            torch.empty_like(ours.positional_embedding)
        )  # (77, D)
        self.ln_final = LayerNorm(ours.width)
        self.text_projection = nn.Parameter(torch.empty_like(ours.text_projection))  # (D, E)

    def forward(
        self,
        prefix: Tensor,
        suffix: Tensor,
        end: Tensor,
        deep_prompts: Sequence[Tensor] = (),
        adapters: Sequence[None] = (),
    ) -> Tensor:
        """As ours without adapters: (M, P, D), (M or 1, K, S, D), (M or 1, K), [(M, n, D)] → (M, K, E), not normalised."""
        features = []
        for template, own_prefix in enumerate(prefix):
            which = template if len(suffix) > 1 else 0
            deep = [layer[template] for layer in deep_prompts]  # (n, D) each
            features.append(
                self.encode_template(own_prefix, suffix[which], end[which].to(prefix.device), deep)
            )
        return torch.stack(features)

    def encode_template(
        self, prefix: Tensor, suffix: Tensor, end: Tensor, deep_prompts: Sequence[Tensor]
    ) -> Tensor:
        """(P, D), (K, S, D), (K,), [(n, D)] → (K, E)."""
        classes, own, width = suffix.shape
        empty = suffix.new_zeros(classes, len(self.positional_embedding) - len(prefix) - own, width)
        texts = torch.cat([prefix.expand(classes, -1, -1), suffix, empty], dim=1)  # (K, 77, D)
        x = (texts.to(self.positional_embedding.dtype) + self.positional_embedding).transpose(
            0, 1
        )  # (77, K, D)
        for layer, block in enumerate(self.transformer.resblocks):
            if 0 < layer <= len(deep_prompts):
                prompt = (
                    deep_prompts[layer - 1].to(x.dtype)[:, None].expand(-1, classes, -1)
                )  # (n, K, D)
                x = torch.cat([x[:1], prompt, x[1 + len(prompt) :]])
            x = block(x)
        x = self.ln_final(x.transpose(0, 1))  # (K, 77, D)
        return (
            x[torch.arange(classes, device=x.device), len(prefix) + end] @ self.text_projection
        )  # (K, E)


class ImageEncoder(nn.Module):
    """Vision transformer, all layers on all tokens.

    Args:
        ours: the ``ImageEncoder`` whose sizes it has.
    """

    def __init__(self, ours: our_image.ImageEncoder) -> None:
        super().__init__()
        self.image_size = ours.image_size
        self.conv1 = nn.Conv2d(
            3, ours.width, ours.conv1.kernel_size[0], ours.conv1.stride[0], bias=False
        )
        self.class_embedding = nn.Parameter(torch.empty_like(ours.class_embedding))  # (D)
        self.positional_embedding = nn.Parameter(
            torch.empty_like(ours.positional_embedding)
        )  # (1 + N, D)
        self.ln_pre = LayerNorm(ours.width)
        self.transformer = clip.model.Transformer(ours.width, ours.layers, ours.width // HEAD_WIDTH)
        self.ln_post = LayerNorm(ours.width)
        self.proj = nn.Parameter(torch.empty_like(ours.proj))  # (D, E)

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        deep_prompts: Sequence[Tensor] = (),
        adapters: Sequence[None] = (),
        readout: None = None,
    ) -> Tensor:
        """As ours without adapters: (V, B, 3, H, W), (M, n, D), [(M, n, D)] → (M, B, E), not normalised; (V, B, E) without prompts."""
        if prompts is None:
            return torch.stack([self.encode_view(view, None, ()) for view in images])
        features = []
        for template, prompt in enumerate(prompts):
            view = images[template if len(images) > 1 else 0]
            features.append(
                self.encode_view(view, prompt, [layer[template] for layer in deep_prompts])
            )
        return torch.stack(features)

    def encode_view(
        self, images: Tensor, prompts: Tensor | None, deep_prompts: Sequence[Tensor]
    ) -> Tensor:
        """(B, 3, H, W), (n, D) or None, [(n, D)] → (B, E)."""
        x = self.conv1(images.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, N, D)
        x = (
            torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
            + self.positional_embedding
        )  # (B, 1 + N, D)
        if prompts is not None:
            x = torch.cat(
                [x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1
            )  # (B, 1 + N + n, D)
        x = self.ln_pre(x).transpose(0, 1)  # (L, B, D)
        for layer, block in enumerate(self.transformer.resblocks):
            if 0 < layer <= len(deep_prompts):
                prompt = (
                    deep_prompts[layer - 1].to(x.dtype)[:, None].expand(-1, x.shape[1], -1)
                )  # (n, B, D)
                x = torch.cat([x[: -len(prompt)], prompt])
            x = block(x)
        return self.ln_post(x[0]) @ self.proj  # (B, E)


class ResNetImageEncoder(nn.Module):
    """CLIP's ResNet, one view at a time.

    Args:
        ours: the ``ResNetImageEncoder`` whose network it runs.
    """

    def __init__(self, ours: our_image.ResNetImageEncoder) -> None:
        super().__init__()
        self.network: Any = copy.deepcopy(ours.network)
        self.image_size = ours.image_size

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        deep_prompts: Sequence[Tensor] = (),
        adapters: Sequence[None] = (),
        readout: None = None,
    ) -> Tensor:
        """(V, B, 3, H, W) → (V, B, E); it takes no prompts."""
        return torch.stack(
            [self.network(view.to(self.network.conv1.weight.dtype)) for view in images]
        )


def usual(backbone: Backbone) -> Backbone:
    """The ``Backbone`` with the usual encoders in it; weights are shared, not copied."""
    ours = backbone.image
    image: Any = (
        ImageEncoder(ours) if isinstance(ours, our_image.ImageEncoder) else ResNetImageEncoder(ours)
    )
    text: Any = TextEncoder(backbone.text)  # Any: they have the calls of ours, but not their types
    towers = Backbone(text, image, backbone.log_scale)
    towers.load_state_dict(backbone.state_dict(), assign=True)
    if isinstance(image, ResNetImageEncoder):
        image.network.to(
            memory_format=torch.contiguous_format
        )  # ours keeps its weights in another layout
    return towers.requires_grad_(False)


def dempster(log_evidences: Tensor, reliability: Tensor | float = 1.0) -> Opinion:
    """Fuses M opinions by Dempster's rule two at a time, (M, …, K) log-evidence → ``Opinion`` of (…, K), discounted by their reliabilities."""
    fused, classes = log_evidences[0].exp(), log_evidences.shape[-1]  # (…, K)
    for log_evidence in log_evidences[1:]:
        fused = combine(fused, log_evidence.exp())
    return Opinion((classes * torch.expm1(reliability * torch.log1p(fused / classes))).log())


def combine(first: Tensor, second: Tensor) -> Tensor:
    """Evidence (…, K) of two opinions fused, as in Han et al. (2021, def. 4), with all K × K products of their beliefs."""
    classes = first.shape[-1]
    strengths = [
        (evidence + 1).sum(dim=-1, keepdim=True) for evidence in (first, second)
    ]  # (…, 1), S
    belief_a, belief_b = first / strengths[0], second / strengths[1]  # (…, K)
    vacuity_a, vacuity_b = classes / strengths[0], classes / strengths[1]  # (…, 1)
    products = belief_a[..., :, None] @ belief_b[..., None, :]  # (…, K, K)
    conflict = products.sum(dim=(-2, -1)) - products.diagonal(dim1=-2, dim2=-1).sum(
        dim=-1
    )  # (…), C
    agreed = 1 - conflict[..., None]  # (…, 1)
    belief = (belief_a * belief_b + belief_a * vacuity_b + belief_b * vacuity_a) / agreed  # (…, K)
    vacuity = vacuity_a * vacuity_b / agreed  # (…, 1)
    return belief * classes / vacuity  # e = b S with S = K / u
