"""MaPLe: deep prompts in both encoders, the image encoder's a linear map of the text
encoder's, so that the two are learned as one (Khattak et al., 2023, "MaPLe: Multi-modal Prompt
Learning", §3.2). Cross-entropy; both encoders frozen.
"""

import copy
from dataclasses import replace

from torch import nn
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, node_of
from .method import Method
from .prompting.prompts import FixedTokens, Prompts, gaussian, initial_context
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_CTX": Setting(2, "prompt tokens per layer, in either encoder", COUNT),
    "CTX_INIT": Setting(
        "a photo of a",
        "its first N_CTX tokens start the context, the rest stays in the text; Gaussian without",
    ),
    **ENCODER,
    "PROMPT_DEPTH": Setting(
        9, "layers of each encoder that get prompts of their own, the first included", COUNT
    ),
}


def add_maple_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.MAPLE``, the official keys."""
    cfg.TRAINER.MAPLE = node_of(SETTINGS)


class MultiModalPrompts(nn.Module):
    """The text encoder's prompts, (n, D) per layer, and the maps that make the image encoder's of them.

    Parameters carry the official names, and are drawn in the official order.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        image = method.backbone.image
        n_ctx = node.N_CTX
        deep = node.PROMPT_DEPTH - 1
        context, words = initial_context(text, n_ctx, node.CTX_INIT)
        self.ctx = nn.Parameter(context)  # (n, D)
        self.proj = nn.Linear(text.width, image.width)
        self.compound_prompts_text = nn.ParameterList(
            gaussian(n_ctx, text.width) for _ in range(deep)
        )
        projection = nn.Linear(text.width, image.width)
        # all start alike
        self.compound_prompt_projections = nn.ModuleList(
            copy.deepcopy(projection) for _ in range(deep)
        )
        self.tokens = FixedTokens(text, method.classnames, n_ctx, [words])

    def forward(self) -> Prompts:
        context, *deep = (layer[None] for layer in (self.ctx, *self.compound_prompts_text))
        maps = (self.proj, *self.compound_prompt_projections)
        return replace(
            self.tokens(context),  # (1, n, D), as each of the deep ones
            deep_text=deep,
            visual=[
                project(layer) for project, layer in zip(maps, (context, *deep))
            ],  # (1, n, D_v)
        )


class MaPLeMethod(Method):
    """Multi-modal prompt learning."""

    declared = SETTINGS
    text_only = None

    def build(self) -> MultiModalPrompts:
        depth = self.settings.PROMPT_DEPTH
        backbone = self.backbone
        self.check_depth("PROMPT_DEPTH", depth, backbone.text, backbone.image)
        return MultiModalPrompts(self)


MaPLe = registered(MaPLeMethod)
