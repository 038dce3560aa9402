"""CDC: causality-guided semantic decoupling and classification (Zhang, Li, Liu, Qiang, "Rethinking Misalignment in
Vision-Language Model Adaptation from a Causal Perspective", NeurIPS 2024).

VSD: M prompt templates, each trained on its own view of the image, are driven apart (L_de) but kept near a hand-crafted
prompt (L_con), so that each takes hold of another task-relevant semantic. DSTC: each template votes with evidence, and
Dempster's rule fuses the votes; the loss is the trusted cross-entropy of every vote and of the fused opinion. After training
the templates' reliability is fitted on validation images: they look at the same picture, so they are not independent witnesses.
docs/method.md lists what the paper states and what is our choice.
"""
import copy
import logging
import math
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .data.loader import CheckedImages, divide_loading
from .data.views import AUGMENTATIONS, PictureViews, template_views
from .engine.checkpoint import State
from .engine.checks import check_at_least, check_choice, check_depth, check_image_prompts, validates_on_test_images
from .evaluation.prediction import Prediction, Scores
from .evidence import Opinion, conflict, dempster, fitted_reliability, trusted_cross_entropy, usual_reliability
from .losses import consistency_loss
from .prompting.backbone import Backbone
from .prompting.prompts import FixedTokens, Prompts, gaussian, initial_context
from .settings import add_encoder_settings, add_run_settings

log = logging.getLogger(__name__)

MODALITIES = ("dual", "text")
FUSIONS = ("dempster", "mean_probability", "sum_logits")
RELIABILITIES = ("fitted", "independent")
LOSSES = ("evidential", "cross_entropy")
OFFSET_IMAGES = 1024  # training images that the evidence offset is initialised from, at most


def add_cdc_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.CDC``; a toolbox that hosts CDC calls this in its ``extend_cfg``."""
    add_run_settings(cfg)
    cfg.TRAINER.CDC = node = CfgNode()
    node.N_TEMPLATES = 4  # M
    node.N_CTX = 2  # context tokens a template (4 is usual with PROMPT_MODALITY text)
    node.CTX_INIT = ["a photo of a", "a picture of a", "an image of a", "a view of a"]  # one a template, Gaussian beyond
    node.PROMPT_MODALITY = "dual"  # prompts in both encoders (ViT only), or in the text encoder only
    node.PROMPT_DEPTH = 9  # layers of each prompted encoder that get their own prompts, the first included
    node.HAND_CRAFTED = ""  # t^0, with {} for the class name; empty: the data set's own
    node.AUGMENTATION = 1  # 1 | 2 | None: the same view for all templates
    node.EVIDENCE_START = 1.0  # c: zero-shot evidence starts at about c nats above one per class
    node.FUSION = "dempster"  # dempster | mean_probability | sum_logits: these two have no fused loss
    node.RELIABILITY = "fitted"  # of the fused templates: fitted on validation images | independent: Dempster's rule as it is
    node.LOSS = "evidential"  # evidential | cross_entropy
    node.DECOUPLING_WEIGHT = 1.0  # β
    node.CONSISTENCY_WEIGHT = 8.0  # γ, of text features
    node.IMAGE_CONSISTENCY_WEIGHT = 0.0  # γ_v, of image features; with PROMPT_MODALITY dual only
    add_encoder_settings(node)


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

    def __init__(self, settings: CfgNode, classnames: Sequence[str], backbone: Backbone) -> None:
        super().__init__()
        templates, n_ctx, text = settings.N_TEMPLATES, settings.N_CTX, backbone.text
        phrases = list(settings.CTX_INIT)[:templates]
        starts = [initial_context(text, n_ctx, phrase) for phrase in phrases + [""] * (templates - len(phrases))]
        self.ctx = nn.Parameter(torch.stack([context for context, _ in starts]))  # (M, n, D)
        # drawn in MaPLe's order, and like there all deep maps start alike: one template is MaPLe from the same seed on
        dual, depth = settings.PROMPT_MODALITY == "dual", settings.PROMPT_DEPTH
        maps = [TemplateLinear(templates, text.width, backbone.vision_transformer.width)] if dual else []
        self.deep_ctx = nn.ParameterList(gaussian(templates, n_ctx, text.width) for _ in range(depth - 1))
        if dual:
            deep_map = TemplateLinear(templates, text.width, backbone.vision_transformer.width)
            maps += [copy.deepcopy(deep_map) for _ in range(depth - 1)]
        self.visual_maps = nn.ModuleList(maps)
        # b^m = offset + shift^m, so that weight decay draws the learned part to the start and not to zero
        self.register_buffer("offset", torch.zeros(()))
        self.offset_shift = nn.Parameter(torch.zeros(templates))
        self.classes = len(classnames)
        self.register_buffer("trained_classes", torch.tensor(self.classes))  # K of the list that the offset is for
        self.register_buffer("reliability", torch.tensor(usual_reliability(templates)))  # ω, until it is fitted

        # the fixed words behind the contexts may differ in number
        self.tokens = FixedTokens(text, classnames, n_ctx, [words for _, words in starts])

    def forward(self) -> Prompts:
        visual = [project(layer) for project, layer in zip(self.visual_maps, [self.ctx, *self.deep_ctx])]  # (M, n, D_v) each
        return self.tokens(self.ctx, deep_text=list(self.deep_ctx), visual=visual[0] if visual else None, deep_visual=visual[1:])

    def evidence_offset(self) -> Tensor:
        """b^m, shaped (M, 1, 1) to go with logits of the classes that are asked for.

        The offset holds −log K of the training list; another list has that of its own K. Then e_k / K = exp(l_k − b − log K), of which
        belief and vacuity are made, depends on the image and the class alone, and the vacuity 1 / (1 + Σ_k e_k / K) changes with the
        list only by what its further classes get as evidence.
        """
        of_list = (self.trained_classes / self.classes).log()  # 0 for the training list
        return (self.offset + self.offset_shift + of_list)[:, None, None]


class TemplateLinear(nn.Module):
    """A linear map of its own for each template, (M, n, D) → (M, n, D_v); initialised as ``nn.Linear``."""

    def __init__(self, templates: int, width: int, out_width: int) -> None:
        super().__init__()
        maps = [nn.Linear(width, out_width) for _ in range(templates)]
        self.weight = nn.Parameter(torch.stack([linear.weight.detach() for linear in maps]))  # (M, D_v, D)
        self.bias = nn.Parameter(torch.stack([linear.bias.detach() for linear in maps]))  # (M, D_v)

    def forward(self, prompts: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], prompts, self.weight.transpose(1, 2))


def decoupling_loss(text_features: Tensor) -> Tensor:
    """L_de: mean cosine between templates m < n over all classes, from normalised features (M, K, E); 0 for M = 1."""
    pairs = list(combinations(range(len(text_features)), 2))
    if not pairs:
        return text_features.new_zeros(())
    first, second = torch.tensor(pairs, device=text_features.device).T
    return (text_features[first] * text_features[second]).sum(dim=-1).mean()


@TRAINER_REGISTRY.register()
class CDC(PromptTrainer):
    """Semantic-decoupled prompts with evidential fusion."""
    small = {"PROMPT_DEPTH": 2}
    text_only = {"PROMPT_MODALITY": "text"}
    prompt_learner: DecoupledPrompts

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        for key, choices in (("PROMPT_MODALITY", MODALITIES), ("AUGMENTATION", AUGMENTATIONS), ("FUSION", FUSIONS),
                             ("RELIABILITY", RELIABILITIES), ("LOSS", LOSSES)):
            check_choice(f"TRAINER.CDC.{key}", node[key], choices)
        check_at_least(1, "TRAINER.CDC", node, "N_TEMPLATES", "N_CTX", "PROMPT_DEPTH")
        check_at_least(0, "TRAINER.CDC", node, "DECOUPLING_WEIGHT", "CONSISTENCY_WEIGHT", "IMAGE_CONSISTENCY_WEIGHT")
        if node.HAND_CRAFTED and not (node.HAND_CRAFTED.count("{}") == node.HAND_CRAFTED.count("{") == node.HAND_CRAFTED.count("}") == 1):
            raise UserError(f"TRAINER.CDC.HAND_CRAFTED is {node.HAND_CRAFTED!r}, it needs {{}} once, where the class name goes")
        if node.IMAGE_CONSISTENCY_WEIGHT and node.PROMPT_MODALITY == "text":
            raise UserError("TRAINER.CDC.IMAGE_CONSISTENCY_WEIGHT keeps prompted image features near CLIP's own, and PROMPT_MODALITY text leaves "
                            "them as they are: set it to 0")

    @cached_property
    def training_views(self) -> PictureViews:
        if self.settings.AUGMENTATION is None:
            return super().training_views
        return PictureViews(template_views(self.cfg, self.settings.N_TEMPLATES, self.settings.AUGMENTATION))

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
        if self.start_epoch == 0:
            self.prompt_learner.offset.copy_(self.initial_offset())

    @torch.no_grad()
    def initial_offset(self) -> Tensor:
        """b = mean over training images of logsumexp_k l_k − log K − c, l being zero-shot logits: evidence in a useful range."""
        images = self.dm.dataset.train_x
        images = images[::-(-len(images) // OFFSET_IMAGES)]
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed; training must not depend on this pass
            loader = build_data_loader(self.cfg, data_source=images, batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE, is_train=False,
                                       tfm=build_transform(self.cfg, is_train=False), dataset_wrapper=CheckedImages)
            logits, _ = self.logits_of(divide_loading(loader), "train", self.hand_crafted[None], None)  # (1, N, K)
        return logits.logsumexp(dim=-1).mean() - math.log(self.num_classes) - self.settings.EVIDENCE_START

    def logits_of(self, loader: DataLoader[Any], split: str, text_features: Tensor, prompts: Prompts | None) -> tuple[Tensor, Tensor]:
        """Logits (M, N, K) and labels (N,) of a split's N images as they are tested, under text features (M, K, E) and the prompts."""
        found = []
        for batch in self.skipped.readable(iter(loader), split):
            self.stop_if_asked()
            images, labels = self.parse_batch_test(batch)
            with self.precision.autocast():
                found.append((self.logits(self.encode_images(images, prompts), text_features), labels))
        logits, every_label = zip(*found)
        return torch.cat(logits, dim=1), torch.cat(every_label)

    @torch.no_grad()
    def complete_prompts(self) -> bool:
        """Fits the templates' reliability on validation images; without any of its own the run keeps ``usual_reliability``."""
        node = self.settings
        if self.val_loader is None or validates_on_test_images(self.dm.dataset) or (node.FUSION, node.RELIABILITY) != ("dempster", "fitted"):
            return False
        self.set_model_mode("eval")
        with torch.random.fork_rng(devices=[]):
            with self.precision.autocast():
                prompts = self.prompt_learner()
                text_features = self.encode_texts(prompts)  # (M, K, E)
            logits, labels = self.logits_of(self.val_loader, "val", text_features, prompts)  # (M, N, K), (N,)
        self.prompt_learner.reliability.fill_(fitted_reliability(self.log_evidence(logits), labels))
        log.info("Reliability of each template, fitted on %d validation images: %.3f", len(labels), self.reliability)
        return True

    def learned_figures(self) -> dict[str, float]:
        return {"reliability": float(self.reliability)}

    @property
    def reliability(self) -> Tensor | float:
        """ω of ``dempster`` for test images."""
        return 1.0 if self.settings.RELIABILITY == "independent" else self.prompt_learner.reliability

    def load_prompts(self, state: State, folder: str) -> None:
        """Prompts saved before offsets were told from the training list's K, and reliabilities fitted, are of independent templates."""
        state["state_dict"].setdefault("trained_classes", torch.tensor(len(state["classnames"])))
        state["state_dict"].setdefault("reliability", torch.tensor(1.0))
        super().load_prompts(state, folder)

    def log_evidence(self, logits: Tensor) -> Tensor:
        """log e^m = l^m − b^m in fp32, (M, B, K)."""
        return logits.float() - self.prompt_learner.evidence_offset()

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """L = L_t-ce + β L_de + γ L_con + γ_v L_con-image.

        L_t-ce sums over the templates' opinions and, where FUSION is of opinions, the one that Dempster's rule makes of them (ω = 1: in
        training each template sees a view of its own). With LOSS cross_entropy the votes' term is the sum of the templates'
        cross-entropies. L_con-image compares each template's features of its view with those of the image encoder without prompts.
        """
        node, logits = self.settings, scores.logits
        every_label = labels.expand(len(logits), -1)  # (M, B)
        if node.LOSS == "cross_entropy":
            votes = F.cross_entropy(logits.transpose(1, 2), every_label, reduction="none").mean(dim=1).sum()
        else:
            evidence = self.log_evidence(logits)
            votes = trusted_cross_entropy(Opinion(evidence), every_label).mean(dim=-1).sum()
            if node.FUSION == "dempster":
                votes = votes + trusted_cross_entropy(dempster(evidence), labels).mean()
        apart, near = decoupling_loss(scores.text_features), consistency_loss(scores.text_features, self.hand_crafted)
        total = votes + node.DECOUPLING_WEIGHT * apart + node.CONSISTENCY_WEIGHT * near
        figures = {"loss_votes": votes.item(), "loss_de": apart.item(), "loss_con": near.item()}
        if node.IMAGE_CONSISTENCY_WEIGHT:
            images_near = consistency_loss(scores.image_features, self.unprompted_images(scores.images))
            total = total + node.IMAGE_CONSISTENCY_WEIGHT * images_near
            figures["loss_con_image"] = images_near.item()
        return total, figures

    def predict(self, logits: Tensor) -> Prediction:
        node, evidence = self.settings, self.log_evidence(logits)  # (M, B, K)
        opinion = dempster(evidence, self.reliability)
        votes = Opinion(evidence).probability if node.LOSS == "evidential" else logits.softmax(dim=-1)
        if node.FUSION == "mean_probability":
            probability = votes.mean(dim=0)
        elif node.FUSION == "sum_logits":
            probability = logits.sum(dim=0).softmax(dim=-1)
        else:
            probability = opinion.probability
        if node.LOSS != "evidential":
            return Prediction(probability, votes)
        return Prediction(probability, votes, opinion.vacuity, conflict(evidence, dempster(evidence)))
