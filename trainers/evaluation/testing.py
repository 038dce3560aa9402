"""How a ``PromptTrainer`` answers, is tested, and leaves the record of its run."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from .. import distributed
from ..common.errors import UserError
from ..data.feature_cache import Features, features_of, file_of
from ..data.loader import CheckedImages, SkippedImages, batches_of
from ..engine.checks import validates_on_test_images
from ..engine.saved_prompts import SavedPrompts
from ..prompting.backbone import Backbone
from ..prompting.prompts import Prompts
from .open_world import NEW_PROBABILITY, open_world
from .prediction import Metrics, Prediction, Scores, measure, per_image
from .run_record import write_predictions, write_record

Answered = tuple[
    Prediction, Tensor, list[str]
]  # of a batch: what is said of it, labels (B,), paths
Encoded = tuple[Tensor, Prompts | None]  # see ``PromptTrainer.encode_prompts``
log = logging.getLogger(__name__)


class Evaluation(SavedPrompts):
    """The part of ``PromptTrainer`` that evaluates; ``scores`` and ``predict`` are the method's."""

    run_description: Mapping[str, Any] = MappingProxyType({})  # for its record, beyond its config

    # of the other parts of ``PromptTrainer``:
    metrics: dict[str, Metrics]
    step_seconds: list[float]
    is_training: bool
    skipped: SkippedImages
    scores: Callable[[Tensor, Encoded | None], Scores]
    predict: Callable[[Tensor], Prediction]
    backbone: Backbone
    settings: CfgNode
    encode_prompts: Callable[[], Encoded | None]
    unprompted_images: Callable[[Tensor], Tensor]
    count_parameters: Callable[[], tuple[int, int]]
    learned_figures: Callable[[], dict[str, float]]

    def model_inference(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of test images (1, B, 3, H, W)."""
        return self.answer(images).probability

    def answer(self, images: Tensor, encoded: Encoded | None = None) -> Prediction:
        """What is said of test images (1, B, 3, H, W), or of their features (1, B, E). ``encoded``: from ``encode_prompts``, if already called."""
        with self.precision.autocast():
            logits = self.scores(images, encoded).logits  # (M, B, K)
        answer = self.predict(logits)
        answer.energy = -logits.logsumexp(dim=-1).mean(dim=0)  # (B,)
        return answer

    def checked_answer(self, images: Tensor, encoded: Encoded | None) -> Prediction:
        """``answer``, which must be finite. An exported model has no such check.

        Raises:
            UserError: it is not finite.
        """
        answer = self.answer(images, encoded)
        if not all(
            bool(value.isfinite().all()) for value in vars(answer).values() if value is not None
        ):
            raise UserError(
                f"{type(self).__name__}'s answers with {self.cfg.MODEL.BACKBONE.NAME!r} are no numbers (NaN or infinite): the weights of "
                "the CLIP or the prompts are broken, get or train them again"
            )
        return answer

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates on ``val`` or ``test``, text encoded once; outside training this ends the run with its record.

        Returns:
            accuracy in percent.
        """
        split = split or self.cfg.TEST.SPLIT
        loader = {"val": self.val_loader, "test": self.test_loader}.get(split)
        if loader is None:
            raise UserError(f"{self.cfg.DATASET.NAME} has no split {split!r} to test on")
        started = time.monotonic()
        self.set_model_mode("eval")
        self.evaluator.reset()
        log.info("Evaluate on the *%s* set", split)
        kept = []
        for answer, label, paths in self.answers(loader, split):
            self.evaluator.process(answer.probability, label)
            if not self.is_training and distributed.is_first():
                kept.append((answer.cpu(), label.cpu(), paths))
        results = distributed.from_first(self.evaluator.evaluate)
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        if kept:
            answers, labels = self.keep(split, kept)
            self.metrics[split] = measure(answers, labels, self.classnames)
            if self.cfg.TEST.get("OPEN", False):  # another toolbox's config may not have it
                found = self.metrics[split]["open"] = open_world(
                    answers, labels, math.ceil(self.num_classes / 2)
                )
                log.info(
                    "Among all classes: %.1f %% of the base and %.1f %% of the new classes' images are right; OpenworldAUC %.1f %%",
                    found["base_accuracy"],
                    found["new_accuracy"],
                    found["openworld_auc"][NEW_PROBABILITY],
                )
            self.seconds["test"] += time.monotonic() - started
            self.write_run_record()
        return list(results.values())[0]

    def answers(self, loader: DataLoader[Any], split: str) -> Iterator[Answered]:
        """Yields ``Prediction``, labels (B,) and paths of each batch; text is encoded once. Fills ``answer_rates`` where images are encoded."""
        self.answer_rates = []
        with self.precision.autocast():
            encoded = self.encode_prompts()
        loader = self.images_or_features(loader, split, None if encoded is None else encoded[1])
        for batch in self.batches(loader, split):
            images, label = self.parse_batch_test(batch)
            started = time.perf_counter()
            answer = self.checked_answer(images, encoded)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if not isinstance(loader.dataset, Features):
                self.answer_rates.append(len(label) / (time.perf_counter() - started))
            yield answer, label, batch["impath"]

    def batches(self, loader: DataLoader[Any], split: str) -> Iterator[dict[str, Any]]:
        """A split's batches without images that can't be read, beside a progress bar; between them the run may be stopped."""
        with tqdm(
            batches_of(iter(loader)),
            desc=f"{type(self).__name__}, {split}",
            total=len(loader),
            mininterval=1,
            dynamic_ncols=True,
            leave=not self.is_training,
            disable=not distributed.is_first(),
        ) as batches:
            for batch in self.skipped.readable(batches, split):
                yield batch
                self.stop_if_asked(self.end_of_epoch)

    def takes_features(self, prompts: Prompts | None) -> bool:
        """Whether features of images without prompts, of length one, can take the images' place."""
        return prompts is None or not prompts.change_images

    def images_or_features(
        self, loader: DataLoader[Any], split: str, prompts: Prompts | None
    ) -> DataLoader[Any]:
        """A split's loader; with ``TEST.FEATURE_CACHE``, and an unchanged image encoder, one of features, which takes its place."""
        folder = self.cfg.TEST.get("FEATURE_CACHE", "")  # another toolbox's config may not have it
        if not folder or not self.takes_features(prompts) or isinstance(loader.dataset, Features):
            return loader
        images = loader.dataset
        assert isinstance(images, CheckedImages)  # as all loaders' are, see ``build_data_loader``
        path = distributed.from_first(
            lambda: file_of(
                folder,
                images,
                loader.batch_size,
                self.backbone.image,
                self.backbone.activation,
                self.precision.name,
                distributed.count(),
            )
        )
        if path is None:
            return loader
        features = DataLoader(
            features_of(path, images, lambda: self.encode_all(loader, split)),
            batch_size=loader.batch_size,
        )
        setattr(self, f"{split}_loader", features)
        return features

    def encode_all(self, loader: DataLoader[Any], split: str) -> tuple[Tensor, Tensor]:
        """Indices (n,) and features (n, E), on the CPU, of those of a split's images that can be read."""
        with torch.random.fork_rng(
            devices=[]
        ):  # a loader draws a seed, and training must not depend on this pass
            found = [
                (batch["index"], self.unprompted_images(self.parse_batch_test(batch)[0])[0].cpu())
                for batch in self.batches(loader, split)
            ]
        indices, features = (torch.cat(part) for part in zip(*found))
        return indices, features

    def keep(self, split: str, batches: Iterable[Answered]) -> tuple[Prediction, Tensor]:
        """Writes what was said of every image of a split; returns it as one ``Prediction``, and the labels (N,)."""
        kept = list(batches)
        answers, labels = (
            Prediction.concatenate([answer for answer, _, _ in kept]),
            torch.cat([label for _, label, _ in kept]),
        )
        write_predictions(
            self.output_dir,
            split,
            per_image(answers, labels, [path for _, _, paths in kept for path in paths]),
        )
        return answers, labels

    @torch.no_grad()
    def keep_validation_answers(self) -> None:
        """Writes ``predictions-val.npz``, which ``predict.py`` takes thresholds from, where val images are not the test's.

        It comes before the test and prints, measures and times nothing: no figure of the run depends on it.
        """
        if (
            self.val_loader is None
            or self.cfg.TEST.SPLIT == "val"
            or validates_on_test_images(self.dm.dataset)
        ):
            return
        self.set_model_mode("eval")
        kept = [
            (answer.cpu(), label.cpu(), paths)
            for answer, label, paths in self.answers(self.val_loader, "val")
            if distributed.is_first()
        ]
        if kept:
            self.keep("val", kept)

    def write_run_record(self) -> None:
        if not distributed.is_first():
            return
        learnable, total = self.count_parameters()
        prompts_hash = (
            None
            if self.prompt_learner is None
            else self.prompts_hash(self.prompt_learner.state_dict())
        )
        write_record(
            self.output_dir,
            self.cfg,
            self.dm.dataset,
            self.metrics,
            self.run_description,
            classnames=self.classnames,
            parameters={"learnable": learnable, "total": total},
            prompts_hash=prompts_hash,
            backbone_hash=self.backbone_hash,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            seconds_per_step=round(statistics.median(self.step_seconds), 6)
            if self.step_seconds
            else None,
            test_images_per_second=round(statistics.median(self.answer_rates), 2)
            if self.answer_rates
            else None,
            device=str(self.device),
            precision=self.precision.name,
            processes=distributed.count(),
            skipped_images=self.skipped.names,
            learned=self.learned_figures(),
        )
