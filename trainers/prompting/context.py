"""CoOp's prompt learner, which the methods that keep its prompts and change its loss share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .prompts import Prompts, context_of_phrase, embed, gaussian, start_embedding
from .text import TextEncoder
from .tokens import class_tokens

POSITIONS = ("end", "middle", "front")


class ContextLearner(nn.Module):
    """Learnable context, (n, D) or class-specific (K, n, D), and frozen tokens of K class names.

    Args:
        context: its first value, in either shape.
        classnames: K names.
        text_encoder: whose embeddings (width D) are used.
        position: of the class name: ``end``, ``middle`` or ``front``.
    """

    start: Tensor
    names: Tensor
    order: Tensor

    def __init__(
        self,
        context: Tensor,
        classnames: Sequence[str],
        text_encoder: TextEncoder,
        position: str = "end",
    ) -> None:
        super().__init__()
        n_ctx = context.shape[-2]
        self.class_parameters = (
            ("ctx",) if context.dim() == 3 else ()
        )  # see ``PromptTrainer.build_prompt_learner``
        self.ctx = nn.Parameter(context)
        tokens = class_tokens(classnames, text_encoder.context_length - 1 - n_ctx)
        self.register_buffer("start", start_embedding(text_encoder), persistent=False)  # (1, D)
        self.register_buffer(
            "names", embed(text_encoder, tokens.ids), persistent=False
        )  # (K, S, D)
        self.end = tokens.end[None]  # (1, K); no buffer: it stays on the CPU
        order = [
            token_order(position, n_ctx, length, tokens.ids.shape[1])
            for length in tokens.name_lengths
        ]
        self.register_buffer("order", torch.tensor(order), persistent=False)  # (K, n + S)
        self.shares_context = position == "end" and context.dim() == 2

    @classmethod
    def from_settings(
        cls, settings: CfgNode, classnames: Sequence[str], text_encoder: TextEncoder
    ) -> "ContextLearner":
        """With CoOp's keys N_CTX, CSC, CTX_INIT (a phrase, which brings its own length) and
        CLASS_TOKEN_POSITION."""
        context = context_of_phrase(text_encoder, settings.N_CTX, settings.CTX_INIT)
        if settings.CSC:
            has_phrase = settings.CTX_INIT.strip()
            context = (
                context.repeat(len(classnames), 1, 1)
                if has_phrase
                else gaussian(len(classnames), *context.shape)
            )
        return cls(context, classnames, text_encoder, settings.CLASS_TOKEN_POSITION)

    def forward(self) -> Prompts:
        if self.shares_context:
            prefix = torch.cat([self.start, self.ctx])[None]  # (1, 1 + n, D)
            return Prompts(prefix, self.names[None], self.end)
        context = self.ctx.expand(len(self.names), -1, -1)  # (K, n, D)
        tokens = torch.cat([context, self.names], dim=1)  # (K, n + S, D)
        tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
        return Prompts(self.start[None], tokens[None], self.end + context.shape[1])


def token_order(position: str, n_ctx: int, name_length: int, own: int) -> list[int]:
    """Where the n context tokens (0 … n−1) go among a class's own tokens (n …): a list of n + S
    indices."""
    context, tokens = list(range(n_ctx)), list(range(n_ctx, n_ctx + own))
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    return context[:before] + tokens[:name_length] + context[before:] + tokens[name_length:]
