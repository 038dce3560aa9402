"""The images of a cross-validated task, and a training on a fold of them.

Of each class a fifth of the images (at least two) is held out, and up to 16 others are trained on.
Training is ``fit``'s, on batches out of a stock of views made beforehand.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from dassl.data.datasets import Datum
from dassl.utils import set_random_seed
from PIL import Image
from torch import Tensor

from datasets.drawn.emoji_styles import corrupted, recoloured, sketch
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.folders.own_images import FOLDS
from trainers.common.image_files import read_picture
from trainers.data.loader import steps_of_epoch, without_denormals
from trainers.engine.fit import TrainingBatch, fit
from trainers.learners.features import FeatureMethod
from trainers.method import Method
from trainers.trainer import MethodTrainer

SHOTS = 16
HELD_OUT = 5  # one in this many images
STOCK = 8  # random views of each image and template
IMAGES_AT_ONCE = 128
STYLES = {style.__name__: style for style in (sketch, recoloured, corrupted)}


@dataclass
class StockLoader:
    """Batches of views drawn from a stock, of equal size.

    Args:
        stock: (R, V, N, …), R random images or features for each of V views and N images.
        frozen: (R, V, N, E), the frozen CLIP's features of the same; labels: (N,).
        chosen: (n,) indices of the images to train on; steps: of an epoch.
    """

    stock: Tensor
    frozen: Tensor
    labels: Tensor
    chosen: Tensor
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        order = self.chosen[torch.randperm(len(self.chosen))]
        for images in order.tensor_split(self.steps):
            drawn = torch.randint(len(self.stock), images.shape)
            shown = self.stock[drawn, :, images].transpose(0, 1).float()  # (V, B, …)
            features = self.frozen[drawn, :, images].transpose(0, 1)  # (V, B, E)
            yield shown, self.labels[images], features


def stacked(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors one after the other along a new first dimension."""
    return torch.stack(list(tensors))


def images_of(trainer: MethodTrainer) -> list[Datum]:
    return [*trainer.dm.dataset.train_x, *(trainer.dm.dataset.val or [])]


def picture(trainer: MethodTrainer, item: Datum) -> Image.Image:
    """A picture as the loaders read it."""
    return read_picture(item.impath, trainer.cfg.INPUT.BACKGROUND)


@dataclass
class Half:
    """The images of half of a task's classes.

    Attributes:
        labels: (N,); centre: style (``plain`` among them) → images (N, 3, H, W) as they are tested,
            half precision.
    """

    labels: Tensor
    centre: dict[str, Tensor]

    def part(self, chosen: Tensor) -> "Half":
        """Some of the images."""
        return Half(
            self.labels[chosen], {style: images[chosen] for style, images in self.centre.items()}
        )


def half_of(trainer: MethodTrainer, is_drawn: bool) -> Half:
    """All images of a trainer's classes; drawn ones in further styles."""
    items = images_of(trainer)
    transform = cast(Any, trainer.test_loader).dataset.transform
    pictures = {"plain": [picture(trainer, item) for item in items]}
    for style, draw in STYLES.items() if is_drawn else ():
        pictures[style] = [draw(Path(item.impath).stem, 64) for item in items]
    centre = {style: stacked(map(transform, of)).half() for style, of in pictures.items()}
    return Half(torch.tensor([item.label for item in items]), centre)


class Pictures:
    """The images of a task, made once for all settings.

    Args:
        trainer, other: a trainer on the half that is trained on, and on the other; is_drawn:
            whether their images are drawn here.

    Attributes:
        trained, other: the halves' images; stock: (R, V, N, 3, H, W), half precision, views of the
            images to train on;
        frozen: (R, V, N, E), the frozen CLIP's features of them.
    """

    def __init__(self, trainer: MethodTrainer, other: MethodTrainer, is_drawn: bool) -> None:
        self.trained = half_of(trainer, is_drawn)
        self.other = half_of(other, is_drawn)
        # here, and not when a training asks for them: that would change its random numbers
        set_random_seed(1)
        pictures = [picture(trainer, item) for item in images_of(trainer)]
        views = trainer.loaders.views
        with without_denormals():
            stock = stacked(
                stacked(stacked(map(view, pictures)) for view in views) for _ in range(STOCK)
            )
        self.stock = stock.half()
        with torch.no_grad():
            self.frozen = stacked(
                stacked(features(trainer.model, images) for images in drawn) for drawn in self.stock
            )


def features(method: Method, images: Tensor) -> Tensor:
    """The frozen CLIP's features (N, E) of images (N, 3, H, W)."""
    parts = images.split(IMAGES_AT_ONCE)
    return torch.cat([method.towers.encode_images(part[None].float())[0] for part in parts])


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, up to ``SHOTS`` a class, and of the held-out ones: all
    others, at least a fifth of each class."""
    by_class: dict[int, list[int]] = {}
    for index in random.Random(seed).sample(range(len(labels)), len(labels)):
        by_class.setdefault(int(labels[index]), []).append(index)
    chosen = sorted(
        index
        for members in by_class.values()
        for index in members[max(2, round(len(members) / HELD_OUT)) :][:SHOTS]
    )
    others = sorted(set(range(len(labels))).difference(chosen))
    return torch.tensor(chosen), torch.tensor(others)


def train_on(trainer: MethodTrainer, pictures: Pictures, chosen: Tensor) -> None:
    """Trains the prompts as the trainer does, on views of the chosen images."""
    items = images_of(trainer)
    # what some look at before the first step
    trainer.dm.dataset.train_x[:] = [items[index] for index in chosen]
    views = len(trainer.loaders.views)  # a method with fewer views takes the first
    batches = StockLoader(
        pictures.stock[:, :views],
        pictures.frozen[:, :views],
        pictures.trained.labels,
        chosen,
        steps_of_epoch(len(chosen), trainer.cfg.OPTIM, trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE),
    )
    # without validation images: they are among the held-out ones
    fit(
        trainer.model,
        batches,
        trainer.optim,
        trainer.sched,
        trainer.max_epoch,
        images=trainer.run.training_images,
    )
    trainer.set_model_mode("eval")


@torch.no_grad()
def fit_features(method: FeatureMethod, pictures: Pictures, chosen: Tensor, seed: int) -> None:
    """Fits a classifier of image features to the chosen images: to the stock's views where its recipe
    asks for views, else to the images as they are tested. Its settings are those that are best in
    folds of the chosen images, so that no held-out image takes part."""
    shown = pictures.trained.part(chosen)
    plain = features(method, shown.centre["plain"])  # (N, E)
    views = pictures.frozen[:, 0, chosen] if method.augmented_views else plain[None]  # (R, N, E)
    cross_fit(method, FeatureSet(views, plain, shown.labels), FOLDS, seed)
