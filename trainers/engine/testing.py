"""Tests a method on the images of a split, and leaves the record of its run."""

import json
import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import numpy
import torch
from tqdm import tqdm
from yacs.config import CfgNode

from ..common.files import file_hash, write_arrays, write_text
from ..common.record_file import (
    FORMAT,
    MULTI_LABEL,
    RECORD_FILE,
    Record,
    answers_file,
    describe,
)
from ..data.images import Images
from ..data.loader import Loader
from ..evaluation.open_world import open_world, signs_of_new
from ..evaluation.prediction import Metrics, Prediction
from ..method import Method
from .run_record import git_commit, gpu_facts, versions
from .scoring import SplitAnswers, scoring_of

log = logging.getLogger(__name__)


class Evaluator:
    """Tests a method, keeps its answers, and writes ``results.json``.

    Args:
        cfg: the run's config; images: its training and test images.
        method: the tested method.

    Attributes:
        seconds: the time of training and of tests.
        step_seconds: the time of each training step.
        run: facts of the run beyond its config, for its record.
        notes: remarks for a reader of its numbers.
    """

    def __init__(self, cfg: CfgNode, images: Images, method: Method) -> None:
        self.cfg = cfg
        self.images = images
        self.method = method
        self.scoring = scoring_of(images, method)
        self.seconds = {"train": 0.0, "test": 0.0}
        self.step_seconds: Sequence[float] = ()
        self.run: Mapping[str, str | int | None] = {}
        self.notes: Sequence[str] = ()
        self.metrics: dict[str, Metrics] = {}
        self.hashes: dict[str, str] = {}  # split → SHA-256 of the file of answers
        self.files: dict[str, str] = {}  # name → SHA-256 of other files of arrays
        self.rates: list[float] = []  # images per second of the last test's batches

    def note_training(self, seconds: float, step_seconds: Sequence[float] = ()) -> None:
        """Note the time of the training so far, and of each of its steps."""
        self.seconds["train"] = seconds
        self.step_seconds = step_seconds

    def note_run(self, run: Mapping[str, str | int | None], notes: Sequence[str]) -> None:
        """Note facts of the run beyond its config, and remarks for a reader of its
        numbers."""
        self.run = run
        self.notes = notes

    @property
    def base_classes(self) -> int:
        """Return the number of base classes where base and new classes are tested together."""
        return math.ceil(len(self.method.classnames) / 2)

    @torch.no_grad()
    def answers(self, loader: Loader, split: str) -> SplitAnswers:
        """The prediction for every image of a split, on the CPU, its labels (N,) and its paths; text
        is encoded once.

        Raises:
            UserError: an answer is NaN.
        """
        method = self.method
        device = self.method.device
        answers = []
        labels = []
        paths = []
        self.rates = []
        with method.towers.autocast():
            encoded = method.encode()
        title = f"{self.cfg.TRAINER.NAME}, {split}"
        for batch in tqdm(loader, desc=title, mininterval=1, dynamic_ncols=True):
            images = batch["img"].to(device)[None]
            started = time.perf_counter()
            answer = method.answer(images, encoded).cpu()  # waits for the device
            if images.dim() == 5:  # of features it would not be the CLIP's
                self.rates.append(len(batch["label"]) / (time.perf_counter() - started))
            answer.check_finite()
            answers.append(answer)
            labels.append(batch["label"])
            paths += batch["impath"]
        return SplitAnswers(Prediction.concatenate(answers), torch.cat(labels), paths)

    def keep_answers(self, answered: SplitAnswers, split: str) -> None:
        """Write ``predictions-<split>.npz``, the answers to every image of a split, by ``Scoring``."""
        arrays = self.scoring.arrays(answered)
        if self.cfg.TEST.OPEN:
            for name, sign in signs_of_new(answered.answers, self.base_classes).items():
                arrays[name] = sign.numpy()
        self.hashes[split] = self.write_and_hash(answers_file(split), arrays)

    def keep_file(self, name: str, arrays: Mapping[str, numpy.ndarray]) -> None:
        """Writes a further file of arrays into the run's folder, and its hash into the record."""
        self.files[name] = self.write_and_hash(name, arrays)

    def write_and_hash(self, name: str, arrays: Mapping[str, numpy.ndarray]) -> str:
        """The SHA-256 of a file of arrays, which is written into the run's folder."""
        path = f"{self.cfg.OUTPUT_DIR}/{name}"
        write_arrays(path, arrays)
        return file_hash(path)

    def test(self, loader: Loader, split: str) -> SplitAnswers:
        """Answers the images of a split, keeps the answers and measures them."""
        started = time.monotonic()
        answered = self.answers(loader, split)
        self.measure(answered, split)
        self.seconds["test"] += time.monotonic() - started
        return answered

    def measure(self, answered: SplitAnswers, split: str) -> None:
        """Measures the answers to a split, and keeps them."""
        self.keep_answers(answered, split)
        self.metrics[split] = self.scoring.metrics(answered)
        if self.cfg.TEST.OPEN:
            left_out = list(self.method.left_out)
            answers, labels = answered[:2]
            figures = {**open_world(answers, labels, self.base_classes), "left_out": left_out}
            self.metrics[split]["open"] = figures
            base = figures["base_accuracy"]
            new = figures["new_accuracy"]
            log.info(
                f"Among all classes: {base:.1f} % of the base and {new:.1f} % of the new classes' images "
                "are right"
            )
            if left_out:
                log.warning(
                    "%s answers all classes together without its %s, which serves the base classes "
                    "alone: that accuracy is of the rest of it",
                    self.cfg.TRAINER.NAME,
                    ", ".join(left_out),
                )

    def write_record(self) -> None:
        """Writes ``results.json``: everything a table needs and everything that makes a number
        traceable. The run is done when this file exists; it is written last and renamed into place.

        ``seconds_per_step`` is the median over training steps (None where nothing was trained),
        ``test_images_per_second`` the median over test batches (None where no image was encoded);
        ``class_parameters`` names the learned parts, if any, that serve the trained classes alone;
        ``learned`` holds figures of the prompts, for CDC the ``reliability`` of its templates;
        ``fewshot_sample`` hash and origin (None: all images, or another toolbox's data set);
        ``found_in_part`` and ``is_chosen`` of ``Images``, where they say something; ``task``, where an image may
        have several labels; ``gpu``, of ``gpu_facts``; ``backbone_origin``, of ``Backbone``;
        ``folds``, where all images are trained on and tested in folds, in how many; ``answers`` the
        SHA-256 of each file of answers, by split: no other file passes for the run's; ``files`` that of
        other files of arrays, by name.
        """
        cfg = self.cfg
        method = self.method
        images = self.images
        learnable, total = method.count_parameters()
        further = {
            "task": MULTI_LABEL if images.truth else "",
            "notes": list(self.notes),
            "folds": images.folds if images.is_tested_in_folds else 0,
            "class_parameters": list(method.class_part.names),
            "files": self.files,
            "found_in_part": [[*pair] for pair in images.found_in_part],
            "is_chosen": images.is_chosen,
            "gpu": gpu_facts(method.device),
            "backbone_origin": method.towers.backbone.origin,
        }
        record: Record = {
            "format": FORMAT,
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
            "shots": cfg.DATASET.NUM_SHOTS,
            "seed": cfg.SEED,
            "metrics": self.metrics,
            "answers": self.hashes,
            "classnames": method.classnames,
            "parameters": {"learnable": learnable, "total": total},
            "prompts_hash": method.prompts_hash(),
            "backbone_hash": method.towers.backbone_hash,
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "seconds_per_step": median(self.step_seconds, 6),
            "test_images_per_second": median(self.rates, 2),
            "device": str(method.device),
            "precision": method.towers.precision,
            "skipped_images": dict(images.broken),
            "learned": method.learned_figures(),
            **{name: value for name, value in further.items() if value},
            "split_hash": images.split_hash,
            "fewshot_sample": images.fewshot_sample,
            "git_commit": git_commit(),
            "versions": versions(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config": cfg,
        }
        record["run"] = describe(record, self.run)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(f"{cfg.OUTPUT_DIR}/{RECORD_FILE}", text + "\n")


def median(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.median(values), digits) if values else None
