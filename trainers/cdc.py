"""CDC: causality-guided semantic decoupling and classification (Zhang, Li, Liu, Qiang, "Rethinking
Misalignment in Vision-Language Model Adaptation from a Causal Perspective", NeurIPS 2024).

VSD: M prompt templates, each trained on its own view of the image, are driven apart (L_de) but kept
near a hand-crafted prompt (L_con), so that each learns a different task-relevant semantic. DSTC:
each template votes with evidence. The votes are fused by their reliability ω, which at ω = 1 is
Dempster's rule; the loss is ``evidential_loss`` of every vote and of the fused opinion.

Only the prompts are trained. Two more numbers are measured: the untrained CLIP's level of evidence on
training images, and the reliability of the templates on validation images.
docs/method.md lists the paper's statements and our choices.
"""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, at_least, node_of
from .evaluation.prediction import Prediction, Scores
from .maths.evidence import (
    Evidence,
    Opinion,
    conflict,
    dempster,
    evidential_loss,
    fitted_factor,
    misleading_evidence,
    trusted_cross_entropy,
)
from .method import Batches, Encoded, Figures, Method, TrainingImages
from .prompting.prompts import FixedTokens, Prompts, TemplateLinear, gaussian, initial_context
from .registration import registered
from .settings import ENCODER, add_run_settings

log = logging.getLogger(__name__)

PHRASES = ("a photo of a", "a picture of a", "an image of a", "a rendering of a")
LEVEL_IMAGES = 1024  # at most so many training images measure the untrained CLIP's
COMPARED_IMAGES = 64  # at most so many have their features under the templates compared
SHORT = 0.03  # δ: deviations much shorter than this have no direction yet


SETTINGS = {
    "N_TEMPLATES": Setting(4, "M, templates, each of which encodes all texts", at_least(1, 100)),
    "N_CTX": Setting(
        2, "context tokens per template (4 is usual with PROMPT_MODALITY text)", COUNT
    ),
    "CTX_INIT": Setting(
        list(PHRASES), "a phrase per template; templates beyond them start Gaussian"
    ),
    "PROMPT_MODALITY": Setting(
        "dual", "dual: prompts in both encoders (ViT only) | text", ["dual", "text"]
    ),
    "PROMPT_DEPTH": Setting(
        9, "layers of an encoder that have prompts of their own, from the first", COUNT
    ),
    "AUGMENTATION": Setting(
        1,
        "which set of changes the templates' views differ by; None: the same view for all",
        [1, 2, None],
    ),
    "FUSION": Setting(
        "dempster",
        "of the templates' votes; mean_probability and sum_logits have no fused loss",
        ["dempster", "mean_probability", "sum_logits"],
    ),
    "RELIABILITY": Setting(
        "fitted",
        "ω: fitted on validation images | independent: ω = 1, Dempster's rule",
        ["fitted", "independent"],
    ),
    "LOSS": Setting(
        "evidential",
        "of every vote; trusted: without the shares' half",
        ["evidential", "trusted", "cross_entropy"],
    ),
    "FUSED_LOSS": Setting(True, "the fused opinion has a loss of its own"),
    "ANNEALING_EPOCHS": Setting(
        0,
        "epochs in which the weight of Han et al.'s KL term grows to 1; 0: no such term",
        at_least(0, 1000000),
    ),
    "EVIDENCE": Setting(
        "exp",
        "exp: of the logits above the untrained CLIP's level | softplus, relu: of the logits as they "
        "are",
        ["exp", "softplus", "relu"],
    ),
    "DECOUPLED": Setting(
        "deviations",
        "what L_de drives apart; features: their plain cosines",
        ["deviations", "features"],
    ),
    "DECOUPLING_WEIGHT": Setting(
        0.5, "β, of text features and, with PROMPT_MODALITY dual, of images'", at_least(0)
    ),
    "CONSISTENCY_WEIGHT": Setting(
        0.5, "γ, of each template's text features and image features likewise", at_least(0)
    ),
    **ENCODER,
}


def add_cdc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDC``; a toolbox that hosts CDC calls this in its ``extend_cfg``."""
    add_run_settings(cfg)
    cfg.TRAINER.CDC = node_of(SETTINGS)


class TemplatePrompts(nn.Module):
    """Prompts of M templates, and the parameters that turn their logits into evidence."""

    __call__: Callable[..., Prompts]
    evidence: Evidence


class DecoupledPrompts(TemplatePrompts):
    """M templates' prompts for both encoders, and the parameters that turn their logits into evidence.

    M, n and the depth J are the settings N_TEMPLATES, N_CTX and PROMPT_DEPTH, D and D_v the widths of
    the text and of the image encoder.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        image = method.backbone.image
        templates = node.N_TEMPLATES
        n_ctx = node.N_CTX
        deep_layers = node.PROMPT_DEPTH - 1
        contexts = []
        words = []
        for m in range(templates):
            phrase = node.CTX_INIT[m] if m < len(node.CTX_INIT) else ""
            context, following = initial_context(text, n_ctx, phrase)
            contexts.append(context)
            words.append(following)
        self.tokens = FixedTokens(text, method.classnames, n_ctx, words)
        self.ctx = nn.Parameter(torch.stack(contexts))  # (M, n, D)
        # drawn in MaPLe's order, and like there all deep maps start alike: one template is MaPLe
        # from the same seed on
        is_dual = node.PROMPT_MODALITY == "dual"
        maps = nn.ModuleList()
        if is_dual:
            maps.append(TemplateLinear(templates, text.width, image.width))
        self.deep_ctx = nn.ParameterList(gaussian(*self.ctx.shape) for _ in range(deep_layers))
        if is_dual:
            deep_map = TemplateLinear(templates, text.width, image.width)
            maps.extend(copy.deepcopy(deep_map) for _ in range(deep_layers))
        self.visual_maps = maps
        self.evidence = Evidence(templates, len(method.classnames), node.EVIDENCE)

    def forward(self) -> Prompts:
        deep = list(self.deep_ctx)
        layers = zip(self.visual_maps, [self.ctx, *deep])
        return replace(
            self.tokens(self.ctx),
            deep_text=deep,
            visual=[to_visual(layer) for to_visual, layer in layers],  # (M, n, D_v) each
        )


def decoupling_loss(features: Tensor, reference: Tensor) -> Tensor:
    """CDC's L_de: mean cosine between the deviations d^m = features^m − reference of templates m <
    n; 0 for a single template.

    With a short length δ = ``SHORT`` in it, so that it is smooth where a template has not moved yet::

        L_de = mean over m < n and N of  d^m · d^n / sqrt((|d^m|² + δ²) (|d^n|² + δ²)).

    A cosine of the features themselves would work against the consistency loss: it falls as
    templates leave the reference, and together they have their minimum at "all templates equal the
    reference" from a small weight of consistency on. The deviations' cosine measures the direction of
    a template's deviation, not its length. Derivation for β L_de + γ Σ_m L_con^m with free unit vectors:
    put w^m = cos a · t + sin a · v_m with v_m ⊥ t the vertices of a simplex, v_m · v_n = ρ = −1 /
    (M − 1). With y = |d|² + δ², |d|² = 2 (1 − cos a)::

        d^m · d^n = (|d|² / 2) (2ρ + (1 − ρ) |d|² / 2),     L_de = d^m · d^n / y,     γ Σ_m L_con^m = γ M |d|² / 2,

    whose derivative in y is β (1 − ρ) / 4 − β C / y² + γ M / 2 with C = δ² (−ρ + (1 − ρ) δ² / 4).
    So the minimum lies at y² = β C / (β (1 − ρ) / 4 + γ M / 2): templates apart, each at a short
    distance from the reference, which the cross-entropy is left to choose; L_de is ρ + O(δ) there.
    They collapse, y = δ², exactly from γ = 2β / (M (M − 1) δ²) on.

    Args:
        features: (M, N, E), normalised; of N texts or images.
        reference: (N, E) or (M, N, E), normalised.

    Returns:
        scalar in [−1 / (M − 1), 1].
    """
    deviation = features - reference  # (M, N, E)
    length = (deviation.square().sum(dim=-1, keepdim=True) + SHORT**2).sqrt()  # (M, N, 1)
    return mean_over_pairs(deviation / length)


def mean_over_pairs(vectors: Tensor) -> Tensor:
    """Mean of a_m · a_n over templates m < n and N of vectors (M, N, E); 0 for a single template.

    Of normalised features it is their mean cosine, the usual L_de.
    """
    templates = len(vectors)
    if templates == 1:
        return vectors.new_zeros(())
    # Σ_{m≠n} a_m · a_n = |Σ_m a_m|² − Σ_m |a_m|²
    pairs = vectors.sum(dim=0).square().sum(dim=-1) - vectors.square().sum(dim=(0, 2))  # (N,)
    return pairs.mean() / (templates * (templates - 1))


def cosines(features: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the distances of templates: mean cosines of their features (M, N, E), all normalised, with
    the reference (N, E) or (M, N, E).

    Returns:
        ``to_clip``: to the reference; with two templates or more also ``between``: of pairs of
        templates, and ``deviations``: of pairs of their deviations from the reference. Each a mean
        over pairs and N.
    """
    means = {"to_clip": torch.linalg.vecdot(features, reference).mean().item()}
    if len(features) > 1:
        for name, vectors in (("between", features), ("deviations", features - reference)):
            means[name] = mean_over_pairs(F.normalize(vectors, dim=-1)).item()
    return means


def collapse_weight(templates: int, decoupling: float, of_deviations: bool = True) -> float:
    """γ from which β L_de + γ Σ_m L_con^m is least where all templates equal the reference.

    Where L_de is ``mean_over_pairs`` of the features, w^m = cos a · t + sin a · v_m as in
    ``decoupling_loss`` gives, for small a::

        β (1 − a² M / (M − 1)) + γ M a² / 2,   which is least at a = 0 from γ = 2β / (M − 1) on.

    Args:
        templates: M ≥ 2; decoupling: β.
        of_deviations: whether L_de is ``decoupling_loss``, which derives the formula.
    """
    if not of_deviations:
        return 2 * decoupling / (templates - 1)
    return 2 * decoupling / (templates * (templates - 1) * SHORT**2)


def logits_of(method: Method, batches: Batches, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """A method's logits (M, N, K) for N images, and their labels (N,); encoded: its texts."""
    logits = []
    labels = []
    for images, truth in batches:
        logits.append(method(images, encoded).logits)
        labels.append(truth)
    return torch.cat(logits, dim=1), torch.cat(labels)


class CDCMethod(Method):
    """Semantic-decoupled prompts with evidential fusion."""

    declared = SETTINGS
    learner: TemplatePrompts
    text_only = {"PROMPT_MODALITY": "text"}
    calibrated = ("evidence.reliability",)

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        super().check(settings, path)
        beta = settings.DECOUPLING_WEIGHT
        gamma = settings.CONSISTENCY_WEIGHT
        templates = settings.N_TEMPLATES
        if templates == 1 or not beta:
            return
        limit = collapse_weight(templates, beta, settings.DECOUPLED == "deviations")
        if gamma >= limit:
            log.warning(
                f"{path}.DECOUPLING_WEIGHT {beta:g} and CONSISTENCY_WEIGHT {gamma:g}: together they are "
                "least where all templates equal CLIP's own features, so nothing drives them apart; it "
                f"takes a CONSISTENCY_WEIGHT below {limit:.3g}"
            )

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        if settings.AUGMENTATION is None:
            return 1, None
        return settings.N_TEMPLATES, settings.AUGMENTATION

    def build(self) -> nn.Module:
        node = self.settings
        backbone = self.backbone
        # whether the image encoder is prompted, so that there are terms of image features too
        self.prompts_images = node.PROMPT_MODALITY == "dual"
        self.check_depth("PROMPT_DEPTH", node.PROMPT_DEPTH, backbone.text)
        if self.prompts_images:
            self.check_depth("PROMPT_DEPTH", node.PROMPT_DEPTH, backbone.image)
        return DecoupledPrompts(self)

    # ---- the loss of a training batch ----

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """L = L_t-ce + β (L_de + L_de-image) + γ Σ_m (L_con^m + L_con-image^m).

        L_t-ce sums ``vote_loss`` over the templates and, where FUSION is of opinions and FUSED_LOSS
        says so, ``opinion_loss`` of the one that ``dempster`` makes of theirs; with LOSS
        cross_entropy it is left out. L_de and L_con are the ``template_terms``.

        The log has these terms and, where opinions are fused, the ``level`` of evidence (log of the
        mean over classes, in nats) and the fused ``vacuity``; means over templates and images.
        """
        logits = scores.logits  # (M, B, K)
        votes = Opinion(self.learner.evidence(logits))
        total, figures = self.vote_loss(scores, votes, labels)
        if self.settings.LOSS != "cross_entropy" and self.settings.FUSION == "dempster":
            fused = self.fuse(votes.log_evidence)
            if self.settings.FUSED_LOSS:
                total = total + self.opinion_loss(fused, labels).mean()
            with torch.no_grad():
                answer = fused.log_evidence.argmax(dim=1)
                level = votes.log_evidence.logsumexp(dim=-1).mean() - math.log(logits.shape[-1])
                figures["acc"] = 100 * (answer == labels).float().mean()
                figures |= {"level": level, "vacuity": fused.vacuity.mean()}
        figures["loss_votes"] = total
        for name, (weight, term) in self.template_terms(scores).items():
            total = total + weight * term
            figures[name] = term
        return total, figures

    def vote_loss(self, scores: Scores, votes: Opinion, labels: Tensor) -> tuple[Tensor, Figures]:
        """Return the sum of the templates' losses, means over images, and values for the log. The losses
        are of opinions (M, B, K) or, with LOSS cross_entropy, of logits."""
        every = labels.expand(len(scores.logits), -1)  # (M, B)
        if self.settings.LOSS == "cross_entropy":
            each = F.cross_entropy(scores.logits.transpose(1, 2), every, reduction="none")
        else:
            each = self.opinion_loss(votes, every)  # (M, B)
        return each.mean(dim=1).sum(), {}

    def opinion_loss(self, opinion: Opinion, labels: Tensor) -> Tensor:
        """Losses (…) of an opinion of (…, K) under LOSS and ANNEALING_EPOCHS; labels: (…).

        The weight of ``misleading_evidence`` is λ_t = min(1, epochs done / ANNEALING_EPOCHS) (Han et
        al., 2021, eq. 9).
        """
        if self.settings.LOSS == "trusted":
            loss = trusted_cross_entropy(opinion, labels)
        else:
            loss = evidential_loss(opinion, labels)
        epochs = self.settings.ANNEALING_EPOCHS
        if epochs:
            weight = min(1.0, self.memory.get("epochs_done", 0) / epochs)
            loss = loss + weight * misleading_evidence(opinion, labels)
        return loss

    def end_epoch(self, epoch: int, epochs: int) -> None:
        super().end_epoch(epoch, epochs)
        if self.settings.ANNEALING_EPOCHS:
            self.memory["epochs_done"] = epoch + 1

    def template_terms(self, scores: Scores) -> dict[str, tuple[float, Tensor]]:
        """Return the weight and the value of L_de and of Σ_m L_con^m, for texts and images, by their names
        in the log.

        They compare the templates' texts with the hand-crafted prompt's and, where images are
        prompted, their features of a view with those of the image encoder without prompts, for
        every M-th image of the batch, so that the pass without prompts costs as much as one
        template's. L_con is the mean of 1 − cos to these, KgCoOp's term, and ``decoupling_loss`` derives
        where the two balance; with DECOUPLED features L_de is ``mean_over_pairs``.
        """
        beta = self.settings.DECOUPLING_WEIGHT
        gamma = self.settings.CONSISTENCY_WEIGHT
        compared = {"": (scores.text_features, self.hand_crafted)}
        if self.prompts_images and (beta or gamma):
            every = len(scores.image_features)
            images = scores.image_features[:, ::every]  # (M, B / M, E)
            plain = self.unprompted(scores, images=slice(None, None, every))
            compared["_image"] = images, plain
        terms = {}
        for part, (features, plain) in compared.items():
            if self.settings.DECOUPLED == "deviations":
                apart = decoupling_loss(features, plain)
            else:
                apart = mean_over_pairs(features)
            distance = 1 - torch.linalg.vecdot(features, plain).mean()
            terms[f"loss_de{part}"] = beta, apart
            terms[f"loss_con{part}"] = gamma * len(features), distance
        return terms

    # ---- answers ----

    @property
    def reliability(self) -> Tensor | float:
        """ω of each template for ``dempster``."""
        if self.settings.RELIABILITY == "independent":
            return 1.0
        fitted: Tensor = self.learner.evidence.reliability
        return fitted

    def fuse(self, log_evidence: Tensor) -> Opinion:
        """Fuse the templates' opinions (M, B, K) into one (B, K)."""
        return dempster(log_evidence, self.reliability)

    def probability(self, logits: Tensor, votes: Tensor, fused: Opinion) -> Tensor:
        """Return the answer (B, K) under ``FUSION``; logits, votes: (M, B, K) of the templates."""
        if self.settings.FUSION == "mean_probability":
            return votes.mean(dim=0)
        if self.settings.FUSION == "sum_logits":
            return logits.sum(dim=0).softmax(dim=-1)
        return fused.probability

    def predict(self, logits: Tensor) -> Prediction:
        evidence = self.learner.evidence(logits)  # (M, B, K)
        fused = self.fuse(evidence)
        weights = evidence.new_full((len(logits),), 1 / len(logits))  # (M,)
        if self.settings.LOSS == "cross_entropy":
            votes = logits.softmax(dim=-1)
            return Prediction(self.probability(logits, votes, fused), votes, vote_weight=weights)
        opinions = Opinion(evidence)
        return Prediction(
            self.probability(logits, opinions.probability, fused),
            opinions.probability,
            vacuity=fused.vacuity,
            conflict=conflict(evidence),
            vote_vacuity=opinions.vacuity,
            vote_weight=weights,
        )

    # ---- before and after the epochs ----

    @torch.no_grad()
    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Measure the offset of the ``Evidence`` on training images."""
        features, _ = self.towers.features_of(training(LEVEL_IMAGES))  # (1, N, E)
        logits = self.towers.logits(features, self.hand_crafted[None])  # (1, N, K)
        self.learner.evidence.offset.copy_(logits.logsumexp(dim=-1).mean())
        self.note_cosines("before", training)

    @torch.no_grad()
    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Fit the reliability to validation images, if there are any."""
        encoded = self.note_cosines("after", training)
        if validation is None:
            return False
        return self.calibrate(*logits_of(self, validation, encoded))

    def calibrate(self, logits: Tensor, labels: Tensor) -> bool:
        """Fit the reliability ω: the labels are most likely under it; return whether it was fitted.

        It is fitted only with FUSION dempster and RELIABILITY fitted."""
        if (self.settings.FUSION, self.settings.RELIABILITY) != ("dempster", "fitted"):
            return False
        templates = len(logits)
        factor = fitted_factor(self.learner.evidence(logits), labels, [1 / templates] * templates)
        self.learner.evidence.reliability.fill_(factor / templates)
        message = "Reliability of each template, fitted on %d validation images: %.3f"
        log.info(message, len(labels), factor / templates)
        return True

    def note_cosines(self, when: str, training: TrainingImages) -> Encoded:
        """Log the ``cosines`` of the templates' texts and, where images are prompted, of some training
        images; return the texts and the prompts, as they are tested."""
        self.eval()
        with self.towers.autocast():
            encoded = self.encode()
        assert encoded is not None  # its texts are the same for all images
        texts, prompts = encoded
        compared = {"texts": (texts, self.hand_crafted)}
        if self.prompts_images:
            prompted, _ = self.towers.features_of(training(COMPARED_IMAGES), prompts)
            plain, _ = self.towers.features_of(training(COMPARED_IMAGES))
            compared["images"] = prompted, plain
        noted = {}
        for part, (features, reference) in compared.items():
            for name, value in cosines(features, reference).items():
                noted[f"{part}_{name}"] = value
        self.memory.setdefault("cosines", {})[when] = noted
        return texts, prompts

    def learned_figures(self) -> dict[str, float]:
        learned = {"reliability": float(self.reliability)}
        for when, figures in self.memory.get("cosines", {}).items():
            for name, value in figures.items():
                learned[f"{name}_{when}"] = value
        return learned


CDC = registered(CDCMethod)
