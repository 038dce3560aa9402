"""PromptTrainer: what every prompt-learning method shares, so that its own file holds only what it adds.

A method derives from ``PromptTrainer``, names its config node by its own registered name in capitals, and overrides

- ``build_prompt_learner``: the module with the learnable parts; called without arguments it returns ``Prompts``,
- ``loss`` (default: cross-entropy) and ``predict`` (default: softmax), for methods that have their own,
- ``scores``, where texts depend on the image, and ``training_state``, where training has a memory beyond the prompts.

How it is evaluated stands in ``evaluation.py``, what is saved of it and how it resumes in ``saved_prompts.py``.
"""
import contextlib
import copy
import logging
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from dassl.data import DataManager
from dassl.data.transforms import build_transform
from dassl.optim import build_optimizer
from dassl.utils import MetricMeter
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from tqdm import tqdm
from yacs.config import CfgNode

from . import distributed
from .common.errors import UserError
from .common.fingerprints import data_name, split_hash, tensor_hash
from .common.interruption import at_once
from .common.messages import show_messages
from .common.metrics import start_metrics, write_metrics
from .common.record_file import remove_record
from .data.loader import WORKERS, CheckedImages, SkippedImages, divide_loading, worth_starting
from .data.views import PictureViews
from .engine.checks import check_at_least, check_data, check_pixels, check_run
from .engine.failed_batch import stopped_by_loss
from .engine.precision import Precision, check_precision
from .engine.resumable import TrainingLoader, begin_worker
from .engine.saved_prompts import MODEL_NAME
from .engine.schedule import build_schedule
from .evaluation.prediction import Prediction, Scores
from .evaluation.testing import Encoded, Evaluation
from .prompting.backbone import Backbone, load_backbone
from .prompting.prompts import Prompts
from .templates import hand_crafted_template

log = logging.getLogger(__name__)


class PromptTrainer(Evaluation):
    """Trains prompts for a frozen CLIP: build, precision, schedule, checkpoints, evaluation, run record.

    Args:
        cfg: the run's config.
        classnames: K names to build the model for. It can then answer, but has no data to train or be tested on. Without: those of the
            config's data set, which is loaded.

    Attributes:
        learns: whether there is anything to train.
        stays_fp32: whether PREC fp16 is fp32, as in the method's official code.
        fp32_teacher: whether the frozen CLIP that the prompts are compared with is in fp32 under PREC fp16 too, as there.
        small: settings of the node, over its defaults, for the tests that are generated for every trainer: their CLIP has three image layers.
        text_only: settings under which the image encoder is not prompted, so that any backbone serves; None: it always is.
        shape_setting: a whole number of the node that the prompts' shape follows from.
    """
    learns = True
    stays_fp32 = False
    fp32_teacher = False
    small: ClassVar[dict[str, Any]] = {}
    text_only: ClassVar[dict[str, Any] | None] = {}
    shape_setting = "N_CTX"
    progress: "tqdm[Any]"
    starting: contextlib.ExitStack
    first_batch = 0  # of the epoch that is being trained: more where it goes on from a checkpoint in its middle

    def __init__(self, cfg: CfgNode, classnames: Sequence[str] | None = None) -> None:
        self.given_classnames = classnames
        if classnames is None:
            show_messages()
        super().__init__(cfg)

    # ---- what a method overrides ----

    def build_prompt_learner(self, backbone: Backbone) -> nn.Module | None:
        """The learnable ``nn.Module``, or None where nothing is learned."""
        raise NotImplementedError

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

    @cached_property
    def training_views(self) -> PictureViews:
        """The V views that a training image is shown in: one a template, or one for all."""
        return PictureViews([build_transform(self.cfg, is_train=True)])

    def hand_crafted_template(self) -> str:
        """The prompt with ``{}`` for the class name that ``hand_crafted`` encodes."""
        return hand_crafted_template(self.cfg.DATASET.NAME)

    def encode_prompts(self) -> Encoded | None:
        """What is the same for all images: text features (M, K, E) and the prompts (None where nothing is learned)."""
        prompts = self.prompt_learner()
        return self.encode_texts(prompts), prompts

    def scores(self, images: Tensor) -> Scores:
        """``Scores`` of images (V, B, 3, H, W)."""
        encoded = self.encoded or self.encode_prompts()
        assert encoded is not None  # where it is None, a method has scores of its own
        text_features, prompts = encoded
        image_features = self.encode_images(images, prompts)
        return Scores(self.logits(image_features, text_features), image_features, text_features, images)

    def complete_prompts(self) -> bool:
        """Sets what a method learns from validation images after training; returns whether it did, and the prompts are to be saved again."""
        return False

    def learned_figures(self) -> dict[str, float]:
        """What of the prompts can be said in numbers, by name, for the run record."""
        return {}

    def training_state(self) -> dict[str, Any]:
        """What a method's training remembers beyond the prompts, for the checkpoint: tensors, numbers, dicts and lists of them."""
        return {}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``training_state`` gave."""

    # ---- the frozen CLIP; features are normalised and fp32; of several processes each encodes its share ----

    @cached_property
    def hand_crafted(self) -> Tensor:
        """Features (K, E) of the hand-crafted prompt of each class, encoded once a run."""
        with torch.no_grad(), self.precision.autocast():
            return self.encode_classes(self.hand_crafted_template())

    def encode_classes(self, template: str, normalize: bool = True) -> Tensor:
        """Features (K, E) of the classes in a hand-crafted prompt with ``{}`` for the name."""
        names = self.classnames[distributed.own_share(len(self.classnames))]
        return distributed.gathered(self.teacher.encode_classes(template, names, normalize=normalize), dim=0, total=len(self.classnames))

    def encode_texts(self, prompts: Prompts) -> Tensor:
        """Features (M, K, E) of the classes under prompts, ``TEXT_CHUNK`` classes at a time, which the backward pass encodes again."""
        assert prompts.suffix is not None and prompts.end is not None  # as they are for prompts of the image encoder alone
        classes, chunk = prompts.suffix.shape[1], self.settings.TEXT_CHUNK
        own = distributed.own_share(classes)
        suffix, end = prompts.suffix[:, own], prompts.end[:, own]
        if chunk == 0:
            features = self.backbone.text(prompts.prefix, suffix, end, prompts.deep_text)
        else:
            features = torch.cat([recomputed(self.backbone.text, prompts.prefix, *part, prompts.deep_text, use_reentrant=False)
                                  for part in zip(suffix.split(chunk, dim=1), end.split(chunk, dim=1))], dim=1)
        return distributed.gathered(F.normalize(features.float(), dim=-1), dim=1, total=classes)

    @property
    def teacher(self) -> Backbone:
        """The frozen CLIP of the hand-crafted prompts: the run's, or one in fp32, see ``fp32_teacher``."""
        return self.fp32_backbone or self.backbone

    def encode_images(self, images: Tensor, prompts: Prompts | None = None, backbone: Backbone | None = None) -> Tensor:
        """Features (M, B, E) of images (V, B, 3, H, W); (V, B, E) where the image encoder is not prompted. ``backbone``: another than the run's.

        Of several processes each has its share of the batch's images, as its loaders hand them out.
        """
        visual, deep_visual = (None, ()) if prompts is None else (prompts.visual, prompts.deep_visual)

        def encode() -> Tensor:
            features = F.normalize((backbone or self.backbone).image(images, visual, deep_visual).float(), dim=-1)
            return distributed.gathered(features, dim=1, total=self.batch_images or features.shape[1])
        return encode() if self.image_features is None else self.image_features.of_batch(encode, self.device)

    @torch.no_grad()
    def unprompted_images(self, images: Tensor, backbone: Backbone | None = None) -> Tensor:
        """Features (V, B, E) that CLIP has of images (V, B, 3, H, W) without prompts, which methods keep their own near to; no gradient."""
        with self.precision.autocast():
            return self.encode_images(images, backbone=backbone)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """τ · cos, (M or 1, B, E) and (M, K, E) → (M, B, K), always in fp32."""
        with torch.autocast(self.device.type, enabled=False):
            return self.backbone.logit_scale * image_features @ text_features.transpose(1, 2)

    # ---- build ----

    @classmethod
    def node(cls, cfg: CfgNode) -> CfgNode:
        """The method's own config node, ``cfg.TRAINER.<NAME>``.

        Raises:
            UserError: nobody declared it.
        """
        name = cls.__name__
        if name.upper() not in cfg.TRAINER:
            raise UserError(f"cfg.TRAINER.{name.upper()} is not declared: call add_{name.lower()}_config(cfg) in extend_cfg")
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

    def build_data_loader(self) -> None:
        self.skipped = SkippedImages()
        if self.given_classnames is not None:
            self.classnames = list(self.given_classnames)
            self.num_classes, self.lab2cname = len(self.classnames), dict(enumerate(self.classnames))
            return
        self.dm = dm = DataManager(self.cfg, custom_tfm_train=self.training_views, dataset_wrapper=CheckedImages)
        self.train_loader_x = TrainingLoader(divide_loading(dm.train_loader_x))
        self.train_loader_u = dm.train_loader_u
        self.val_loader = divide_loading(dm.val_loader)
        self.test_loader = divide_loading(dm.test_loader)
        for loader in filter(None, (self.val_loader, self.test_loader)):
            loader.worker_init_fn, loader.num_workers = begin_worker, worth_starting(loader.num_workers)
            loader.multiprocessing_context = WORKERS if loader.num_workers > 0 else None
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.classnames = list(dm.dataset.classnames)
        self.skipped.names.update(getattr(dm.dataset, "broken", {}))
        check_data(self.cfg, dm)
        distributed.check_same("their data", split_hash(dm.dataset))

    def build_model(self) -> None:
        cfg = self.cfg
        self.precision = Precision(self.settings.PREC, self.device)
        if self.stays_fp32 and self.precision.name == "fp16":
            log.info("PREC fp16: %s computes in fp32, as its official code does", type(self).__name__)
            self.precision = Precision("fp32", self.device)
        backbone = load_backbone(cfg.MODEL.BACKBONE.NAME)
        if cfg.MODEL.BACKBONE.get("INTERPOLATE_POSITIONS", False):  # another toolbox's config may not have it
            backbone.image.interpolate_positions(cfg.INPUT.SIZE[0])
        check_pixels(cfg, backbone)
        self.backbone_hash = tensor_hash(backbone.signature())
        self.prompt_learner = self.build_prompt_learner(backbone)
        backbone.to(self.device)
        self.fp32_backbone = copy.deepcopy(backbone) if self.fp32_teacher and self.precision.name == "fp16" else None
        self.precision.convert(backbone)
        self.backbone = backbone
        self.metrics, self.seconds = {}, {"train": 0.0, "test": 0.0}
        self.step_seconds = []  # of each training step since this process began, without the waiting for its batch
        self.answer_rates = []  # images per second of each batch of the last class list that was tested, without loading and texts
        self.is_training = False
        self.encoded = None  # what encode_prompts gave, while a class list is being tested
        self.image_features, self.kept_features = None, {}  # of the list being tested, and of those that were, see TEST.FEATURE_CACHE
        self.batch_images: int | None = None  # B of the batch at hand, of whose images this process has its share
        if self.prompt_learner is not None:
            self.prompt_learner.to(self.device)
            self.optim = build_optimizer(self.prompt_learner, cfg.OPTIM)
            self.sched = build_schedule(self.optim, cfg.OPTIM)
            self.register_model(MODEL_NAME, self.prompt_learner, self.optim, self.sched)
        log.info("%s: %s learnable parameters, %s in all", type(self).__name__, *map("{:,}".format, self.count_parameters()))

    def count_parameters(self) -> tuple[int, int]:
        """Numbers of learnable parameters and of all, the backbone's included."""
        learnable = 0 if self.prompt_learner is None else sum(p.numel() for p in self.prompt_learner.parameters() if p.requires_grad)
        return learnable, learnable + sum(p.numel() for p in self.backbone.parameters())

    # ---- training ----

    @property
    def batch_idx(self) -> int:
        """Number of the batch in its epoch, from 0."""
        return self.first_batch + self.batch_of_loop

    @batch_idx.setter
    def batch_idx(self, number: int) -> None:
        """Dassl's loop counts the batches that it gets."""
        self.batch_of_loop = number

    def train(self) -> None:  # type: ignore[override]  # as SimpleTrainer's
        if self.prompt_learner is None:
            log.info("%s learns nothing: only tested", type(self).__name__)
            remove_record(self.output_dir)
            self.keep_validation_answers()
            self.test()
            return
        self.progress = tqdm(disable=True)  # until the number of steps is known
        self.starting = contextlib.ExitStack()  # until the first step there is nothing to save
        self.starting.enter_context(at_once(distributed.count() == 1))
        try:
            super().train()
        finally:
            self.starting.close()
            self.train_loader_x.close()
            self.progress.close()  # an error's message starts on a line of its own

    def before_train(self) -> None:
        super().before_train()  # resumes, or refuses to
        start = tensor_hash([*self.prompt_learner.state_dict().values(), torch.get_rng_state()])
        distributed.check_same("where they start from", (self.start_epoch, self.first_batch, start))
        remove_record(self.output_dir)
        self.stop_if_asked()
        if distributed.is_first() and self.start_epoch == self.first_batch == 0:
            start_metrics(self.output_dir)
        self.is_training = True
        self.train_started = self.saved_at = time.monotonic()
        self.train_loader_x.after_step = self.after_step
        steps = len(self.train_loader_x)
        name = data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT)
        self.progress = tqdm(total=self.max_epoch * steps, initial=self.start_epoch * steps + self.first_batch, unit="step", mininterval=1,
                             desc=f"{type(self).__name__} on {name}, seed {self.cfg.SEED}", dynamic_ncols=True,
                             disable=not distributed.is_first())

    def init_writer(self, log_dir: str) -> None:
        if distributed.is_first():
            super().init_writer(log_dir)

    def parse_labels(self, batch: dict[str, Any]) -> Tensor:
        """Labels (B,) of a batch; from here on it is the one at hand."""
        self.batch_images = len(batch["label"])
        return batch["label"].to(self.device)

    def run_epoch(self) -> None:
        self.starting.close()
        self.means = MetricMeter()
        super().run_epoch()
        self.first_batch = 0

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images (V, B, 3, H, W) in their views, and labels (B,)."""
        return self.training_views.finish(batch["img"], self.device), self.parse_labels(batch)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return batch["img"].to(self.device)[None], self.parse_labels(batch)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        started = time.perf_counter()
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
        figures = {"loss": loss.item(), "acc": 100 * right.float().mean().item(), **figures}  # waits for a GPU to be done
        self.step_seconds.append(time.perf_counter() - started)
        self.progress.update()
        if self.is_training and distributed.is_first():
            self.note_metrics(figures)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return figures

    def note_metrics(self, figures: dict[str, float]) -> None:
        """Adds a step's figures to the epoch's means, and the means to ``metrics.jsonl`` where a line is due."""
        self.means.update(figures)
        batch = self.batch_idx + 1
        if batch % self.cfg.TRAIN.PRINT_FREQ == 0 or batch == self.num_batches:
            seconds = (time.monotonic() - self.train_started) / len(self.step_seconds)
            left = (self.max_epoch - self.epoch) * self.num_batches - batch
            write_metrics(self.output_dir, {
                "epoch": self.epoch + 1, "epochs": self.max_epoch, "batch": batch, "batches": self.num_batches,
                **{name: meter.avg for name, meter in self.means.meters.items()}, "lr": self.get_current_lr(), "eta": round(seconds * left, 1)})

    def after_train(self) -> None:
        self.is_training = False
        self.progress.close()  # before the bar of the test starts
        self.seconds["train"] += time.monotonic() - self.train_started
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            self.load_model(self.output_dir)  # as Dassl does, but only on its way to the test
        if self.complete_prompts():
            self.save_prompts_again()
        if not self.cfg.TEST.NO_TEST:
            self.keep_validation_answers()
        super().after_train()
        if self.cfg.TEST.NO_TEST:
            self.write_run_record()
