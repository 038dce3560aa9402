"""PromptTrainer: what every prompt-learning method shares, so that its own file holds only what it adds.

A method derives from ``PromptTrainer``, names its config node by its own registered name in capitals, and overrides

- ``build_prompt_learner``: the module with the learnable parts; called without arguments it returns ``Prompts``,
- ``parameter_groups``, where its parameters have settings of their own in the optimiser,
- ``loss`` (default: cross-entropy) and ``predict`` (default: softmax), for methods that have their own,
- ``scores``, where texts depend on the image, and ``training_state``, where training has a memory beyond the prompts,
- ``training_views``, where a training image is shown in more than one view.

``training.py`` holds the epochs, ``evaluation/testing.py`` the evaluation, ``engine/saved_prompts.py`` what is saved and how a run resumes.
"""

import copy
import logging
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from dassl.optim import build_optimizer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from yacs.config import CfgNode

from . import distributed
from .common.errors import UserError
from .common.fingerprints import tensor_hash
from .common.messages import show_messages
from .descriptions import path_of, read_descriptions
from .engine.checks import check_at_least, check_pixels, check_run
from .engine.failed_batch import stopped_by_loss
from .engine.precision import Precision, check_precision
from .engine.saved_prompts import MODEL_NAME
from .engine.schedule import build_schedule
from .evaluation.prediction import Prediction, Scores
from .evaluation.testing import Encoded
from .prompting.backbone import Backbone, load_backbone
from .prompting.prompts import Prompts
from .templates import hand_crafted_template
from .training import Training

log = logging.getLogger(__name__)


class PromptTrainer(Training):
    """Trains prompts for a frozen CLIP: build, precision, schedule, checkpoints, evaluation, run record.

    Args:
        cfg: the run's config.
        classnames: K names to build the model for; it can then answer, but has no data to train or be tested on. None: loads the config's
            data set and takes its names.

    Attributes:
        learns: whether there is anything to train.
        stays_fp32: whether PREC fp16 is fp32, as in the method's official code.
        fp32_teacher: whether the frozen CLIP that prompts are compared with is fp32 under PREC fp16 too, as officially.
        small: settings that the tests common to all trainers set in the node; their CLIP has three image layers.
        text_only: settings under which the image encoder is not prompted, so that any backbone serves; None: it always is.
        shape_setting: a whole number of the node that the prompts' shape follows from; None: it follows from the data alone.
    """

    learns = True
    stays_fp32 = False
    fp32_teacher = False
    small: ClassVar[dict[str, Any]] = {}
    text_only: ClassVar[dict[str, Any] | None] = {}
    shape_setting: str | None = "N_CTX"

    def __init__(self, cfg: CfgNode, classnames: Sequence[str] | None = None) -> None:
        self.given_classnames = classnames
        if classnames is None:
            show_messages()
        super().__init__(cfg)

    # ---- what a method overrides ----

    def build_prompt_learner(self, backbone: Backbone) -> nn.Module | None:
        """The learnable ``nn.Module``, or None where nothing is learned. ``hand_crafted`` can be used here.

        Its attribute ``class_parameters``, if any, names the parameters and modules that serve only the classes they were trained for;
        loaded for other classes they are None, see ``take_prompts``.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]] | None:
        """Groups with ``params`` and settings of their own, such as ``lr``, as torch's optimisers take them; None: all parameters alike."""
        return None

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of a training batch.

        Args:
            scores: ``Scores`` of B images, labels: (B,).

        Returns:
            scalar tensor, dict of further figures for the log.
        """
        return F.cross_entropy(scores.logits[0], labels), {}

    def predict(self, logits: Tensor) -> Prediction:
        """``Prediction`` from (M, B, K) fp32 logits of test images."""
        return Prediction(logits[0].softmax(dim=-1))

    def hand_crafted_template(self) -> str:
        """The prompt with ``{}`` for the class name that ``hand_crafted`` encodes."""
        return hand_crafted_template(self.cfg.DATASET.NAME)

    def encode_prompts(self) -> Encoded | None:
        """What is the same for all images: text features (M, K, E) and the prompts (None where nothing is learned)."""
        prompts = self.prompt_learner()
        return self.encode_texts(prompts), prompts

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``Scores`` of images (V, B, 3, H, W), or of their features. ``encoded``: from ``encode_prompts``, if already called."""
        encoded = encoded or self.encode_prompts()
        assert encoded is not None  # where it is None, a method has scores of its own
        text_features, prompts = encoded
        image_features = self.encode_images(images, prompts)
        return Scores(
            self.logits(image_features, text_features), image_features, text_features, images
        )

    def complete_prompts(self) -> bool:
        """Sets what a method learns from validation images after training; returns whether the prompts must be saved again."""
        return False

    def learned_figures(self) -> dict[str, float]:
        """Figures of the learned prompts by name, for the run record."""
        return {}

    def training_state(self) -> dict[str, Any]:
        """What a method's training remembers beyond the prompts, for the checkpoint: tensors, numbers, dicts and lists of them."""
        return {}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``training_state`` gave."""

    # ---- the two towers of the frozen CLIP; features are fp32, normalised unless stated otherwise; each process encodes its share ----

    @cached_property
    def hand_crafted(self) -> Tensor:
        """Features (K, E) of the hand-crafted prompt of each class, with its descriptions if there are any; encoded once a run."""
        with torch.no_grad(), self.precision.autocast():
            features = self.encode_classes(self.hand_crafted_template())
            return (
                F.normalize(self.with_descriptions(features), dim=-1)
                if path_of(self.cfg)
                else features
            )

    def with_descriptions(self, features: Tensor, normalize: bool = True) -> Tensor:
        """Adds to the features (K, E) of hand-crafted prompts those of each class's sentences in ``DATASET.DESCRIPTIONS``, if that is set.

        Raises:
            UserError: see ``read_descriptions``.
        """
        if not path_of(self.cfg):
            return features
        sentences = read_descriptions(path_of(self.cfg), self.classnames)
        return features + distributed.divided(
            lambda own: self.teacher.encode_sentences(sentences[own], normalize),
            len(sentences),
            dim=0,
        )

    def encode_classes(self, template: str, normalize: bool = True) -> Tensor:
        """Features (K, E) of the classes in a hand-crafted prompt with ``{}`` for the name."""
        names = self.classnames
        return distributed.divided(
            lambda own: self.teacher.encode_classes(template, names[own], normalize=normalize),
            len(names),
            dim=0,
        )

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        """Features (M, K, E) of the classes under prompts, ``TEXT_CHUNK`` classes at a time, which the backward pass encodes again."""
        assert prompts.suffix is not None  # as it is for prompts of the image encoder alone
        text, chunk = self.backbone.text, self.settings.TEXT_CHUNK

        def encode(own: slice) -> Tensor:
            if chunk == 0:
                features = text(*prompts.texts(own))
            else:
                parts = [
                    slice(first, min(first + chunk, own.stop))
                    for first in range(own.start, own.stop, chunk)
                ]
                features = torch.cat(
                    [recomputed(text, *prompts.texts(part), use_reentrant=False) for part in parts],
                    dim=1,
                )
            return F.normalize(features.float(), dim=-1) if normalize else features.float()

        return distributed.divided(encode, prompts.suffix.shape[1])

    @property
    def teacher(self) -> Backbone:
        """The frozen CLIP of the hand-crafted prompts: the run's, or one in fp32, see ``fp32_teacher``."""
        return self.fp32_backbone or self.backbone

    def encode_images(
        self,
        images: Tensor,
        prompts: Prompts | None = None,
        backbone: Backbone | None = None,
        normalize: bool = True,
    ) -> Tensor:
        """Features (M, B, E) of images (V, B, 3, H, W); (V, B, E) where the image encoder is not prompted; see ``ImageEncoder``.

        Cached features (V, B, E) given in place of images are returned as they are.

        Raises:
            ValueError: features are given without ``normalize``: they are stored at length one.
        """
        if images.dim() == 3:
            if not normalize:
                raise ValueError(
                    f"{type(self).__name__} reads the lengths of features, which kept ones have not: give it images"
                )
            return images
        tower, prompts = (backbone or self.backbone).image, prompts or Prompts()

        def encode(own: slice) -> Tensor:
            features = tower(images[:, own], *prompts.images()).float()
            return F.normalize(features, dim=-1) if normalize else features

        return distributed.divided(encode, images.shape[1])

    @torch.no_grad()
    def unprompted_images(self, images: Tensor, backbone: Backbone | None = None) -> Tensor:
        """CLIP's features (V, B, E) of images (V, B, 3, H, W) without prompts, as references for regularisers; no gradient."""
        with self.precision.autocast():
            return self.encode_images(images, backbone=backbone)

    def unprompted(self, scores: Scores) -> Tensor:
        """``unprompted_images`` of the images of ``scores``, (V, B, E), encoded once for all losses that compare with them."""
        if scores.unprompted is None:
            scores.unprompted = self.unprompted_images(scores.images)
        return scores.unprompted

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """τ · cos, (M or 1, B, E) and (M, K, E) → (M, B, K), always in fp32."""
        with torch.autocast(self.device.type, enabled=False):
            return self.backbone.logit_scale * image_features @ text_features.transpose(1, 2)

    # ---- build ----

    @classmethod
    def node(cls, cfg: CfgNode) -> CfgNode:
        """The method's own config node, ``cfg.TRAINER.<NAME>``.

        Raises:
            UserError: it is not declared.
        """
        name = cls.__name__
        if name.upper() not in cfg.TRAINER:
            raise UserError(
                f"cfg.TRAINER.{name.upper()} is not declared: call add_{name.lower()}_config(cfg) in extend_cfg"
            )
        return cfg.TRAINER[name.upper()]

    @property
    def settings(self) -> CfgNode:
        return self.node(self.cfg)

    @property
    def path(self) -> str:
        """The node's name for messages, ``TRAINER.<NAME>``."""
        return f"TRAINER.{type(self).__name__.upper()}"

    def check_cfg(self, cfg: CfgNode) -> None:
        check_precision(self.node(cfg).PREC)
        if "TEXT_CHUNK" in self.node(cfg):
            check_at_least(0, self.path, self.node(cfg), "TEXT_CHUNK")
        check_run(cfg)

    def build_model(self) -> None:
        cfg = self.cfg
        self.precision = Precision(self.settings.PREC, self.device)
        if self.stays_fp32 and self.precision.name == "fp16":
            log.info(
                "PREC fp16: %s computes in fp32, as its official code does", type(self).__name__
            )
            self.precision = Precision("fp32", self.device)
        backbone = load_backbone(cfg.MODEL.BACKBONE.NAME)
        if cfg.MODEL.BACKBONE.get(
            "INTERPOLATE_POSITIONS", False
        ):  # another toolbox's config may not have it
            backbone.image.interpolate_positions(cfg.INPUT.SIZE[0])
        check_pixels(cfg, backbone)
        self.backbone_hash = tensor_hash(backbone.signature())
        backbone.to(self.device)
        self.fp32_backbone = (
            copy.deepcopy(backbone) if self.fp32_teacher and self.precision.name == "fp16" else None
        )
        self.precision.convert(backbone)
        self.backbone = backbone
        self.prompt_learner = self.build_prompt_learner(backbone)
        self.metrics, self.seconds = {}, {"train": 0.0, "test": 0.0}
        self.step_seconds = []  # of each training step since this process started, without waiting for its batch
        self.answer_rates = []  # images per second of each batch of the last class list that was tested, without loading and texts
        self.is_training = False
        if self.prompt_learner is not None:
            self.prompt_learner.to(self.device)
            self.optim = build_optimizer(self.prompt_learner, cfg.OPTIM, self.parameter_groups())
            self.sched = build_schedule(self.optim, cfg.OPTIM)
            self.register_model(MODEL_NAME, self.prompt_learner, self.optim, self.sched)
        log.info(
            "%s: %s learnable parameters, %s in all",
            type(self).__name__,
            *map("{:,}".format, self.count_parameters()),
        )

    def count_parameters(self) -> tuple[int, int]:
        """Numbers of learnable parameters and of all, the backbone's included."""
        learnable = (
            0
            if self.prompt_learner is None
            else sum(p.numel() for p in self.prompt_learner.parameters() if p.requires_grad)
        )
        return learnable, learnable + sum(p.numel() for p in self.backbone.parameters())

    # ---- training ----

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        started = time.perf_counter()
        self.batch_idx = batch.get(
            "batch_idx", self.batch_idx
        )  # Dassl's loop counts the batches that it gets, not those done before it resumed
        self.skipped.note(batch, "train")
        images, labels = self.parse_batch_train(batch)
        with self.precision.autocast():
            scores = self.scores(images)
        loss, figures = self.loss(scores, labels)
        if not torch.isfinite(loss):
            raise stopped_by_loss(self, batch, images, labels, loss.item(), figures)
        self.precision.step(loss, self.optim)
        with torch.no_grad():
            right = self.predict(scores.logits).probability.argmax(dim=1) == labels
        figures = {
            "loss": loss.item(),
            "acc": 100 * right.float().mean().item(),
            **figures,
        }  # waits for a GPU to be done
        self.step_seconds.append(time.perf_counter() - started)
        self.progress.update()
        if self.is_training and distributed.is_first():
            self.note_metrics(figures)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return figures
