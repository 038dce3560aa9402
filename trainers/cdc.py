"""CDC: causality-guided semantic decoupling and classification (Zhang, Li, Liu, Qiang, "Rethinking Misalignment in
Vision-Language Model Adaptation from a Causal Perspective", NeurIPS 2024).

VSD: M prompt templates, each trained on its own view of the image, are driven apart (L_de) but kept near a hand-crafted
prompt (L_con), so that each learns a different task-relevant semantic. DSTC: each template votes with evidence, and
Dempster's rule fuses the votes; the loss is the trusted cross-entropy of every vote and of the fused opinion. After training
the templates' reliability is fitted on validation images: they look at the same picture, so they are not independent witnesses.
docs/method.md lists what the paper states and what is our choice.
"""

import logging
import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .data.views import AUGMENTATIONS, PictureViews, template_views
from .decoupled_prompts import DecoupledPrompts
from .engine.checkpoint import State
from .engine.checks import (
    check_at_least,
    check_choice,
    check_depth,
    check_image_prompts,
    validates_on_test_images,
)
from .evaluation.prediction import Prediction, Scores
from .evidence import Opinion, conflict, dempster, fitted_reliability, trusted_cross_entropy
from .losses import collapse_weight, consistency_loss, cosines, decoupling_loss
from .phrases import AFTER, PHRASES, choose_phrases
from .prompting.backbone import Backbone
from .prompting.prompts import Prompts
from .prompting.tokens import phrase_tokens
from .settings import add_encoder_settings, add_run_settings

log = logging.getLogger(__name__)

MODALITIES = ("dual", "text")
FUSIONS = ("dempster", "mean_probability", "sum_logits")
RELIABILITIES = ("fitted", "independent")
LOSSES = ("evidential", "cross_entropy")
START_IMAGES = 1024  # at most so many training images set the offset and the phrases
COMPARED_IMAGES = 64  # at most so many have their features under the templates compared


def add_cdc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDC``; a toolbox that hosts CDC calls this in its ``extend_cfg``."""
    add_run_settings(cfg)
    cfg.TRAINER.CDC = node = CfgNode()
    node.N_TEMPLATES = 4  # M
    node.N_CTX = 2  # context tokens a template (4 is usual with PROMPT_MODALITY text)
    node.CTX_INIT = list(
        PHRASES
    )  # phrases that templates start from: of more than M, the best on the training images; of fewer, Gaussian beyond
    node.PROMPT_MODALITY = (
        "dual"  # prompts in both encoders (ViT only), or in the text encoder only
    )
    node.PROMPT_DEPTH = (
        9  # layers of each prompted encoder that get their own prompts, the first included
    )
    node.HAND_CRAFTED = ""  # t^0, with {} for the class name; empty: the data set's own
    node.AUGMENTATION = 1  # 1 | 2 | None: the same view for all templates
    node.EVIDENCE_START = 1.0  # c: zero-shot evidence starts at about c nats above one per class
    node.FUSION = (
        "dempster"  # dempster | mean_probability | sum_logits: these two have no fused loss
    )
    node.RELIABILITY = "fitted"  # of the fused templates: fitted on validation images | independent: Dempster's rule as it is
    node.LOSS = "evidential"  # evidential | cross_entropy
    node.DECOUPLING_WEIGHT = (
        0.5  # β, of text features and, with PROMPT_MODALITY dual, of image features
    )
    node.CONSISTENCY_WEIGHT = 2.0  # γ, of each template's text features and image features likewise
    add_encoder_settings(node)


@TRAINER_REGISTRY.register()
class CDC(PromptTrainer):
    """Semantic-decoupled prompts with evidential fusion."""

    small = {"PROMPT_DEPTH": 2, "CTX_INIT": PHRASES[:5]}
    text_only = {"PROMPT_MODALITY": "text"}
    prompt_learner: DecoupledPrompts

    def build_model(self) -> None:
        super().build_model()
        self.cosines: dict[str, dict[str, float]] = {}  # before and after training

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        for key, choices in (
            ("PROMPT_MODALITY", MODALITIES),
            ("AUGMENTATION", AUGMENTATIONS),
            ("FUSION", FUSIONS),
            ("RELIABILITY", RELIABILITIES),
            ("LOSS", LOSSES),
        ):
            check_choice(f"TRAINER.CDC.{key}", node[key], choices)
        check_at_least(1, "TRAINER.CDC", node, "N_TEMPLATES", "N_CTX", "PROMPT_DEPTH")
        check_at_least(0, "TRAINER.CDC", node, "DECOUPLING_WEIGHT", "CONSISTENCY_WEIGHT")
        if node.HAND_CRAFTED and not (
            node.HAND_CRAFTED.count("{}")
            == node.HAND_CRAFTED.count("{")
            == node.HAND_CRAFTED.count("}")
            == 1
        ):
            raise UserError(
                f"TRAINER.CDC.HAND_CRAFTED is {node.HAND_CRAFTED!r}, it needs {{}} once, where the class name goes"
            )
        templates, beta, gamma = node.N_TEMPLATES, node.DECOUPLING_WEIGHT, node.CONSISTENCY_WEIGHT
        if templates > 1 and beta and gamma >= collapse_weight(templates, beta):
            log.warning(
                "TRAINER.CDC.DECOUPLING_WEIGHT %g and CONSISTENCY_WEIGHT %g: together they are least where all templates equal CLIP's own "
                "features, so nothing drives them apart; it takes a CONSISTENCY_WEIGHT below %.3g",
                beta,
                gamma,
                collapse_weight(templates, beta),
            )

    @cached_property
    def training_views(self) -> PictureViews:
        if self.settings.AUGMENTATION is None:
            return super().training_views
        return PictureViews(
            template_views(self.cfg, self.settings.N_TEMPLATES, self.settings.AUGMENTATION)
        )

    def build_prompt_learner(self, backbone: Backbone) -> DecoupledPrompts:
        node, name = self.settings, self.cfg.MODEL.BACKBONE.NAME
        layers = backbone.text.layers
        if node.PROMPT_MODALITY == "dual":
            check_image_prompts("TRAINER.CDC.PROMPT_MODALITY dual", backbone, name, "use text")
            layers = min(layers, backbone.vision_transformer.layers)
        check_depth("TRAINER.CDC.PROMPT_DEPTH", node.PROMPT_DEPTH, layers, name)
        return DecoupledPrompts(node, self.classnames, backbone)

    def hand_crafted_template(self) -> str:
        return self.settings.HAND_CRAFTED or super().hand_crafted_template()

    def before_train(self) -> None:
        super().before_train()
        if (
            self.start_epoch == 0 and self.train_loader_x.batches_done == 0
        ):  # not where it goes on in the middle of the first epoch
            self.start_from_training_images()
            self.cosines = {"before": self.cosines_to_clip(*self.encoded_templates())}

    @torch.no_grad()
    def start_from_training_images(self) -> None:
        """Sets what the first step needs of zero-shot answers to training images: the evidence offset, and the phrases where there is a choice.

        b = mean over images of logsumexp_k l_k − log K − c, l being zero-shot logits: evidence in a useful range.
        """
        with torch.random.fork_rng(
            devices=[]
        ):  # a loader draws a seed; training must not depend on this pass
            features, labels = self.features_of(
                self.training_images(START_IMAGES), "train"
            )  # (1, N, E), (N,)
        logits = self.logits(features, self.hand_crafted[None])  # (1, N, K)
        self.prompt_learner.offset.copy_(
            logits.logsumexp(dim=-1).mean()
            - math.log(self.num_classes)
            - self.settings.EVIDENCE_START
        )
        phrases = self.possible_phrases()
        if len(phrases) > self.settings.N_TEMPLATES:
            with self.precision.autocast():
                answers = [
                    self.logits(features, self.encode_classes(phrase + AFTER)[None])[0].log_softmax(
                        dim=-1
                    )
                    for phrase in phrases
                ]
            chosen = choose_phrases(torch.stack(answers), labels, self.settings.N_TEMPLATES)
            self.prompt_learner.start_from([phrases[index] for index in chosen])
            log.info(
                "The templates start from %s", ", ".join(repr(phrases[index]) for index in chosen)
            )

    @torch.no_grad()
    def encoded_templates(self) -> tuple[Tensor, Prompts]:
        """Text features (M, K, E) and the prompts, as they are tested."""
        self.set_model_mode("eval")
        with self.precision.autocast():
            prompts = self.prompt_learner()
            return self.encode_texts(prompts), prompts

    @torch.no_grad()
    def cosines_to_clip(self, text_features: Tensor, prompts: Prompts) -> dict[str, float]:
        """``cosines`` of the templates' texts (M, K, E) and, where images are prompted, of features of some training images."""
        found = {"texts": cosines(text_features, self.hand_crafted)}
        if prompts.visual is not None:
            with torch.random.fork_rng(devices=[]):
                loader = self.training_images(COMPARED_IMAGES)
                found["images"] = cosines(
                    self.features_of(loader, "train", prompts)[0],
                    self.features_of(loader, "train")[0],
                )
        return {
            f"{of}_{name}": value for of, values in found.items() for name, value in values.items()
        }

    def possible_phrases(self) -> list[str]:
        """Phrases of CTX_INIT that fill a context, if there are more than templates; else all."""
        node = self.settings
        length = self.backbone.text.context_length
        filling = [
            phrase for phrase in node.CTX_INIT if len(phrase_tokens(phrase, length)) >= node.N_CTX
        ]
        return filling if len(filling) > node.N_TEMPLATES else list(node.CTX_INIT)

    @torch.no_grad()
    def complete_prompts(self) -> bool:
        """Notes how far apart the templates are, and fits their reliability on validation images; without any it stays
        ``usual_reliability``."""
        node = self.settings
        text_features, prompts = self.encoded_templates()
        self.cosines["after"] = self.cosines_to_clip(text_features, prompts)
        if (
            self.val_loader is None
            or validates_on_test_images(self.dm.dataset)
            or (node.FUSION, node.RELIABILITY) != ("dempster", "fitted")
        ):
            return False
        with torch.random.fork_rng(devices=[]):
            features, labels = self.features_of(
                self.val_loader, "val", prompts
            )  # (M or 1, N, E), (N,)
        logits = self.logits(features, text_features)  # (M, N, K)
        self.prompt_learner.reliability.fill_(fitted_reliability(self.log_evidence(logits), labels))
        log.info(
            "Reliability of each template, fitted on %d validation images: %.3f",
            len(labels),
            self.reliability,
        )
        return True

    def learned_figures(self) -> dict[str, float]:
        cosines_found = {
            f"{name}_{when}": value
            for when, found in self.cosines.items()
            for name, value in found.items()
        }
        return {"reliability": float(self.reliability), **cosines_found}

    def training_state(self) -> dict[str, Any]:
        return {"cosines": self.cosines}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        self.cosines = state.get("cosines", {})  # files of earlier versions have none

    @property
    def reliability(self) -> Tensor | float:
        """ω of ``dempster`` for test images."""
        return (
            1.0 if self.settings.RELIABILITY == "independent" else self.prompt_learner.reliability
        )

    def load_prompts(self, state: State, folder: str) -> None:
        """Loads prompts; those of earlier versions, without a fitted reliability, are fused as independent templates."""
        state["state_dict"].setdefault("trained_classes", torch.tensor(len(state["classnames"])))
        state["state_dict"].setdefault("reliability", torch.tensor(1.0))
        state["state_dict"].setdefault("phrases", self.prompt_learner.phrases)
        super().load_prompts(state, folder)

    def log_evidence(self, logits: Tensor) -> Tensor:
        """log e^m = l^m − b^m in fp32, (M, B, K)."""
        return logits.float() - self.prompt_learner.evidence_offset()

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """L = L_t-ce + β (L_de + L_de-image) + γ Σ_m (L_con^m + L_con-image^m).

        L_t-ce sums over the templates' opinions and, where FUSION is of opinions, the one that Dempster's rule makes of them (ω = 1: in
        training each template sees a view of its own). With LOSS cross_entropy the votes' term is the sum of the templates'
        cross-entropies. L_de and L_con compare the templates' texts with the hand-crafted prompt's and, where images are prompted, their
        features of a view with those of the image encoder without prompts; ``decoupling_loss`` derives where they balance.

        The log has these terms and, of evidence, its ``level`` (log of the mean over classes, in nats), how far the ``offset`` has gone from
        its start, and the fused ``vacuity``; means over templates and images.
        """
        node, logits = self.settings, scores.logits
        every_label, figures = labels.expand(len(logits), -1), {}  # (M, B)
        if node.LOSS == "cross_entropy":
            votes = (
                F.cross_entropy(logits.transpose(1, 2), every_label, reduction="none")
                .mean(dim=1)
                .sum()
            )
        else:
            evidence = self.log_evidence(logits)
            votes = trusted_cross_entropy(Opinion(evidence), every_label).mean(dim=-1).sum()
            if node.FUSION == "dempster":
                votes = votes + trusted_cross_entropy(dempster(evidence), labels).mean()
            with torch.no_grad():
                figures = {
                    "level": evidence.logsumexp(dim=-1).mean().item() - math.log(self.num_classes),
                    "offset": self.prompt_learner.offset_shift.mean().item(),
                    "vacuity": dempster(evidence, self.reliability).vacuity.mean().item(),
                }
        figures["loss_votes"] = votes.item()
        return self.with_template_terms(votes, figures, scores)

    @property
    def prompts_images(self) -> bool:
        """Whether the image encoder is prompted, so that the templates' terms are of image features too."""
        return bool(self.settings.PROMPT_MODALITY == "dual")

    def with_template_terms(
        self, total: Tensor, figures: dict[str, float], scores: Scores
    ) -> tuple[Tensor, dict[str, float]]:
        """A loss and its figures with β (L_de + L_de-image) + γ Σ_m (L_con^m + L_con-image^m) added."""
        node, held = self.settings, [("", scores.text_features, self.hand_crafted)]
        if self.prompts_images and (node.DECOUPLING_WEIGHT or node.CONSISTENCY_WEIGHT):
            held.append(("_image", scores.image_features, self.unprompted(scores)))
        for name, features, reference in held:
            apart, near = (
                decoupling_loss(features, reference),
                consistency_loss(features, reference),
            )
            total = (
                total
                + node.DECOUPLING_WEIGHT * apart
                + node.CONSISTENCY_WEIGHT * len(features) * near
            )
            figures |= {f"loss_de{name}": apart.item(), f"loss_con{name}": near.item()}
        return total, figures

    def predict(self, logits: Tensor) -> Prediction:
        node, evidence = self.settings, self.log_evidence(logits)  # (M, B, K)
        opinion = dempster(evidence, self.reliability)
        votes = (
            Opinion(evidence).probability if node.LOSS == "evidential" else logits.softmax(dim=-1)
        )
        if node.FUSION == "mean_probability":
            probability = votes.mean(dim=0)
        elif node.FUSION == "sum_logits":
            probability = logits.sum(dim=0).softmax(dim=-1)
        else:
            probability = opinion.probability
        if node.LOSS != "evidential":
            return Prediction(probability, votes)
        return Prediction(
            probability, votes, opinion.vacuity, conflict(evidence, dempster(evidence))
        )
