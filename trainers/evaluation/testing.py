"""Tests a method on the images of a split, and leaves the record of its run."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from .open_world import open_world, signs_of_new
from .prediction import Metrics, Prediction, measure, per_image
from .run_record import write_predictions, write_record

if TYPE_CHECKING:
    from dassl.data.datasets import DatasetBase

    from ..method import Method

log = logging.getLogger(__name__)
Answered = tuple[Prediction, Tensor, list[str]]  # of a batch: answers, labels (B,), paths


class Evaluator:
    """Tests a method, keeps its answers, and writes ``results.json``.

    Args:
        cfg: the run's config; dataset: what it trains and is tested on.
        method: what is tested.
        seconds: what the training has taken; 0 where nothing was trained.
        step_seconds: what each of its steps took.

    Attributes:
        run: what is known of the run beyond its config, for its record.
    """

    def __init__(
        self,
        cfg: CfgNode,
        dataset: "DatasetBase",
        method: "Method",
        seconds: float = 0.0,
        step_seconds: Sequence[float] = (),
    ) -> None:
        self.cfg, self.dataset, self.method = cfg, dataset, method
        self.seconds = {"train": seconds, "test": 0.0}
        self.step_seconds = step_seconds
        self.run: Mapping[str, Any] = {}
        self.metrics: dict[str, Metrics] = {}
        self.rates: list[float] = []  # images per second of the last test's batches

    @property
    def is_open(self) -> bool:
        """Whether base and new classes are asked for together."""
        return bool(self.cfg.TEST.get("OPEN", False))  # another toolbox's config may not have it

    @property
    def base_classes(self) -> int:
        return math.ceil(len(self.method.classnames) / 2)

    def answers(self, loader: DataLoader[Any], split: str) -> Iterator[Answered]:
        """Yields the prediction for each batch, its labels and its paths; text is encoded once.

        Raises:
            UserError: an answer is no number.
        """
        method, device = self.method, self.method.device
        self.rates = []
        with torch.no_grad(), method.autocast():
            encoded = method.encode()
        title = f"{self.cfg.TRAINER.NAME}, {split}"
        for batch in tqdm(loader, desc=title, mininterval=1, dynamic_ncols=True):
            images, labels = batch["img"].to(device)[None], batch["label"].to(device)
            started = time.perf_counter()
            with torch.no_grad():
                answer = method.answer(images, encoded)
            answer.check_finite()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self.rates.append(len(labels) / (time.perf_counter() - started))
            yield answer, labels, batch["impath"]

    def keep(
        self,
        loader: DataLoader[Any],
        split: str,
        process: Callable[[Tensor, Tensor], object] = lambda probability, labels: None,
    ) -> tuple[Prediction, Tensor]:
        """Writes the prediction for every image of a split; returns it, and the labels (N,).

        process: called with the probabilities (B, K) and labels (B,) of each batch.
        """
        kept = []
        for answer, labels, paths in self.answers(loader, split):
            process(answer.probability, labels)
            kept.append((answer.cpu(), labels.cpu(), paths))
        answers = Prediction.concatenate([answer for answer, _, _ in kept])
        labels = torch.cat([label for _, label, _ in kept])
        names = [path for _, _, paths in kept for path in paths]
        arrays = per_image(answers, labels, names)
        if self.is_open:
            signs = signs_of_new(answers, self.base_classes)
            arrays.update({name: sign.numpy() for name, sign in signs.items()})
        write_predictions(self.cfg.OUTPUT_DIR, split, arrays)
        return answers, labels

    def test(
        self,
        loader: DataLoader[Any],
        split: str,
        process: Callable[[Tensor, Tensor], object] = lambda probability, labels: None,
    ) -> None:
        """Measures the answers to a split; see ``keep``."""
        started = time.monotonic()
        answers, labels = self.keep(loader, split, process)
        classnames = self.method.classnames
        self.metrics[split] = measure(answers, labels, classnames)
        if self.is_open:
            left_out = list(self.method.left_out)
            figures = {**open_world(answers, labels, self.base_classes), "left_out": left_out}
            self.metrics[split]["open"] = figures
            log.info(
                "Among all classes: %.1f %% of the base and %.1f %% of the new classes' images are "
                "right",
                figures["base_accuracy"],
                figures["new_accuracy"],
            )
            if left_out:
                log.warning(
                    "%s answers all classes together without its %s, which serves the base classes "
                    "alone: that accuracy is of the rest of it",
                    self.cfg.TRAINER.NAME,
                    ", ".join(left_out),
                )
        self.seconds["test"] += time.monotonic() - started

    def write_record(self) -> None:
        """Writes ``results.json``: the run is done."""
        method = self.method
        learnable, total = method.count_parameters()
        write_record(
            self.cfg.OUTPUT_DIR,
            self.cfg,
            self.dataset,
            self.metrics,
            self.run,
            classnames=method.classnames,
            parameters={"learnable": learnable, "total": total},
            prompts_hash=method.prompts_hash(),
            backbone_hash=method.backbone_hash,
            seconds={name: round(value, 2) for name, value in self.seconds.items()},
            seconds_per_step=median(self.step_seconds, 6),
            test_images_per_second=median(self.rates, 2),
            device=str(method.device),
            precision=method.precision,
            skipped_images=getattr(self.dataset, "broken", {}),
            learned=method.learned_figures(),
        )


def median(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.median(values), digits) if values else None
