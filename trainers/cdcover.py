"""CDC over another method: M sets of the method's own prompts as templates, each trained on its own view by the method's own loss, whose
cross-entropy becomes the trusted one of the template's evidence; L_de drives them apart, and Dempster's rule fuses their votes as in CDC
(docs/method.md). One template with LOSS cross_entropy, FUSION mean_probability and neither of CDC's two terms is the method itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .cdc import CDC, FUSIONS, LOSSES, RELIABILITIES, add_cdc_config
from .data.views import AUGMENTATIONS
from .engine.checkpoint import State
from .engine.checks import check_at_least, check_choice
from .evaluation.prediction import Scores
from .evidence import Opinion, dempster, trusted_cross_entropy, usual_reliability
from .prompting.backbone import Backbone
from .prompting.prompts import Prompts, initial_context
from .prompting.text import TextEncoder
from .prompting.tokens import phrase_tokens
from .promptsrc import PromptSRC, add_promptsrc_config
from .settings import method_node
from .tcp import TCP, add_tcp_config

OF_THE_METHOD = {
    "N_CTX",
    "CTX_INIT",
    "PROMPT_MODALITY",
    "PROMPT_DEPTH",
}  # CDC's keys in whose place the method has its own


def add_settings(cfg: CfgNode, name: str, add_config: Callable[[CfgNode], None]) -> None:
    """Declares ``cfg.TRAINER.<name>``: a method's own keys, CDC's, and the phrases that the templates start from."""
    cdc = method_node(add_cdc_config)
    cfg.TRAINER[name] = node = method_node(add_config)
    for key in cdc.keys() - node.keys() - OF_THE_METHOD:
        node[key] = cdc[key]
    node.PHRASES = (
        cdc.CTX_INIT
    )  # those with as many tokens as the context; if more than M, the best on the training images
    node.CONSISTENCY_WEIGHT = 0.0  # the methods regularise by themselves


def add_cdcpromptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDCPROMPTSRC``."""
    add_settings(cfg, "CDCPROMPTSRC", add_promptsrc_config)


def add_cdctcp_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDCTCP``."""
    add_settings(cfg, "CDCTCP", add_tcp_config)


class TemplateLearners(nn.Module):
    """M prompt learners of a method as templates, their evidence offsets and their reliability.

    Args:
        learners: M, each with a context ``ctx`` and the same fixed words after it.
        phrases: that contexts start from; further contexts stay.
        text: the ``TextEncoder``.
        classes: K.
    """

    offset: Tensor
    reliability: Tensor

    def __init__(
        self, learners: Sequence[Any], phrases: Sequence[str], text: TextEncoder, classes: int
    ) -> None:
        super().__init__()
        self.learners: Any = nn.ModuleList(learners)
        n_ctx = len(learners[0].ctx)
        self.context_of = lambda phrase: initial_context(text, n_ctx, phrase)[0]  # (n, D)
        self.start_from(phrases)
        self.register_buffer(
            "offset", torch.zeros(())
        )  # for one class; a list of K has log K less, as in DecoupledPrompts
        self.offset_shift = nn.Parameter(torch.zeros(len(learners)))
        self.log_classes = math.log(classes)
        self.register_buffer("reliability", torch.tensor(usual_reliability(len(learners))))

    @torch.no_grad()
    def start_from(self, phrases: Sequence[str]) -> None:
        """Puts the first n tokens of a phrase into each context; those beyond the phrases stay as they are."""
        for learner, phrase in zip(self.learners, phrases):
            learner.ctx.copy_(self.context_of(phrase))

    def forward(self) -> Prompts:
        each = [learner() for learner in self.learners]

        def joined(parts: Sequence[Any]) -> Any:
            return None if parts[0] is None else torch.cat(list(parts))

        return replace(
            each[0],
            prefix=joined([one.prefix for one in each]),
            visual=joined([one.visual for one in each]),
            deep_text=[joined(layer) for layer in zip(*(one.deep_text for one in each))],
            deep_visual=[joined(layer) for layer in zip(*(one.deep_visual for one in each))],
        )

    def evidence_offset(self) -> Tensor:
        """b^m, shaped (M, 1, 1); see ``DecoupledPrompts``."""
        return (self.offset + self.offset_shift - self.log_classes)[:, None, None]


class CDCOver(CDC):
    """CDC over another method, named first in a class's bases: ``class CDCTCP(CDCOver, TCP)``. The prompts are the method's."""

    prompt_learner: Any

    def check_cfg(self, cfg: CfgNode) -> None:
        super(CDC, self).check_cfg(cfg)
        node = self.node(cfg)
        for key, choices in (
            ("AUGMENTATION", AUGMENTATIONS),
            ("FUSION", FUSIONS),
            ("RELIABILITY", RELIABILITIES),
            ("LOSS", LOSSES),
        ):
            check_choice(f"{self.path}.{key}", node[key], choices)
        check_at_least(1, self.path, node, "N_TEMPLATES")
        check_at_least(0, self.path, node, "DECOUPLING_WEIGHT", "CONSISTENCY_WEIGHT")

    def build_prompt_learner(self, backbone: Backbone) -> Any:
        node, build = self.settings, super(CDC, self).build_prompt_learner
        learners: list[Any] = [build(backbone) for _ in range(node.N_TEMPLATES)]
        return TemplateLearners(
            learners,
            self.possible_phrases(len(learners[0].ctx)),
            backbone.text,
            len(self.classnames),
        )

    def possible_phrases(self, tokens: int | None = None) -> list[str]:
        """Phrases with exactly as many tokens as a context, so that no fixed words are left over."""
        length = self.backbone.text.context_length
        return [
            phrase
            for phrase in self.settings.PHRASES
            if len(phrase_tokens(phrase, length))
            == (tokens or len(self.prompt_learner.learners[0].ctx))
        ]

    def start_from_training_images(self) -> None:
        super().start_from_training_images()
        self.prompt_learner.offset += math.log(self.num_classes)  # CDC's is for the training list

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Σ_m the method's loss of template m, with the trusted cross-entropy of its evidence, + the fused opinion's + β L_de + γ Σ_m L_con."""
        node, logits = self.settings, scores.logits
        evidence, templates, figures = self.log_evidence(logits), len(logits), dict[str, float]()
        unprompted = self.unprompted(scores) if self.prompts_images else None  # (V, B, E)
        total = logits.new_zeros(())
        for m in range(templates):
            one_of = (
                part[m % len(part)][None]
                for part in (logits, scores.image_features, scores.text_features, scores.images)
            )
            view = None if unprompted is None else unprompted[m % len(unprompted)][None]
            own, found = super(CDC, self).loss(Scores(*one_of, unprompted=view), labels)
            if node.LOSS == "evidential":
                own = (
                    own
                    - F.cross_entropy(logits[m], labels)
                    + trusted_cross_entropy(Opinion(evidence[m]), labels).mean()
                )
            total = total + own
            figures = {
                name: figures.get(name, 0.0) + value / templates for name, value in found.items()
            }
        if node.LOSS == "evidential" and node.FUSION == "dempster":
            total = total + trusted_cross_entropy(dempster(evidence), labels).mean()
        return self.with_template_terms(total, figures, scores)

    @cached_property
    def prompts_images(self) -> bool:
        with torch.no_grad():
            return self.prompt_learner.learners[0]().visual is not None

    def training_state(self) -> dict[str, Any]:
        return {**super().training_state(), **super(CDC, self).training_state()}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        super().restore_training_state(state)
        super(CDC, self).restore_training_state(state)

    def load_prompts(self, state: State, folder: str) -> None:
        super(CDC, self).load_prompts(state, folder)  # there are no files of earlier versions


@TRAINER_REGISTRY.register()
class CDCPromptSRC(CDCOver, PromptSRC):
    """CDC's templates and fusion over PromptSRC's prompts and regularisers."""

    small = {**PromptSRC.small, "N_TEMPLATES": 2}
    text_only = PromptSRC.text_only


@TRAINER_REGISTRY.register()
class CDCTCP(CDCOver, TCP):
    """CDC's templates and fusion over TCP's class-aware prompts."""

    small = {**TCP.small, "N_TEMPLATES": 2}
    text_only = {}
