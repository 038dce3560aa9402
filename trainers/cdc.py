"""CDC: causality-guided semantic decoupling and classification (Zhang, Li, Liu, Qiang, "Rethinking
Misalignment in Vision-Language Model Adaptation from a Causal Perspective", NeurIPS 2024).

VSD: M prompt templates, each trained on its own view of the image, are driven apart (L_de) but kept
near a hand-crafted prompt (L_con), so that each learns a different task-relevant semantic. DSTC:
each template votes with evidence, and Dempster's rule fuses the votes; the loss is
``evidential_loss``, of every vote and of the fused opinion. After training one more witness, of the
images' features alone, gives evidence for the classes that it has seen, and how far all are
believed is fitted on validation images. docs/method.md lists what the paper states and what is our
choice.
"""

import copy
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.errors import UserError
from .evaluation.prediction import Prediction, Scores
from .evidence import Opinion, conflict, dempster, evidential_loss, fitted_reliabilities
from .gaussians import add_evidence
from .losses import collapse_weight, consistency_loss, cosines, decoupling_loss
from .method import Batches, Encoded, Figures, Method, TrainingImages
from .phrases import AFTER, PHRASES, choose_phrases
from .prompting.prompts import (
    FixedTokens,
    Prompts,
    TemplateLinear,
    embed,
    gaussian,
    initial_context,
)
from .prompting.tokens import phrase_tokens
from .settings import add_encoder_settings, add_run_settings
from .trainer import MethodTrainer

log = logging.getLogger(__name__)

START_IMAGES = 1024  # at most so many training images set the offset and the phrases
COMPARED_IMAGES = 64  # at most so many have their features under the templates compared


def add_cdc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDC``; a toolbox that hosts CDC calls this in its ``extend_cfg``."""
    add_run_settings(cfg)
    cfg.TRAINER.CDC = node = CfgNode()
    node.N_TEMPLATES = 4  # M
    node.N_CTX = 2  # context tokens a template (4 is usual with PROMPT_MODALITY text)
    # phrases that templates start from, the best M on the training images; Gaussian beyond them
    node.CTX_INIT = list(PHRASES)
    node.PROMPT_MODALITY = "dual"  # prompts in both encoders (ViT only) | text
    node.PROMPT_DEPTH = 9  # layers of an encoder that have prompts of their own, from the first
    node.HAND_CRAFTED = ""  # t^0, with {} for the class name; empty: the data set's own
    node.AUGMENTATION = 1  # 1 | 2 | None: the same view for all templates
    node.EVIDENCE_START = 2.0  # c, training's first level: log of the mean evidence over classes
    node.EVIDENCE_LEVEL = 4.0  # that of answers, see ``log_evidence``
    node.FUSION = "dempster"  # | mean_probability | sum_logits: these two have no fused loss
    node.IMAGE_WITNESS = True  # a further witness for the trained classes, see ``ImageWitness``
    node.RELIABILITY = "fitted"  # on validation images | independent: Dempster's rule as it is
    node.LOSS = "evidential"  # evidential | cross_entropy
    node.DECOUPLING_WEIGHT = 0.5  # β, of text features and, with PROMPT_MODALITY dual, of images'
    node.CONSISTENCY_WEIGHT = 2.0  # γ, of each template's text features and image features likewise
    add_encoder_settings(node)


class DecoupledPrompts(nn.Module):
    """M templates' prompts for both encoders, their evidence offsets and their reliability.

    M, n and the depth J are the settings N_TEMPLATES, N_CTX and PROMPT_DEPTH, D and D_v the widths of
    the text and of the image encoder.
    """

    class_parameters, class_rows = ("witness",), ("witness.classes",)  # see ``Method.build``
    phrases: Tensor
    tokens: FixedTokens

    def __init__(self, method: Method) -> None:
        super().__init__()
        node, text, image = method.settings, method.backbone.text, method.backbone.image
        templates, n_ctx, deep = node.N_TEMPLATES, node.N_CTX, node.PROMPT_DEPTH - 1
        # makes the tokens around the contexts of the words that follow these
        self.tokens_around = partial(FixedTokens, text, method.classnames, n_ctx)
        self.ctx = nn.Parameter(torch.empty(templates, n_ctx, text.width))  # (M, n, D)
        ids = torch.zeros(templates, text.context_length, dtype=torch.long)
        self.register_buffer("phrases", ids)  # token ids, then zeros
        self.start_from(node.CTX_INIT)
        # drawn in MaPLe's order, and like there all deep maps start alike: one template is MaPLe
        # from the same seed on
        maps, is_dual = nn.ModuleList(), node.PROMPT_MODALITY == "dual"
        if is_dual:
            maps.append(TemplateLinear(templates, text.width, image.width))
        self.deep_ctx = nn.ParameterList(gaussian(*self.ctx.shape) for _ in range(deep))
        if is_dual:
            deep_map = TemplateLinear(templates, text.width, image.width)
            maps.extend(copy.deepcopy(deep_map) for _ in range(deep))
        self.visual_maps = maps
        add_evidence(self, templates, method)
        self.register_load_state_dict_post_hook(put_fixed_words)

    @torch.no_grad()
    def start_from(self, phrases: Iterable[str]) -> None:
        """Puts the first n tokens of the first M phrases into the contexts, and their other words
        after these; Gaussian contexts beyond them."""
        text, _, n_ctx = self.tokens_around.args
        self.phrases.zero_()
        for context, row, phrase in zip(self.ctx, self.phrases, chain(phrases, repeat(""))):
            context.copy_(initial_context(text, n_ctx, phrase)[0])
            ids = phrase_tokens(phrase, text.context_length)
            row[: len(ids)] = ids
        put_fixed_words(self)

    def forward(self) -> Prompts:
        deep = list(self.deep_ctx)
        visual = [m(layer) for m, layer in zip(self.visual_maps, [self.ctx, *deep])]  # (M, n, D_v)
        first, *others = visual or [None]
        return self.tokens(self.ctx, deep_text=deep, visual=first, deep_visual=others)


def put_fixed_words(learner: DecoupledPrompts, *_: object) -> None:
    """Makes the tokens around the contexts those of the learner's phrases, which may differ in
    number of words."""
    text, _, n_ctx = learner.tokens_around.args
    ids = [phrase[: int((phrase > 0).sum())][n_ctx:] for phrase in learner.phrases.cpu()]
    tokens = learner.tokens_around([embed(text, words) for words in ids])
    learner.tokens = tokens.to(learner.ctx.device)


class CDCMethod(Method):
    """Semantic-decoupled prompts with evidential fusion."""

    small = {"PROMPT_DEPTH": 2, "CTX_INIT": PHRASES[:5]}
    text_only = {"PROMPT_MODALITY": "text"}

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        super().check(settings, path)
        template = settings.get("HAND_CRAFTED", "")
        if template and not re.fullmatch("[^{}]*{}[^{}]*", template):
            message = "it needs {} once, where the class name goes"
            raise UserError(f"{path}.HAND_CRAFTED is {template!r}, {message}")
        beta, gamma = settings.DECOUPLING_WEIGHT, settings.CONSISTENCY_WEIGHT
        templates = settings.N_TEMPLATES
        if templates > 1 and beta and gamma >= (limit := collapse_weight(templates, beta)):
            log.warning(
                f"{path}.DECOUPLING_WEIGHT {beta:g} and CONSISTENCY_WEIGHT {gamma:g}: together they are "
                "least where all templates equal CLIP's own features, so nothing drives them apart; it "
                f"takes a CONSISTENCY_WEIGHT below {limit:.3g}"
            )

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        is_same = settings.AUGMENTATION is None
        return 1 if is_same else settings.N_TEMPLATES, settings.AUGMENTATION

    def build(self) -> nn.Module:
        node, backbone = self.settings, self.backbone
        # whether the image encoder is prompted, so that there are terms of image features too
        self.prompts_images = node.PROMPT_MODALITY == "dual"
        towers = (backbone.text, backbone.image)[: 1 + self.prompts_images]
        self.check_depth("PROMPT_DEPTH", node.PROMPT_DEPTH, *towers)
        return DecoupledPrompts(self)

    def hand_crafted_template(self) -> str:
        return self.settings.HAND_CRAFTED or super().hand_crafted_template()

    def reliabilities(self, witnesses: int) -> Tensor:
        """ω of the witnesses for ``dempster``: (M,) of the templates, or (M + 1,) with the image
        witness."""
        if self.settings.RELIABILITY == "independent":
            return torch.ones(witnesses, device=self.device)
        if witnesses > self.settings.N_TEMPLATES:
            return self.learner.joint_reliability
        return self.learner.reliability.expand(witnesses)

    def log_evidence(self, logits: Tensor) -> Tensor:
        """log e^m = l^m − b^m + log max(K, K_trained) in fp32, (M, B, K); of the image witness, the
        last of M + 1, the same with b = 0.

        Answers have more evidence than training starts with, by EVIDENCE_LEVEL − EVIDENCE_START: a
        loss at a low level leaves the templates nearer to CLIP, and answers at a high one are not
        less sure than they are right. On a longer list than the trained one e_k / K, of which
        belief and vacuity are made, depends on the image and the class alone, so that the vacuity
        1 / (1 + Σ_k e_k / K) changes only by what the further classes get. On a shorter one the
        evidence e_k does: a class does not lose what speaks for it since others are not asked for.
        """
        classes = self.learner.trained_classes.clamp(min=logits.shape[-1])
        node, offset = self.settings, self.learner.offset
        if not self.learner.training:
            offset = offset - (node.EVIDENCE_LEVEL - node.EVIDENCE_START)
        offset = F.pad(offset, (0, len(logits) - len(offset)))
        return logits.float() - offset[:, None, None] + classes.log()

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``Scores`` whose logits have, after training, the image witness's as the last of M + 1."""
        scores, witness = super().scores(images, encoded), self.learner.witness
        speaks = self.settings.IMAGE_WITNESS and not self.learner.training
        if not speaks or witness is None or not witness.is_fitted:
            return scores
        features = F.normalize(scores.image_features.mean(dim=0), dim=-1)  # (B, E)
        evidence = self.settings.EVIDENCE_LEVEL + witness(features)  # (B, K), log(e_k / K)
        return replace(scores, logits=torch.cat([scores.logits, evidence[None]]))  # (M + 1, B, K)

    def probability(self, logits: Tensor, votes: Tensor, fused: Opinion) -> Tensor:
        """The answer (B, K) under ``FUSION``; logits, votes: (M, B, K) of the templates."""
        if self.settings.FUSION == "mean_probability":
            return votes.mean(dim=0)
        if self.settings.FUSION == "sum_logits":
            return logits.sum(dim=0).softmax(dim=-1)
        return fused.probability

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """L = L_t-ce + β (L_de + L_de-image) + γ Σ_m (L_con^m + L_con-image^m).

        L_t-ce sums ``vote_loss`` over the templates and, where FUSION is of opinions,
        ``evidential_loss`` of the one that ``dempster`` makes of theirs; with LOSS cross_entropy
        there is none of it. L_de and L_con: see ``template_terms``.

        The log has these terms and, of evidence, its ``level`` (log of the mean over classes, in
        nats) and the fused ``vacuity``; means over templates and images.
        """
        logits, votes = scores.logits, Opinion(self.log_evidence(scores.logits))
        total, figures = self.vote_loss(scores, votes, labels)
        if self.settings.LOSS == "evidential":
            fused = dempster(votes.log_evidence, self.reliabilities(len(logits)))
            if self.settings.FUSION == "dempster":
                total = total + evidential_loss(fused, labels).mean()
            with torch.no_grad():
                answer = self.probability(logits, votes.probability, fused).argmax(dim=1)
                level = votes.log_evidence.logsumexp(dim=-1).mean() - math.log(logits.shape[-1])
                figures["acc"] = 100 * (answer == labels).float().mean()
                figures |= {"level": level, "vacuity": fused.vacuity.mean()}
        figures["loss_votes"] = total
        for name, (weight, term) in self.template_terms(scores).items():
            total = total + weight * term
            figures[name] = term
        return total, figures

    def vote_loss(self, scores: Scores, votes: Opinion, labels: Tensor) -> tuple[Tensor, Figures]:
        """The templates' losses, of their opinions (M, B, K) or with LOSS cross_entropy of their
        logits: means over images, summed; and figures for the log."""
        every = labels.expand(len(scores.logits), -1)  # (M, B)
        if self.settings.LOSS == "evidential":
            each = evidential_loss(votes, every)  # (M, B)
        else:
            each = F.cross_entropy(scores.logits.transpose(1, 2), every, reduction="none")
        return each.mean(dim=1).sum(), {}

    def template_terms(self, scores: Scores) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of L_de, Σ_m L_con^m, and the same of images, by name in the log.

        They compare the templates' texts with the hand-crafted prompt's and, where images are
        prompted, their features of a view with those of the image encoder without prompts, for
        every M-th image of the batch, so that the pass without prompts costs as much as that of one
        template. ``decoupling_loss`` derives where they balance.
        """
        beta, gamma = self.settings.DECOUPLING_WEIGHT, self.settings.CONSISTENCY_WEIGHT
        compared = {"": (scores.text_features, self.hand_crafted)}
        if self.prompts_images and (beta or gamma):
            every = len(scores.image_features)
            images = scores.image_features[:, ::every]  # (M, B / M, E)
            compared["_image"] = images, self.unprompted(scores, every)
        terms = {}
        for part, (features, plain) in compared.items():
            terms[f"loss_de{part}"] = beta, decoupling_loss(features, plain)
            terms[f"loss_con{part}"] = gamma * len(features), consistency_loss(features, plain)
        return terms

    def predict(self, logits: Tensor) -> Prediction:
        evidence = self.log_evidence(logits)  # (M or M + 1, B, K)
        fused = dempster(evidence, self.reliabilities(len(evidence)))  # (B, K)
        logits, evidence = (part[: self.settings.N_TEMPLATES] for part in (logits, evidence))
        energy = -logits.logsumexp(dim=-1).mean(dim=0)  # (B,), not of the witness's evidence
        is_evidential = self.settings.LOSS == "evidential"
        votes = Opinion(evidence).probability if is_evidential else logits.softmax(dim=-1)
        answer = Prediction(self.probability(logits, votes, fused), votes, energy=energy)
        if is_evidential:
            answer.vacuity = fused.vacuity
            answer.conflict = conflict(evidence)
        return answer

    # ---- before and after the epochs ----

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Sets the evidence offset and, where there is a choice, the phrases by zero-shot answers to
        training images: b = mean over images of logsumexp_k l_k − log K − c of their logits l."""
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed
            features, labels = self.features_of(training(START_IMAGES))  # (1, N, E), (N,)
        logits = self.logits(features, self.hand_crafted[None])  # (1, N, K)
        self.learner.offset.fill_(logits.logsumexp(dim=-1).mean() - self.settings.EVIDENCE_START)
        phrases, templates = self.possible_phrases(), self.settings.N_TEMPLATES
        if len(phrases) > templates:
            with self.autocast():
                texts = [self.encode_classes(phrase + AFTER)[None] for phrase in phrases]
            logits = torch.cat([self.logits(features, text) for text in texts])  # (P, N, K)
            best = choose_phrases(logits.log_softmax(dim=-1), labels, templates)
            chosen = [phrases[index] for index in best]
            self.learner.start_from(chosen)
            log.info("The templates start from %s", ", ".join(map(repr, chosen)))
        self.note_cosines("before", training)

    def possible_phrases(self) -> list[str]:
        """Phrases of CTX_INIT that fill a context, if there are more than templates; else all."""
        node, length = self.settings, self.backbone.text.context_length
        phrases = list(node.CTX_INIT)
        filling = [words for words in phrases if len(phrase_tokens(words, length)) >= node.N_CTX]
        return filling if len(filling) > node.N_TEMPLATES else phrases

    def note_cosines(self, when: str, training: TrainingImages) -> Encoded:
        """Notes the ``cosines`` of the templates' texts and, where images are prompted, of some
        training images; returns the texts and the prompts, as they are tested."""
        self.eval()
        with self.autocast():
            texts, prompts = self.encode()
        compared = {"texts": (texts, self.hand_crafted)}
        if self.prompts_images:
            with torch.random.fork_rng(devices=[]):
                prompted, _ = self.features_of(training(COMPARED_IMAGES), prompts)
                compared["images"] = prompted, self.features_of(training(COMPARED_IMAGES))[0]
        self.memory.setdefault("cosines", {})[when] = {
            f"{part}_{name}": value
            for part, features in compared.items()
            for name, value in cosines(*features).items()
        }
        return texts, prompts

    @torch.no_grad()
    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Fits the image witness to the training images and the reliability to validation images."""
        node, witness = self.settings, self.learner.witness
        encoded = self.note_cosines("after", training)
        with torch.random.fork_rng(devices=[]):
            if node.IMAGE_WITNESS and witness is not None:
                features, labels = self.features_of(training(), encoded[1])  # (M or 1, N, E), (N,)
                witness.fit(F.normalize(features.mean(dim=0), dim=-1), labels)
            if validation is not None and (node.FUSION, node.RELIABILITY) == ("dempster", "fitted"):
                answered = ((self(images, encoded).logits, labels) for images, labels in validation)
                logits, truth = zip(*answered)
                # (M or M + 1, N, K), (N,)
                self.fit_reliability(torch.cat(logits, dim=1), torch.cat(truth))
        return True

    def fit_reliability(self, logits: Tensor, labels: Tensor) -> None:
        """Sets the reliabilities to those that fit validation images best: of the templates'
        answers, and where the image witness speaks of all witnesses'. logits: (M or M + 1, N, K);
        labels: (N,)."""
        learner, templates = self.learner, self.settings.N_TEMPLATES
        evidence = self.log_evidence(logits)
        learner.reliability.copy_(fitted_reliabilities(evidence[:templates], labels, templates)[0])
        if len(evidence) > templates:
            learner.joint_reliability.copy_(fitted_reliabilities(evidence, labels, templates))
        message = "Reliability of each template, fitted on %d validation images: %.3f"
        log.info(message, len(labels), learner.reliability)

    def learned_figures(self) -> dict[str, float]:
        learned = {"reliability": self.reliabilities(1)[0].item()}
        for when, figures in self.memory.get("cosines", {}).items():
            learned |= {f"{name}_{when}": value for name, value in figures.items()}
        return learned

    def load(self, state: Mapping[str, Tensor], classnames: Sequence[str]) -> None:
        """Loads prompts. Those of earlier versions answer as they did: with an image witness whose
        level is not scaled and that counts as all templates together, without a fitted reliability
        as independent templates, and, where they have a learned offset for their list, on any list
        with the e_k / K that they were trained for."""
        classes = torch.tensor(len(classnames))
        earlier = {"reliability": torch.tensor(1.0), "trained_classes": classes}
        if has_phrases := isinstance(self.learner, DecoupledPrompts):
            earlier["phrases"] = self.learner.phrases
        if (means := state.get("witness.means")) is not None and self.learner.witness is not None:
            asked = torch.arange(len(means))
            earlier |= {"witness.level_scale": torch.tensor(1.0), "witness.classes": asked}
            self.learner.witness.means = torch.empty_like(means, device=self.device)
        state = {**earlier, **state}
        if "joint_reliability" not in state:
            templates, each = self.settings.N_TEMPLATES, state["reliability"]
            state["joint_reliability"] = each * each.new_tensor([1.0] * templates + [templates])
        if "offset_shift" in state:
            in_list = state["trained_classes"].log() if has_phrases else 0.0
            raised = self.settings.EVIDENCE_LEVEL - self.settings.EVIDENCE_START
            state["offset"] = state["offset"] + state.pop("offset_shift") + in_list + raised
            state["trained_classes"] = torch.tensor(1)  # so that no list is a shorter one
        super().load(state, classnames)


@TRAINER_REGISTRY.register()
class CDC(MethodTrainer):
    method = CDCMethod
