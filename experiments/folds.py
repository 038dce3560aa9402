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
import torch.nn.functional as F
from dassl.data.datasets import Datum
from dassl.utils import set_random_seed
from PIL import Image
from torch import Tensor

from datasets.drawn.emoji_styles import corrupted, recoloured, sketch
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.parts import folds
from labelling.task import FOLDS, SINGLE_LABEL
from trainers.common.image_files import read_picture
from trainers.data.loader import steps_of_epoch, without_denormals
from trainers.engine.fit import TrainingBatch, fit
from trainers.gda import ALPHAS, unit
from trainers.learners.features import FeatureMethod, best_temperature, number_right
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
        shares_view: whether all V of a step's views of an image are the same one, drawn from the V.
    """

    stock: Tensor
    frozen: Tensor
    labels: Tensor
    chosen: Tensor
    steps: int
    shares_view: bool = False

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        order = self.chosen[torch.randperm(len(self.chosen))]
        for images in order.tensor_split(self.steps):
            drawn = torch.randint(len(self.stock), images.shape)
            shown = self.stock[drawn, :, images].transpose(0, 1).float()  # (V, B, …)
            features = self.frozen[drawn, :, images].transpose(0, 1)  # (V, B, E)
            if self.shares_view:
                view = torch.randint(len(shown), images.shape)
                one = torch.arange(len(images))
                shown = shown[view, one].expand_as(shown)
                features = features[view, one].expand_as(features)
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


def train_on(
    trainer: MethodTrainer, pictures: Pictures, chosen: Tensor, shares_view: bool = False
) -> None:
    """Trains the prompts as the trainer does, on views of the chosen images, see ``StockLoader``."""
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
        shares_view,
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
def fit_features(
    method: FeatureMethod, pictures: Pictures, chosen: Tensor, seed: int, by_accuracy: bool = False
) -> None:
    """Fits a classifier of image features to the chosen images: to the stock's views where its recipe
    asks for views, else to the images as they are tested. Its settings are the most likely ones in
    folds of the chosen images, or GDA's α is the most accurate one there, so that no held-out image
    takes part."""
    shown = pictures.trained.part(chosen)
    plain = features(method, shown.centre["plain"])  # (N, E)
    views = pictures.frozen[:, 0, chosen] if method.augmented_views else plain[None]  # (R, N, E)
    if by_accuracy:
        fit_most_accurate(method, views, plain, shown.labels, seed)
    else:
        fold = folds(shown.labels, FOLDS, seed)
        cross_fit(method, SINGLE_LABEL, FeatureSet(views, plain, shown.labels, fold))


def fit_most_accurate(
    method: FeatureMethod, views: Tensor, plain: Tensor, labels: Tensor, seed: int
) -> None:
    """Fits GDA under the first α of its authors' with the most right answers in folds, and the temperature
    to these answers.

    Args:
        views: (R, N, E), what is fitted to; plain: (N, E), what is answered; labels: (N,).
    """
    fold = folds(labels, FOLDS, seed)
    tried: list[list[Tensor]] = []  # of each fold, logits (n, K) under each α
    answers = []
    for part in fold.unique():
        is_in = fold == part
        known = views[:, ~is_in]
        settings = [(alpha / unit(known),) for alpha in ALPHAS]
        asked = F.normalize(plain[is_in], dim=-1)
        tried.append([*method.held_out_logits(known, labels[~is_in], asked, settings)])
        answers.append(labels[is_in])
    every = torch.cat(answers)
    logits = [torch.cat(of_alpha) for of_alpha in zip(*tried)]
    right = [number_right(of_alpha, every) for of_alpha in logits]
    best = right.index(max(right))
    method.fit(views, labels, (ALPHAS[best] / unit(views),))
    method.set_temperature(best_temperature(logits[best], every))
