"""Loading of training images in four views: the usual way against images that are decoded once.

The usual way has torchvision's own blur, ours one that leaves out numbers next to zero, see ``gaussian`` in ``trainers/data/views.py``.
First it times how fast batches get ready, in the main process (``NUM_WORKERS`` 0) and from images whose files are in the operating system's memory; a
pipeline's first pass, in which it decodes, is not timed. Then it times the demo's training step and its wait for batches: with the
usual encoders too, with ours, and where a worker makes batches during steps.
"""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from measure import (
    DEVICE,
    REPOSITORY,
    Entry,
    Repetitions,
    alternate,
    log,
    main,
    synchronize,
    times_ours,
)
import numpy
import torch
import torchvision.transforms as T
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY
from models import in_the_usual_way, make_ready, read_recipe, usual_fusion
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from trainers.base import PromptTrainer
from trainers.data.random_state import restore_rng_state, rng_state
from trainers.data.loader import CheckedImages, bytes_of

BY_A_WORKER = ("DATALOADER.NUM_WORKERS", "1")
# name → the data set that loads images; every ratio is against the last
PIPELINES = {"usual": DatasetWrapper, "decoded once": CheckedImages}
OURS = list(PIPELINES)[-1]
# the same for whole training steps, and whether their encoders and fusion are the usual ones
DEMO = {
    "usual, encoders too": (DatasetWrapper, (), True),
    **{name: (wrapper, (), False) for name, wrapper in PIPELINES.items()},
    "decoded once, by a worker": (CheckedImages, BY_A_WORKER, False),
}


@dataclass(frozen=True)
class Source:
    """Image files, and the recipe whose views are made of them.

    Attributes:
        size: (width, height) of the files.
        suffix: their format.
        recipe: in ``configs/trainers/CDC``.
    """

    size: tuple[int, int]
    suffix: str
    recipe: str


SOURCES = (Source((500, 375), "jpg", "vit_b16_text"), Source((64, 64), "png", "tiny"))


@dataclass(frozen=True)
class Setting:
    """How many images a pass of a pipeline goes over, and how many epochs of the demo."""

    images: int = 128
    repetitions: Repetitions = Repetitions(least=5, most=15, seconds=60)
    epochs: Repetitions = Repetitions(least=3, most=7, seconds=120)


FULL = Setting()
QUICK = Setting(32, Repetitions(least=1, most=2, seconds=5), Repetitions(least=1, most=1))


def recipe(name: str, dataset: str, *options: str) -> CfgNode:
    return read_recipe(
        "CDC",
        name,
        dataset,
        "DATASET.ROOT",
        str(REPOSITORY / "data"),
        "DATALOADER.NUM_WORKERS",
        "0",
        *options,
    )


def write_images(folder: str, source: Source, count: int) -> list[Datum]:
    """Random pictures as Dassl's items: smooth shapes with a little noise, so that a JPEG takes about a photograph's time to decode."""
    generator = numpy.random.default_rng(0)
    items = []
    for number in range(count):
        shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype="uint8")).resize(
            source.size, Image.Resampling.BICUBIC
        )
        pixels = numpy.asarray(shapes) + generator.normal(0, 8, (*source.size[::-1], 3))
        path = Path(folder) / f"{number}.{source.suffix}"
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path, quality=90)
        items.append(Datum(impath=str(path), label=0, classname="picture"))
    return items


def loading_trainer(
    cfg: CfgNode, items: Sequence[Datum], wrapper: type[DatasetWrapper]
) -> PromptTrainer:
    """A trainer without a model: only what prepares batches."""
    trainer = object.__new__(TRAINER_REGISTRY.get("CDC"))
    trainer.cfg, trainer.device = cfg, DEVICE
    with quiet(), views_for(wrapper):
        trainer.train_loader_x = build_data_loader(
            cfg,
            sampler_type="RandomSampler",
            data_source=items,
            batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
            tfm=trainer.training_views,
            is_train=True,
            dataset_wrapper=wrapper,
        )
    if wrapper is DatasetWrapper:
        trainer.parse_batch_train = partial(usual_batch, trainer)
    return trainer


@contextlib.contextmanager
def views_for(wrapper: type[DatasetWrapper]) -> Iterator[None]:
    """In the usual way they are torchvision's transforms, blur included, whose images come normalised."""
    if wrapper is not DatasetWrapper:
        yield
        return
    with (
        mock.patch("trainers.cdc.PictureViews", list),
        mock.patch("trainers.data.views.GaussianBlur", T.GaussianBlur),
    ):
        yield


def usual_batch(trainer: PromptTrainer, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Images (V, B, 3, H, W) and labels of what Dassl's data set gives."""
    names = ["img", *filter(batch.__contains__, (f"img{view}" for view in range(2, len(batch))))]
    return torch.stack([batch[name].to(trainer.device) for name in names]), batch["label"].to(
        trainer.device
    )


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Dassl prints what it builds: not here."""
    return contextlib.redirect_stdout(io.StringIO())


def load_all(trainer: PromptTrainer) -> None:
    for batch in trainer.train_loader_x:
        trainer.parse_batch_train(batch)


def throughput(source: Source, setting: Setting) -> list[Entry]:
    """Rows of one source, one a pipeline: until views of all images lie on the device, ready for the encoder."""
    with tempfile.TemporaryDirectory() as folder:
        items = write_images(folder, source, setting.images)
        trainers = {
            name: loading_trainer(recipe(source.recipe, "imagenet"), items, wrapper)
            for name, wrapper in PIPELINES.items()
        }
        passes = {
            name: lambda trainer=trainer: load_all(trainer) for name, trainer in trainers.items()
        }
        for run in passes.values():
            run()  # decodes, and warms up
        seconds = alternate(passes, setting.repetitions)
    return [
        {
            "pipeline": name,
            "ms an image": 1000 * statistics.median(seconds[name]) / setting.images,
            "images/s": setting.images / statistics.median(seconds[name]),
            "times ours": times_ours(seconds[name], seconds[OURS]),
            "MB kept": kept(trainers[name].train_loader_x.dataset),
            "rounds": len(seconds[name]),
        }
        for name in PIPELINES
    ]


def kept(dataset: Any) -> float:
    """MB of decoded images in memory."""
    return sum(bytes_of(image) for image in getattr(dataset, "decoded", {}).values()) / 1e6


class Demo:
    """The demo's training under one of the pipelines, which notes how long its steps waited for data.

    Attributes:
        waited: seconds of each epoch, until views lie on the device.
        rng: the random generators' states after the last epoch, since the others' epochs must not change them.
    """

    def __init__(
        self, wrapper: type[DatasetWrapper], options: Sequence[str], usual_encoders: bool
    ) -> None:
        cfg = recipe(
            "tiny",
            "openmoji",
            "DATASET.NUM_SHOTS",
            "16",
            "DATASET.SUBSAMPLE_CLASSES",
            "base",
            *options,
        )
        with mock.patch("trainers.training.CheckedImages", wrapper), views_for(wrapper), quiet():
            self.trainer = trainer = TRAINER_REGISTRY.get("CDC")(cfg)
            trainer.prompt_learner.offset.copy_(trainer.initial_offset())
        make_ready(trainer)
        self.fusion = usual_fusion if usual_encoders else contextlib.nullcontext
        if usual_encoders:
            in_the_usual_way(trainer)
        self.parse = (
            partial(usual_batch, trainer)
            if wrapper is DatasetWrapper
            else trainer.parse_batch_train
        )
        trainer.parse_batch_train = lambda batch: batch["parsed"]
        self.waited: list[float] = []
        self.rng = rng_state()

    def epoch(self) -> None:
        restore_rng_state(self.rng)
        waited, asked = 0.0, time.perf_counter()
        for batch in self.trainer.train_loader_x:
            parsed = self.parse(batch)
            synchronize()
            waited += time.perf_counter() - asked
            with self.fusion():
                self.trainer.forward_backward({"parsed": parsed})
            asked = time.perf_counter()
        self.waited.append(
            waited + time.perf_counter() - asked
        )  # the last wait, for the end of the epoch
        self.rng = rng_state()


def demo(setting: Setting) -> list[Entry]:
    """Rows of the demo's training, one a pipeline."""
    runs = {name: Demo(*settings) for name, settings in DEMO.items()}
    for run in runs.values():
        run.epoch()
        run.waited.clear()
    seconds = alternate({name: run.epoch for name, run in runs.items()}, setting.epochs)
    rows = []
    for name, run in runs.items():
        steps = len(run.trainer.train_loader_x)
        rows.append(
            {
                "pipeline": name,
                "ms a step": 1000 * statistics.median(seconds[name]) / steps,
                "of it waiting for data": 1000 * statistics.median(run.waited) / steps,
                "%": 100
                * statistics.median(
                    waited / whole for waited, whole in zip(run.waited, seconds[name])
                ),
                "epochs": len(seconds[name]),
            }
        )
    return rows


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    for source in SOURCES:
        cfg = recipe(source.recipe, "imagenet")
        title = (
            f"{source.size[0]}x{source.size[1]} {source.suffix.upper()} → {cfg.INPUT.SIZE[0]} px"
        )
        log.info(title)
        yield (
            f"{title}, 4 views an image, {setting.images} images in batches of {cfg.DATALOADER.TRAIN_X.BATCH_SIZE}",
            throughput(source, setting),
        )
    log.info("the demo")
    yield (
        "The demo's training, CDC on OpenMoji (tiny recipe, base classes, 16 shots)",
        demo(setting),
    )


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
