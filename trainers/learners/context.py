"""CoOp's prompt learner, which the methods that keep its prompts and change its loss share."""

import torch
from torch import Tensor, nn

from ..class_part import ClassPart
from ..method import Method
from ..prompting.prompts import FixedTokens, Prompts, context_of_phrase, gaussian
from ..prompting.tokens import phrase_tokens

POSITIONS: list[object] = ["end", "middle", "front"]  # of the class name among the context's tokens


class ContextLearner(nn.Module):
    """Learnable context, (n, D) or class-specific (K, n, D), and frozen tokens of K class names.

    Args:
        method: that it serves, with CoOp's key CLASS_TOKEN_POSITION.
        context: its first value, in either shape.
        words: (r, D), tokens between the context and each class name, which stay as they are.
    """

    order: Tensor

    def __init__(self, method: Method, context: Tensor, words: Tensor | None = None) -> None:
        super().__init__()
        text = method.backbone.text
        position = method.settings.CLASS_TOKEN_POSITION
        n_ctx = context.shape[-2]
        is_shared = context.dim() == 2
        self.class_part = ClassPart() if is_shared else ClassPart(("ctx",), {"ctx": 0})
        self.ctx = nn.Parameter(context)
        self.tokens = FixedTokens(text, method.classnames, n_ctx, () if words is None else [words])
        self.shares_context = position == "end" and is_shared
        # where the context's tokens go among a class's own
        context, name_tokens = torch.arange(n_ctx + self.own().shape[1]).tensor_split([n_ctx])
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        order = []
        for name in method.classnames:
            # a full stop may merge with a name that ends in a sign, so names are measured alone
            length = len(phrase_tokens(name, text.context_length))
            order.append(
                torch.cat(
                    [context[:before], name_tokens[:length], context[before:], name_tokens[length:]]
                )
            )
        self.register_buffer("order", torch.stack(order), persistent=False)  # (K, n + r + S)

    def own(self) -> Tensor:
        """Return each class's embeddings after the context, (K, r + S, D): the words and its name."""
        names = self.tokens.suffix[0]  # (K, S, D)
        return torch.cat([self.tokens.words.expand(len(names), -1, -1), names], dim=1)

    @classmethod
    def from_settings(cls, method: Method) -> "ContextLearner":
        """Make the learner by CoOp's keys N_CTX, CSC and CTX_INIT (a phrase, which brings its own length)."""
        node = method.settings
        classes = len(method.classnames)
        context = context_of_phrase(method.backbone.text, node.N_CTX, node.CTX_INIT)
        if node.CSC and node.CTX_INIT.strip():
            context = context.repeat(classes, 1, 1)
        elif node.CSC:
            context = gaussian(classes, *context.shape)
        return cls(method, context)

    def forward(self) -> Prompts:
        if self.shares_context:
            return self.tokens(self.ctx[None])
        names = self.own()
        context = self.ctx.expand(len(names), -1, -1)  # (K, n, D)
        tokens = torch.cat([context, names], dim=1)  # (K, n + r + S, D)
        tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
        before = tokens.shape[1] - self.tokens.suffix.shape[2]  # n + r
        return Prompts(self.tokens.start, tokens[None], self.tokens.end + before)
