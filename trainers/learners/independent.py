"""Deep prompts that the two encoders learn independently of each other (Khattak et al., 2023,
MaPLe, §4.2: IVLP and VPT)."""

from dataclasses import replace

from torch import nn

from ..common.errors import UserError
from ..method import Method
from ..prompting.prompts import FixedTokens, Prompts, gaussian, initial_context


class VisualPrompts(nn.Module):
    """Prompts of the image encoder alone.

    Args:
        width: of the image encoder (D_v).
        n_ctx: prompt tokens per layer, at least 1.
        depth: layers that get their own, the first included, at least 1.
    """

    def __init__(self, width: int, n_ctx: int, depth: int) -> None:
        super().__init__()
        self.ctx = nn.Parameter(gaussian(n_ctx, width))
        self.deep_ctx = nn.ParameterList(gaussian(n_ctx, width) for _ in range(depth - 1))

    def forward(self) -> Prompts:
        return Prompts(
            visual=[layer[None] for layer in (self.ctx, *self.deep_ctx)]
        )  # (1, n, D_v) each


class IndependentPrompts(nn.Module):
    """Prompts of the text encoder and, unless PROMPT_DEPTH_VISION is 0, of the image encoder.

    It has the keys N_CTX_TEXT, N_CTX_VISION, CTX_INIT, PROMPT_DEPTH_TEXT (at least 1) and
    PROMPT_DEPTH_VISION of the method that it serves.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        image = method.backbone.image
        n_ctx = node.N_CTX_TEXT
        deep = node.PROMPT_DEPTH_TEXT - 1
        depth = node.PROMPT_DEPTH_VISION
        if (node.N_CTX_VISION == 0) != (depth == 0):
            raise UserError(
                f"{method.path} has N_CTX_VISION {node.N_CTX_VISION} and PROMPT_DEPTH_VISION {depth}: both "
                "are 0 to prompt the text encoder only, or neither"
            )
        method.check_depth("PROMPT_DEPTH_TEXT", node.PROMPT_DEPTH_TEXT, text)
        if depth > 0:
            method.check_depth("PROMPT_DEPTH_VISION", depth, image)
        context, words = initial_context(text, n_ctx, node.CTX_INIT)
        self.ctx = nn.Parameter(context)  # (n, D)
        self.deep_ctx = nn.ParameterList(gaussian(n_ctx, text.width) for _ in range(deep))
        self.visual = VisualPrompts(image.width, node.N_CTX_VISION, depth) if depth else None
        self.tokens = FixedTokens(text, method.classnames, n_ctx, [words])

    def forward(self) -> Prompts:
        image = Prompts() if self.visual is None else self.visual()
        return replace(
            self.tokens(self.ctx[None]),
            deep_text=[layer[None] for layer in self.deep_ctx],  # (1, n, D) each
            visual=image.visual,
        )
