"""A small CLIP with the parameter names of OpenAI's, made for fast training on a CPU.

Only a share of the image patches is kept while training (`chosen`), the token table holds just the tokens that the
captions use, and the text is cut to the longest caption. `export` puts it all into OpenAI's own form.
"""

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, CONTEXT = 49408, 77  # of CLIP's tokenizer
HEAD_WIDTH = 64  # clip.load derives the number of heads as width // 64


class Block(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(
            width, width // HEAD_WIDTH
        )  # holds the parameters, forward is below
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        fc, proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.ModuleDict({"c_fc": fc, "c_proj": proj})
        std = width**-0.5
        nn.init.normal_(self.attn.in_proj_weight, std=std)
        nn.init.normal_(self.attn.out_proj.weight, std=std * (2 * layers) ** -0.5)
        nn.init.normal_(fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(proj.weight, std=std * (2 * layers) ** -0.5)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        b, n, w = x.shape
        qkv = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = qkv.view(b, n, 3, w // HEAD_WIDTH, HEAD_WIDTH).permute(
            2, 0, 3, 1, 4
        )  # (b, heads, n, 64) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.attn.out_proj(mixed.transpose(1, 2).reshape(b, n, w))
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


class Tower(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, layers) for _ in range(layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal)
        return x


class Visual(nn.Module):
    def __init__(self, size: int, patch: int, width: int, layers: int, embed: int) -> None:
        super().__init__()
        std = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(std * torch.randn(width))
        self.positional_embedding = nn.Parameter(std * torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Tower(width, layers)
        self.proj = nn.Parameter(std * torch.randn(width, embed))

    def forward(self, images: Tensor, chosen: Tensor | None = None) -> Tensor:
        """images (b, 3, size, size), normalised; chosen (b, keep): the patches to look at, all by default. → (b, embed)"""
        patch, width = self.conv1.kernel_size[0], self.conv1.out_channels
        b, _, height, _ = images.shape
        side = height // patch
        x = (
            images.view(b, 3, side, patch, side, patch)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(b, side * side, -1)
        )
        places = self.positional_embedding[1:].expand(b, -1, -1)
        if chosen is not None:
            x = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
            places = places.gather(1, chosen[..., None].expand(-1, -1, width))
        x = F.linear(x, self.conv1.weight.view(width, -1)) + places
        first = (self.class_embedding + self.positional_embedding[0]).to(x.dtype).expand(b, 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([first, x], 1)))
        return self.ln_post(x[:, 0]) @ self.proj


class TinyCLIP(nn.Module):
    tokens: Tensor

    def __init__(
        self,
        tokens: Sequence[int],
        size: int = 64,
        patch: int = 8,
        vision_width: int = 128,
        vision_layers: int = 4,
        text_width: int = 128,
        text_layers: int = 3,
        embed: int = 128,
        look_dimensions: int = 256,
    ) -> None:
        """tokens: sorted list of the token ids of CLIP's tokenizer that captions use (end-of-text is the highest).

        look_dimensions: of the image teacher's features, which `look` predicts from the image's; not exported.
        """
        super().__init__()
        self.visual = Visual(size, patch, vision_width, vision_layers, embed)
        self.transformer = Tower(text_width, text_layers)
        self.token_embedding = nn.Embedding(len(tokens), text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(CONTEXT, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(text_width**-0.5 * torch.randn(text_width, embed))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.look = nn.Linear(embed, look_dimensions)
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)

    def encode_text(self, compact: Tensor) -> Tensor:
        """compact (n, length): positions in `tokens`, zero-padded; the end-of-text token is the largest. → (n, embed)

        The shorter half and the longer half of the texts are run apart, each cut after its longest text.
        """
        end = compact.argmax(1)
        order, found = end.argsort(), []
        for rows in order.chunk(2):
            x = compact[rows, : end[rows].max() + 1]
            x = self.token_embedding(x) + self.positional_embedding[: x.shape[1]]
            x = self.ln_final(self.transformer(x, causal=True))
            found.append(x[torch.arange(len(rows)), end[rows]] @ self.text_projection)
        return torch.cat(found)[order.argsort()]

    def load_exported(self, state: Mapping[str, Tensor]) -> None:
        """Takes the weights that `export` gave; what it left out keeps its random start."""
        state = {**self.state_dict(), **{k: v.float() for k, v in state.items()}}
        table = state["token_embedding.weight"][self.tokens]
        used = table.abs().sum(1, keepdim=True) > 0
        state["token_embedding.weight"] = torch.where(
            used, table, self.token_embedding.weight.detach()
        )
        self.load_state_dict(state)

    def export(self) -> dict[str, Tensor]:
        """State dict in OpenAI's form, fp16: the full token table, rows of unused tokens zero."""
        state = {
            k: v.detach().half().clone()
            for k, v in self.state_dict().items()
            if not k.startswith("look.")
        }
        table = torch.zeros(VOCABULARY, self.token_embedding.embedding_dim, dtype=torch.half)
        table[self.tokens] = state["token_embedding.weight"]
        state["token_embedding.weight"] = table
        return state


def save_deflated(state: Mapping[str, Tensor], path: str | Path) -> None:
    """torch.save, its zip deflated (zero rows cost nothing then); torch.load and clip.load read it all the same."""
    path = Path(path)
    plain = io.BytesIO()
    torch.save(state, plain)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
    ):
        for entry in source.infolist():
            target.writestr(
                zipfile.ZipInfo(entry.filename), source.read(entry), zipfile.ZIP_DEFLATED
            )  # fixed dates
    os.replace(temporary, path)
