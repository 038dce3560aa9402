"""CoOp's prompt learner, which the methods that keep its prompts and change its loss share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .prompts import FixedTokens, Prompts, context_of_phrase, gaussian
from .text import TextEncoder
from .tokens import phrase_tokens


class ContextLearner(nn.Module):
    """Learnable context, (n, D) or class-specific (K, n, D), and frozen tokens of K class names.

    Args:
        context: its first value, in either shape.
        classnames: K names.
        text_encoder: whose embeddings (width D) are used.
        position: of the class name: ``end``, ``middle`` or ``front``.
    """

    order: Tensor

    def __init__(
        self,
        context: Tensor,
        classnames: Sequence[str],
        text_encoder: TextEncoder,
        position: str,
    ) -> None:
        super().__init__()
        n_ctx, is_shared = context.shape[-2], context.dim() == 2
        self.class_parameters = () if is_shared else ("ctx",)  # see ``Method.build``
        self.ctx = nn.Parameter(context)
        self.tokens = FixedTokens(text_encoder, classnames, n_ctx)
        self.shares_context = position == "end" and is_shared
        # where the context's tokens go among a class's own
        context, own = torch.arange(n_ctx + self.tokens.suffix.shape[2]).tensor_split([n_ctx])
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        order = []
        for name in classnames:
            # a full stop may merge with a name that ends in a sign, so names are measured alone
            length = len(phrase_tokens(name, text_encoder.context_length))
            parts = context[:before], own[:length], context[before:], own[length:]
            order.append(torch.cat(parts))
        self.register_buffer("order", torch.stack(order), persistent=False)  # (K, n + S)

    @classmethod
    def from_settings(
        cls, settings: CfgNode, classnames: Sequence[str], text_encoder: TextEncoder
    ) -> "ContextLearner":
        """With CoOp's keys N_CTX, CSC, CTX_INIT (a phrase, which brings its own length) and
        CLASS_TOKEN_POSITION."""
        context = context_of_phrase(text_encoder, settings.N_CTX, settings.CTX_INIT)
        if settings.CSC:
            context = (
                context.repeat(len(classnames), 1, 1)
                if settings.CTX_INIT.strip()
                else gaussian(len(classnames), *context.shape)
            )
        return cls(context, classnames, text_encoder, settings.CLASS_TOKEN_POSITION)

    def forward(self) -> Prompts:
        if self.shares_context:
            return self.tokens(self.ctx[None])
        names = self.tokens.suffix[0]  # (K, S, D)
        context = self.ctx.expand(len(names), -1, -1)  # (K, n, D)
        tokens = torch.cat([context, names], dim=1)  # (K, n + S, D)
        tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
        return Prompts(self.tokens.start, tokens[None], self.tokens.end + context.shape[1])
