"""How a ``PromptTrainer`` is trained: its data, and what happens before, around and after the steps of Dassl's loop."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from dassl.data import DataManager
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.utils import MetricMeter
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import distributed
from .common.fingerprints import data_name, split_hash, tensor_hash
from .common.interruption import at_once
from .common.metrics import start_metrics, write_metrics
from .common.record_file import remove_record
from .data.loader import WORKERS, CheckedImages, SkippedImages, divide_loading, worth_starting
from .data.views import PictureViews
from .descriptions import path_of, read_descriptions
from .engine.checks import check_data
from .engine.resumable import TrainingLoader, begin_worker
from .evaluation.testing import Evaluation
from .prompting.prompts import Prompts

log = logging.getLogger(__name__)


class Training(Evaluation):
    """The part of ``PromptTrainer`` that loads data and goes from epoch to epoch; ``forward_backward`` makes the steps."""

    progress: "tqdm[Any]"
    starting: contextlib.ExitStack
    # of the other parts of ``PromptTrainer``:
    given_classnames: Sequence[str] | None
    complete_prompts: Callable[[], bool]
    encode_images: Callable[..., Tensor]

    @cached_property
    def training_views(self) -> PictureViews:
        """The V views that a training image is shown in: one a template, or one for all."""
        return PictureViews([build_transform(self.cfg, is_train=True)])

    def build_data_loader(self) -> None:
        self.skipped = SkippedImages()
        if self.given_classnames is not None:
            self.classnames = list(self.given_classnames)
            self.num_classes, self.lab2cname = (
                len(self.classnames),
                dict(enumerate(self.classnames)),
            )
            return
        self.dm = dm = DataManager(
            self.cfg, custom_tfm_train=self.training_views, dataset_wrapper=CheckedImages
        )
        self.train_loader_x = TrainingLoader(divide_loading(dm.train_loader_x))
        self.val_loader = divide_loading(dm.val_loader)
        self.test_loader = divide_loading(dm.test_loader)
        for loader in filter(None, (self.val_loader, self.test_loader)):
            loader.worker_init_fn, loader.num_workers = (
                begin_worker,
                worth_starting(loader.num_workers),
            )
            loader.multiprocessing_context = WORKERS if loader.num_workers > 0 else None
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.classnames = list(dm.dataset.classnames)
        self.skipped.names.update(getattr(dm.dataset, "broken", {}))
        check_data(self.cfg, dm)
        distributed.check_same("their data", split_hash(dm.dataset))

    def training_images(self, most: int | None = None, augmented: bool = False) -> DataLoader[Any]:
        """Loader of the training images in their order, evenly spaced ones where there are more than ``most``, as images are tested, or
        ``augmented`` as they are trained on."""
        images = self.dm.dataset.train_x
        every = 1 if most is None else -(-len(images) // most)
        loader = build_data_loader(
            self.cfg,
            data_source=images[::every],
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            is_train=False,
            tfm=build_transform(self.cfg, is_train=augmented),
            dataset_wrapper=CheckedImages,
        )
        assert isinstance(loader.dataset, CheckedImages)
        loader.dataset.is_train = (
            augmented  # with random draws, which several processes make for each other's images too
        )
        return divide_loading(loader)

    @torch.no_grad()
    def features_of(
        self,
        loader: DataLoader[Any],
        split: str,
        prompts: Prompts | None = None,
        normalize: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Features (M or 1, N, E) and labels (N,) of the N images of a split's loader, under the prompts if any."""
        found = []
        for batch in self.skipped.readable(iter(loader), split):
            self.stop_if_asked()
            images, labels = self.parse_batch_test(batch)
            with self.precision.autocast():
                found.append((self.encode_images(images, prompts, normalize=normalize), labels))
        features, every_label = zip(*found)
        return torch.cat(features, dim=1), torch.cat(every_label)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images (V, B, 3, H, W) in their views, and labels (B,). Of several processes each has its share of the images, see ``in_place``."""
        images, labels = (
            self.training_views.finish(batch["img"], self.device),
            batch["label"].to(self.device),
        )
        return distributed.in_place(images, len(labels)), labels

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The same of test images (1, B, 3, H, W), or of their features (1, B, E)."""
        images, labels = batch["img"].to(self.device)[None], batch["label"].to(self.device)
        return distributed.in_place(images, len(labels)), labels

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
        if path_of(self.cfg):
            read_descriptions(
                path_of(self.cfg), self.classnames
            )  # errors in them are raised before anything is trained
        super().before_train()  # resumes, or refuses to
        done = self.train_loader_x.batches_done
        start = tensor_hash([*self.prompt_learner.state_dict().values(), torch.get_rng_state()])
        distributed.check_same("where they start from", (self.start_epoch, done, start))
        remove_record(self.output_dir)
        self.stop_if_asked()
        if distributed.is_first() and self.start_epoch == done == 0:
            start_metrics(self.output_dir)
        self.is_training = True
        self.train_started = self.saved_at = time.monotonic()
        self.train_loader_x.after_step = self.after_step
        steps = len(self.train_loader_x)
        name = data_name(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT)
        self.progress = tqdm(
            total=self.max_epoch * steps,
            initial=self.start_epoch * steps + done,
            unit="step",
            mininterval=1,
            desc=f"{type(self).__name__} on {name}, seed {self.cfg.SEED}",
            dynamic_ncols=True,
            disable=not distributed.is_first(),
        )

    def init_writer(self, log_dir: str) -> None:
        if distributed.is_first():
            super().init_writer(log_dir)

    def run_epoch(self) -> None:
        self.starting.close()
        self.means = MetricMeter()
        super().run_epoch()

    def note_metrics(self, figures: dict[str, float]) -> None:
        """Adds a step's figures to the epoch's means, and the means to ``metrics.jsonl`` where a line is due."""
        self.means.update(figures)
        batch = self.batch_idx + 1
        if batch % self.cfg.TRAIN.PRINT_FREQ == 0 or batch == self.num_batches:
            seconds = (time.monotonic() - self.train_started) / len(self.step_seconds)
            left = (self.max_epoch - self.epoch) * self.num_batches - batch
            write_metrics(
                self.output_dir,
                {
                    "epoch": self.epoch + 1,
                    "epochs": self.max_epoch,
                    "batch": batch,
                    "batches": self.num_batches,
                    **{name: meter.avg for name, meter in self.means.meters.items()},
                    "lr": self.get_current_lr(),
                    "eta": round(seconds * left, 1),
                },
            )

    def after_train(self) -> None:
        self.is_training = False
        if path_of(self.cfg) and "hand_crafted" not in vars(self):
            log.warning(
                "DATASET.DESCRIPTIONS made no difference: %s holds to no hand-crafted prompts",
                type(self).__name__,
            )
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
