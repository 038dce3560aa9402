"""CoOp: the words around the class name become learnable vectors (Zhou et al., 2022, "Learning to Prompt for
Vision-Language Models"). The context is shared by all classes, or one per class (CSC); it stands before, around or behind
the class name. Cross-entropy on the logits of one template; both encoders frozen.
"""
import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from yacs.config import CfgNode

from .base import PromptTrainer
from .errors import UserError
from .prompting.prompts import INIT_STD, Prompts, embed, initial_context, start_embedding
from .prompting.tokens import class_tokens, phrase_tokens, readable
from .schedule import check_choice

POSITIONS = ("end", "middle", "front")


def add_coop_config(cfg):
    """Declares ``cfg.TRAINER.COOP``, CoOp's own keys."""
    cfg.TRAINER.COOP = node = CfgNode()
    node.N_CTX = 16  # context tokens; a phrase brings its own number
    node.CSC = False  # a context for each class
    node.CTX_INIT = ""  # phrase the context starts from, Gaussian without
    node.PREC = "fp16"
    node.CLASS_TOKEN_POSITION = "end"


class ContextLearner(nn.Module):
    """Learnable context, (n, D) or with CSC (K, n, D), and frozen tokens of K class names.

    Args:
        settings: ``cfg.TRAINER.COOP``.
        classnames: K names.
        text_encoder: whose embeddings (width D) are used.
    """

    def __init__(self, settings, classnames, text_encoder):
        super().__init__()
        phrase = readable(settings.CTX_INIT).strip()
        n_ctx = len(phrase_tokens(phrase, text_encoder.context_length)) if phrase else settings.N_CTX
        self.class_specific = settings.CSC
        context, _ = initial_context(text_encoder, n_ctx, phrase)
        if settings.CSC:
            context = context.repeat(len(classnames), 1, 1)
            if not phrase:
                context.normal_(std=INIT_STD)
        self.ctx = nn.Parameter(context)
        tokens = class_tokens(classnames, text_encoder.context_length - 1 - n_ctx)
        self.register_buffer("start", start_embedding(text_encoder), persistent=False)  # (1, D)
        self.register_buffer("names", embed(text_encoder, tokens.ids), persistent=False)  # (K, S, D)
        self.register_buffer("end", tokens.end[None], persistent=False)  # (1, K)
        order = [token_order(settings.CLASS_TOKEN_POSITION, n_ctx, length, tokens.ids.shape[1]) for length in tokens.name_lengths]
        self.register_buffer("order", torch.tensor(order), persistent=False)  # (K, n + S)
        self.shares_context = settings.CLASS_TOKEN_POSITION == "end" and not settings.CSC

    def forward(self):
        if self.shares_context:
            prefix = torch.cat([self.start, self.ctx])[None]  # (1, 1 + n, D)
            return Prompts(prefix, self.names[None], self.end)
        context = self.ctx.expand(len(self.names), -1, -1)  # (K, n, D)
        tokens = torch.cat([context, self.names], dim=1)  # (K, n + S, D)
        tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
        return Prompts(self.start[None], tokens[None], self.end + context.shape[1])


def token_order(position, n_ctx, name_length, own):
    """Where the n context tokens (0 … n−1) go among a class's own tokens (n …): a list of n + S indices."""
    context, tokens = list(range(n_ctx)), list(range(n_ctx, n_ctx + own))
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    return context[:before] + tokens[:name_length] + context[before:] + tokens[name_length:]


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimisation."""

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        check_choice("TRAINER.COOP.CLASS_TOKEN_POSITION", cfg.TRAINER.COOP.CLASS_TOKEN_POSITION, POSITIONS)
        if cfg.TRAINER.COOP.N_CTX < 1:
            raise UserError(f"TRAINER.COOP.N_CTX is {cfg.TRAINER.COOP.N_CTX}, it must be at least 1")

    def build_prompt_learner(self, backbone):
        return ContextLearner(self.settings, self.classnames, backbone.text)
