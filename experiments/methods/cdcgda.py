"""CDCGDA: CDC's votes and GDA's classifier of image features, fused by their reliability. It is no
part of the paper of CDC.

The prompts are CDC's and are trained as CDC trains them. After training a Gaussian per class is
fitted to the training images' features under the prompts (Wang et al., 2024, "A Hard-to-Beat
Baseline for Training-free CLIP-based Adaptation"), and gives evidence beside the templates. It
knows the trained classes only: on a list with others, CDC says whether an image is of these (see
``gaussians.among_added``), and of a list without trained classes it answers alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from trainers.cdc import CDCMethod, TemplatePrompts, logits_of
from trainers.class_part import ClassPart, State
from trainers.common.setting import node_of
from trainers.evaluation.prediction import Prediction, Scores
from trainers.maths.evidence import LEVEL, Opinion, conflict, dempster, fitted_factor
from trainers.maths.gaussians import (
    WAY_OF_ADDED,
    GaussianEvidence,
    among_added,
    positions_of_trained,
    state_for,
)
from trainers.method import Batches, Encoded, Figures, Method, TrainingImages
from trainers.registration import registered

# keys of CDC's that keep their defaults
ALWAYS_CDCS = (
    "FUSION",
    "RELIABILITY",
    "LOSS",
    "FUSED_LOSS",
    "ANNEALING_EPOCHS",
    "EVIDENCE",
    "DECOUPLED",
)


SETTINGS = {key: setting for key, setting in CDCMethod.declared.items() if key not in ALWAYS_CDCS}


def add_cdcgda_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDCGDA``: CDC's keys but for those of other fusions and losses."""
    cfg.TRAINER.CDCGDA = node_of(SETTINGS)


def cdc_settings(settings: CfgNode) -> CfgNode:
    """CDC's node with CDCGDA's values."""
    node = node_of(CDCMethod.declared)
    node.update(settings)
    return node


class PromptsAndGaussians(TemplatePrompts):
    """CDC's prompts with the Gaussians as a further part; None for classes that were not trained."""

    gaussians: GaussianEvidence | None
    joint_factor: Tensor


class CDCGDAMethod(Method):
    """CDC and Gaussians of image features, both as evidence.

    It holds CDC as ``base``, whose learner has the Gaussians as a further part. Its logits are those
    of the M templates and, where the Gaussians know any of the classes, as the last of M + 1 their
    log-evidence log(e_k / K): the Gaussians vote as a further template.
    """

    declared = SETTINGS
    learner: PromptsAndGaussians
    class_part = ClassPart(("gaussians",))
    base: CDCMethod
    text_only = {"PROMPT_MODALITY": "text"}

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        CDCMethod.check(cdc_settings(settings), path)

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        return CDCMethod.views(cdc_settings(settings))

    def build(self) -> nn.Module:
        self.base = self.like(CDCMethod, cdc_settings(self.settings))
        self.memory = self.base.memory
        gaussians = GaussianEvidence(self.backbone.embed_dim, len(self.classnames))
        self.base.extend(gaussians=gaussians)
        self.base.learned.register_buffer("joint_factor", torch.ones(()))
        return self.base.learned

    @property
    def reliabilities(self) -> Tensor:
        """ω (M + 1,) of the templates and, last, of the Gaussians."""
        factor = self.learner.joint_factor
        reliabilities: Tensor = factor * factor.new_tensor(self.usual_reliabilities)
        return reliabilities

    @property
    def usual_reliabilities(self) -> list[float]:
        """Beside the Gaussians, which are evidence of another kind, all templates together count as half
        (chosen by cross-validation, docs/log.md)."""
        templates = self.settings.N_TEMPLATES
        return [1 / (2 * templates)] * templates + [1.0]

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """CDC's."""
        return self.base.loss(scores, labels)

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        scores = super().scores(images, encoded)
        gaussians = self.learner.gaussians
        if self.learner.training or gaussians is None or not gaussians.is_fitted:
            return scores
        features = F.normalize(scores.image_features.mean(dim=0), dim=-1)  # (B, E)
        evidence = LEVEL + gaussians(features)  # (B, K), log(e_k / K)
        return replace(scores, logits=torch.cat([scores.logits, evidence[None]]))  # (M + 1, B, K)

    def predict(self, logits: Tensor) -> Prediction:
        templates = self.settings.N_TEMPLATES
        answer = self.base.predict(logits[:templates])
        if len(logits) == templates:
            return answer
        known = self.learner.gaussians
        assert known is not None  # they gave the last logits
        evidence = self.log_evidence(logits)  # (M + 1, B, K)
        opinions = Opinion(evidence)
        answer = replace(
            answer,
            conflict=conflict(evidence),
            # that of the templates' logits alone
            energy=-logits[:templates].logsumexp(dim=-1).mean(dim=0),  # (B,)
            votes=opinions.probability,
            vote_vacuity=opinions.vacuity,
            vote_weight=self.reliabilities / self.reliabilities.sum(),
        )
        if known.has_added:
            return replace(answer, probability=self.among_added(logits, answer, known.asked))
        fused = dempster(evidence, self.reliabilities)  # of (B, K)
        return replace(answer, probability=fused.probability, vacuity=fused.vacuity)

    def among_added(self, logits: Tensor, answer: Prediction, asked: Sequence[int]) -> Tensor:
        """Probabilities (B, K) where some of the classes were not trained.

        Args:
            logits: (M + 1, B, K); answer: the templates'; asked: see ``GaussianEvidence``.
        """
        trained = logits[:, :, positions_of_trained(asked)]  # (M + 1, B, T)
        known = dempster(self.log_evidence(trained), self.reliabilities).log_probability  # (B, T)
        level = trained[-1].logsumexp(dim=-1) - LEVEL  # (B,)
        texts = answer.probability
        texts = texts.clamp(min=torch.finfo(texts.dtype).tiny).log()  # (B, K)
        return among_added(texts, known, level, asked).exp()

    def log_evidence(self, logits: Tensor) -> Tensor:
        """log e_k of ``scores``' logits (M + 1, B, K): (M + 1, B, K)."""
        *_, classes = logits.shape
        templates = self.learner.evidence(logits[:-1])  # (M, B, K)
        trained = self.learner.evidence.trained_classes.clamp(min=classes)
        gaussians = logits[-1:].float() + trained.log()  # (1, B, K)
        return torch.cat([templates, gaussians])

    # ---- before and after the epochs ----

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        self.base.start(training, validation)

    @torch.no_grad()
    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Fits CDC's reliability, the Gaussians to the training images' features under the prompts,
        and all reliabilities together to validation images."""
        texts, prompts = self.base.note_cosines("after", training)
        gaussians = self.learner.gaussians
        assert gaussians is not None  # of the classes that are trained
        features, labels = self.towers.features_of(training(), prompts)  # (M or 1, N, E), (N,)
        gaussians.fit(F.normalize(features.mean(dim=0), dim=-1), labels)
        if validation is not None:
            # (M or M + 1, N, K), (N,)
            self.calibrate(*logits_of(self, validation, (texts, prompts)))
        return True

    def calibrate(self, logits: Tensor, labels: Tensor) -> bool:
        """Sets CDC's reliability, and the factor of all reliabilities together, to those under which
        the labels are most likely."""
        templates = self.settings.N_TEMPLATES
        self.base.calibrate(logits[:templates], labels)
        if len(logits) > templates:
            factor = fitted_factor(self.log_evidence(logits), labels, self.usual_reliabilities)
            self.learner.joint_factor.fill_(factor)
        return True

    def learned_figures(self) -> dict[str, float]:
        return self.base.learned_figures()

    # ---- other classes ----

    def drop_class_part(self) -> None:
        self.learner.gaussians = None

    def state_for(self, state: State, classes: Sequence[int]) -> State | None:
        """The Gaussians serve every list with a trained class."""
        assert self.learner.gaussians is not None  # nothing was loaded before
        return state_for(state, classes, self.learner.gaussians)

    def way_of_added(self) -> str:
        return "The prompts answer alone" if self.left_out else WAY_OF_ADDED


CDCGDA = registered(CDCGDAMethod)
