"""MaPLe: deep prompts in both encoders, those of the image encoder a linear map of the text encoder's, so that the two are learned
as one (Khattak et al., 2023, "MaPLe: Multi-modal Prompt Learning", §3.2). Cross-entropy; both encoders frozen.
"""

import copy
from collections.abc import Sequence

from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from .engine.checks import check_depth, check_image_prompts
from .method import Method
from .prompting.backbone import Backbone
from .prompting.prompts import FixedTokens, Prompts, gaussian, initial_context
from .settings import add_encoder_settings
from .trainer import MethodTrainer


def add_maple_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.MAPLE``, the official keys."""
    cfg.TRAINER.MAPLE = node = CfgNode()
    node.N_CTX = 2  # prompt tokens a layer, in either encoder
    node.CTX_INIT = "a photo of a"  # its first N_CTX tokens start the context, the rest stays in the text; Gaussian without
    add_encoder_settings(node)
    node.PROMPT_DEPTH = (
        9  # layers of each encoder that get prompts of their own, the first included
    )


class MultiModalPrompts(nn.Module):
    """The text encoder's prompts, (n, D) a layer, and the maps that make the image encoder's of them.

    Parameters carry the official names, and are drawn in the official order.

    Args:
        settings: ``cfg.TRAINER.MAPLE``.
        classnames: K names.
        backbone: whose widths D (text) and D_v (image) are used.
    """

    def __init__(self, settings: CfgNode, classnames: Sequence[str], backbone: Backbone) -> None:
        super().__init__()
        text, n_ctx, deep = backbone.text, settings.N_CTX, settings.PROMPT_DEPTH - 1
        context, words = initial_context(text, n_ctx, settings.CTX_INIT)
        self.ctx = nn.Parameter(context)  # (n, D)
        self.proj = nn.Linear(text.width, backbone.vision_transformer.width)
        self.compound_prompts_text = nn.ParameterList(
            gaussian(n_ctx, text.width) for _ in range(deep)
        )
        projection = nn.Linear(text.width, backbone.vision_transformer.width)
        self.compound_prompt_projections = nn.ModuleList(
            copy.deepcopy(projection) for _ in range(deep)
        )  # all start alike
        self.tokens = FixedTokens(text, classnames, n_ctx, [words])

    def forward(self) -> Prompts:
        textual = [
            layer[None] for layer in (self.ctx, *self.compound_prompts_text)
        ]  # (1, n, D) each
        projections = [self.proj, *self.compound_prompt_projections]
        visual = [
            project(layer) for project, layer in zip(projections, textual)
        ]  # (1, n, D_v) each
        return self.tokens(
            textual[0], deep_text=textual[1:], visual=visual[0], deep_visual=visual[1:]
        )


class MaPLeMethod(Method):
    """Multi-modal prompt learning."""

    small = {"PROMPT_DEPTH": 2}
    text_only = None

    def build(self) -> MultiModalPrompts:
        backbone, depth = self.backbone, self.settings.PROMPT_DEPTH
        check_image_prompts(self.path, backbone, "choose a ViT, or CoOp, which prompts texts only")
        layers = min(backbone.text.layers, backbone.vision_transformer.layers)
        check_depth(f"{self.path}.PROMPT_DEPTH", depth, layers)
        return MultiModalPrompts(self.settings, self.classnames, backbone)


@TRAINER_REGISTRY.register()
class MaPLe(MethodTrainer):
    method = MaPLeMethod
