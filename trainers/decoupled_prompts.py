"""CDC's learnable part: the prompts of M templates, their evidence offsets and their reliability."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .evidence import usual_reliability
from .prompting.backbone import Backbone
from .prompting.prompts import FixedTokens, Prompts, embed, gaussian, initial_context
from .prompting.tokens import phrase_tokens


class DecoupledPrompts(nn.Module):
    """M templates' prompts for both encoders, their evidence offsets and their reliability.

    Args:
        settings: ``cfg.TRAINER.CDC``; M, n and the depth J are its N_TEMPLATES, N_CTX and PROMPT_DEPTH.
        classnames: K names.
        backbone: whose widths D (text) and D_v (image) are used.
    """

    offset: Tensor
    trained_classes: Tensor
    reliability: Tensor
    phrases: Tensor
    tokens: FixedTokens

    def __init__(self, settings: CfgNode, classnames: Sequence[str], backbone: Backbone) -> None:
        super().__init__()
        templates, n_ctx, text = settings.N_TEMPLATES, settings.N_CTX, backbone.text
        self.tokens_around = partial(
            FixedTokens, text, classnames, n_ctx
        )  # of the words that follow the contexts
        self.ctx = nn.Parameter(torch.empty(templates, n_ctx, text.width))  # (M, n, D)
        self.register_buffer(
            "phrases", torch.zeros(templates, text.context_length, dtype=torch.long)
        )  # token ids, then zeros
        self.start_from(list(settings.CTX_INIT))
        # drawn in MaPLe's order, and like there all deep maps start alike: one template is MaPLe from the same seed on
        dual, depth = settings.PROMPT_MODALITY == "dual", settings.PROMPT_DEPTH
        maps = (
            [TemplateLinear(templates, text.width, backbone.vision_transformer.width)]
            if dual
            else []
        )
        self.deep_ctx = nn.ParameterList(
            gaussian(templates, n_ctx, text.width) for _ in range(depth - 1)
        )
        if dual:
            deep_map = TemplateLinear(templates, text.width, backbone.vision_transformer.width)
            maps += [copy.deepcopy(deep_map) for _ in range(depth - 1)]
        self.visual_maps = nn.ModuleList(maps)
        # b^m = offset + shift^m, so that weight decay draws the learned part to the start and not to zero
        self.register_buffer("offset", torch.zeros(()))
        self.offset_shift = nn.Parameter(torch.zeros(templates))
        self.classes = len(classnames)
        self.register_buffer(
            "trained_classes", torch.tensor(self.classes)
        )  # K of the list that the offset is for
        self.register_buffer(
            "reliability", torch.tensor(usual_reliability(templates))
        )  # ω, until it is fitted
        self.register_load_state_dict_post_hook(put_fixed_words)

    @torch.no_grad()
    def start_from(self, phrases: Sequence[str]) -> None:
        """Puts the first n tokens of the first M phrases into the contexts, and their other words after these; Gaussian contexts beyond them."""
        text, (templates, n_ctx, _) = self.tokens_around.args[0], self.ctx.shape
        self.phrases.zero_()
        for template, phrase in enumerate([*phrases, *[""] * templates][:templates]):
            self.ctx[template] = initial_context(text, n_ctx, phrase)[0]
            ids = phrase_tokens(phrase, text.context_length)
            self.phrases[template, : len(ids)] = ids
        put_fixed_words(self)

    def forward(self) -> Prompts:
        visual = [
            project(layer) for project, layer in zip(self.visual_maps, [self.ctx, *self.deep_ctx])
        ]  # (M, n, D_v) each
        return self.tokens(
            self.ctx,
            deep_text=list(self.deep_ctx),
            visual=visual[0] if visual else None,
            deep_visual=visual[1:],
        )

    def evidence_offset(self) -> Tensor:
        """b^m, shaped (M, 1, 1) to go with logits of the classes that are asked for.

        The offset holds −log K of the training list; another list has that of its own K. Then e_k / K = exp(l_k − b − log K), of which
        belief and vacuity are made, depends on the image and the class alone, and the vacuity 1 / (1 + Σ_k e_k / K) changes with the
        list only by what its further classes get as evidence.
        """
        of_list = (self.trained_classes / self.classes).log()  # 0 for the training list
        return (self.offset + self.offset_shift + of_list)[:, None, None]


def put_fixed_words(learner: DecoupledPrompts, *_: object) -> None:
    """Makes the tokens around the contexts those of the learner's phrases, which may differ in number of words."""
    text, _, n_ctx = learner.tokens_around.args
    ids = [phrase[: int((phrase > 0).sum())][n_ctx:] for phrase in learner.phrases.cpu()]
    learner.tokens = learner.tokens_around([embed(text, words) for words in ids]).to(
        learner.ctx.device
    )


class TemplateLinear(nn.Module):
    """A linear map of its own for each template, (M, n, D) → (M, n, D_v); initialised as ``nn.Linear``."""

    def __init__(self, templates: int, width: int, out_width: int) -> None:
        super().__init__()
        maps = [nn.Linear(width, out_width) for _ in range(templates)]
        self.weight = nn.Parameter(
            torch.stack([linear.weight.detach() for linear in maps])
        )  # (M, D_v, D)
        self.bias = nn.Parameter(torch.stack([linear.bias.detach() for linear in maps]))  # (M, D_v)

    def forward(self, prompts: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], prompts, self.weight.transpose(1, 2))
