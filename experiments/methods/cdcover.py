"""CDC over another method: M sets of the method's own prompts as templates, each trained on its own
view by the method's own loss, whose cross-entropy becomes ``evidential_loss`` of the template's
evidence; L_de drives them apart, and their votes are fused as in CDC (docs/method.md).
One template with LOSS cross_entropy, FUSION mean_probability and neither of CDC's two terms is the
method itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from trainers.cdc import PHRASES, CDCMethod, TemplatePrompts
from trainers.common.setting import Setting, Settings, node_of
from trainers.evaluation.prediction import Scores
from trainers.learners.independent import IndependentPrompts
from trainers.maths.evidence import Evidence, Opinion
from trainers.method import Figures, Method, ParameterGroups
from trainers.prompting.precision import OfficialPrecision
from trainers.prompting.prompts import Prompts, initial_context
from trainers.prompting.tokens import phrase_tokens
from trainers.promptsrc import PromptSRCMethod
from trainers.registration import registered
from trainers.tcp import ClassAwarePrompts, TCPMethod

OneContext = IndependentPrompts | ClassAwarePrompts  # with a context ``ctx`` (n, D)

# CDC's keys in whose place the method has its own
OF_THE_METHOD = {"N_CTX", "CTX_INIT", "PROMPT_MODALITY", "PROMPT_DEPTH"}


def over_settings(over: type[Method]) -> Settings:
    """A method's settings, CDC's, and the phrases that the templates start from."""
    cdc = CDCMethod.declared
    beside = {key: cdc[key] for key in cdc if key not in over.declared and key not in OF_THE_METHOD}
    return {
        **over.declared,
        **beside,
        # the methods regularise by themselves
        "CONSISTENCY_WEIGHT": replace(cdc["CONSISTENCY_WEIGHT"], default=0.0),
        "PHRASES": Setting(
            list(PHRASES), "a phrase per template, of those with as many tokens as a context"
        ),
    }


def add_cdcpromptsrc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDCPROMPTSRC``."""
    cfg.TRAINER.CDCPROMPTSRC = node_of(CDCPromptSRCMethod.declared)


def add_cdctcp_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDCTCP``."""
    cfg.TRAINER.CDCTCP = node_of(CDCTCPMethod.declared)


class TemplateLearners(TemplatePrompts):
    """M prompt learners of a method as templates, and what turns their logits into evidence.

    Args:
        learners: M, each with a context ``ctx`` (n, D) and the same fixed words after it.
        phrases: of n tokens each, that the first contexts start from; further ones stay.
        method: that they serve.
    """

    def __init__(
        self, learners: Sequence["OneContext"], phrases: Sequence[str], method: Method
    ) -> None:
        super().__init__()
        self.learners: Any = nn.ModuleList(learners)
        with torch.no_grad():
            for learner, phrase in zip(learners, phrases):
                context, _ = initial_context(method.backbone.text, len(learner.ctx), phrase)
                learner.ctx.copy_(context)
        self.evidence = Evidence(len(learners), len(method.classnames), method.settings.EVIDENCE)

    def forward(self) -> Prompts:
        return Prompts.concatenate([learner() for learner in self.learners])


class CDCOverMethod(CDCMethod):
    """CDC over a method, its ``over``, whose prompts and loss each template has.

    It holds that method as ``base``, whose learner is that of all templates.
    """

    over: ClassVar[type[Method]]
    base: Method

    def build(self) -> nn.Module:
        self.base = self.like(self.over)
        further = [self.base.build() for _ in range(1, self.settings.N_TEMPLATES)]
        learners = [cast("OneContext", learner) for learner in (self.base.learner, *further)]
        with torch.no_grad():
            self.prompts_images = len(learners[0]().visual) > 0
        length = self.backbone.text.context_length
        # so that no fixed words are left over
        phrases = [
            words
            for words in self.settings.PHRASES
            if len(phrase_tokens(words, length)) == len(learners[0].ctx)
        ]
        learner = TemplateLearners(learners, phrases, self)
        self.base.learner = learner
        self.memory = self.base.memory
        return learner

    @cached_property
    def hand_crafted(self) -> Tensor:
        return self.base.hand_crafted

    def parameter_groups(self, lr: float) -> ParameterGroups | None:
        return self.base.parameter_groups(lr)

    def vote_loss(self, scores: Scores, votes: Opinion, labels: Tensor) -> tuple[Tensor, Figures]:
        """Σ_m the method's loss of template m, with ``opinion_loss`` of its opinion in place of
        the cross-entropy; the method's figures are means over the templates."""
        logits = scores.logits
        total = logits.new_zeros(())
        figures = Figures()
        if self.prompts_images:
            self.unprompted(scores)  # (V, B, E), which it keeps there
        for m in range(len(logits)):
            loss, measured = self.base.loss(scores.of_template(m), labels)
            if self.settings.LOSS != "cross_entropy":
                vote = self.opinion_loss(Opinion(votes.log_evidence[m]), labels).mean()
                loss = loss - F.cross_entropy(logits[m], labels) + vote
            total = total + loss
            for name, value in measured.items():
                figures[name] = figures.get(name, 0.0) + value.detach().double() / len(logits)
        return total, figures


class CDCPromptSRCMethod(CDCOverMethod):
    """CDC's templates and fusion over PromptSRC's prompts and regularisers."""

    over = PromptSRCMethod
    declared = over_settings(PromptSRCMethod)
    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    official_precision = OfficialPrecision(fp32_teacher=True)


class CDCTCPMethod(CDCOverMethod):
    """CDC's templates and fusion over TCP's class-aware prompts."""

    over = TCPMethod
    declared = over_settings(TCPMethod)
    text_only = {}


CDCPromptSRC = registered(CDCPromptSRCMethod)


CDCTCP = registered(CDCTCPMethod)
