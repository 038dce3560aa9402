"""CLIP-LoRA: the queries, keys and values of every layer of both encoders learn a change of low
rank (Zanella and Ben Ayed, 2024, "Low-Rank Few-Shot Adaptation of Vision-Language Models", §3; Hu
et al., 2022, LoRA). The texts are one hand-crafted prompt, the same for all data sets.
Cross-entropy; CLIP's own weights are frozen.
"""

import copy
import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import Setting, at_least, node_of
from .method import Method
from .prompting.backbone import Backbone
from .prompting.precision import OfficialPrecision
from .prompting.prompts import FixedTokens, Prompts
from .prompting.transformer import Adapter
from .registration import registered
from .settings import ENCODER
from .texts.templates import DEFAULT_TEMPLATE

PROJECTIONS = "qkv"


SETTINGS = {
    "ENCODER": Setting("both", "which encoder's layers change", ["both", "text", "vision"]),
    "RANK": Setting(2, "r of each change", at_least(1, 65536)),
    "ALPHA": Setting(1.0, "a change is multiplied by ALPHA / √r"),
    "DROPOUT": Setting(0.25, "of what a change is computed from, in training", at_least(0, 0.999)),
    **ENCODER,
}


def add_cliplora_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CLIPLORA``; the official arguments are ``--encoder``, ``--r``,
    ``--alpha`` and ``--dropout_rate``."""
    cfg.TRAINER.CLIPLORA = node_of(SETTINGS)


class LowRank(Adapter):
    """Adds α / √r · B A x to a layer's queries, keys and values; A as ``nn.Linear`` starts, B zero.

    Args:
        width: D; rank, alpha, dropout: as the settings of these names.
    """

    def __init__(self, width: int, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.scale = alpha / math.sqrt(rank)
        self.dropout = dropout
        down = [nn.Linear(width, rank, bias=False).weight.detach() for _ in PROJECTIONS]
        self.down = nn.Parameter(torch.stack(down))  # A, (3, r, D)
        self.up = nn.Parameter(torch.zeros(3, width, rank))  # B, (3, D, r)

    def project(self, normed: Tensor, projected: Tensor, parts: str) -> Tensor:
        changes = []
        for part in map(PROJECTIONS.index, parts):
            # (…, D), drawn again for each part
            seen = F.dropout(normed.float(), self.dropout, self.training)
            changes.append(self.scale * F.linear(F.linear(seen, self.down[part]), self.up[part]))
        return projected + torch.cat(changes, dim=-1).to(projected.dtype)  # (…, parts · D)


class LowRankLayers(nn.Module):
    """A learner that gives the hand-crafted prompt with a ``LowRank`` for every layer."""

    text: Any  # one for each layer; by torch's hints they would be any modules
    image: Any

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        image = method.backbone.image
        self.tokens = FixedTokens.of_prompt(text, DEFAULT_TEMPLATE, method.classnames)
        changes = node.RANK, node.ALPHA, node.DROPOUT
        self.text = nn.ModuleList()
        if node.ENCODER != "vision":
            self.text.extend(LowRank(text.width, *changes) for _ in range(text.layers))
        self.image = nn.ModuleList()
        if node.ENCODER != "text":
            self.image.extend(LowRank(image.width, *changes) for _ in range(image.layers))

    def forward(self) -> Prompts:
        return replace(self.tokens(), text_adapters=self.text, image_adapters=self.image)


class CLIPLoRAMethod(Method):
    """Low-rank adaptation of both encoders."""

    declared = SETTINGS
    official_precision = OfficialPrecision(amp_is_fp16=True)
    text_only = {"ENCODER": "text"}

    learner: LowRankLayers

    def build(self) -> LowRankLayers:
        return LowRankLayers(self)

    @torch.no_grad()
    def merged(self) -> Backbone:
        clip = copy.deepcopy(self.backbone)
        for tower, changes in ((clip.text, self.learner.text), (clip.image, self.learner.image)):
            for change, block in zip(changes, tower.transformer.resblocks if changes else ()):
                product = change.scale * (change.up @ change.down)  # (3, D, D)
                block.attn.in_proj_weight += product.flatten(0, 1)
        return clip


CLIPLoRA = registered(CLIPLoRAMethod)
