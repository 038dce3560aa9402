"""Runs the trained method of a run on pictures, for the figures of the report that need it."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from trainers.data.transforms import pixels_of_test
from trainers.engine.saved_run import SavedRun
from trainers.evaluation.prediction import Prediction


def background_of(run: SavedRun) -> str:
    """Return the background of transparent pictures: the run's ``INPUT.BACKGROUND``; white where it took its
    own pictures as they are stored."""
    return run.cfg.INPUT.BACKGROUND or "white"


def batches(run: SavedRun, pictures: Iterable[Image.Image]) -> Iterator[Tensor]:
    """RGB pictures as the run's test takes them, (1, B, 3, H, W) each."""
    transform = pixels_of_test(run.cfg.INPUT)
    remaining = iter(pictures)
    while some := list(islice(remaining, run.cfg.DATALOADER.TEST.BATCH_SIZE)):
        pixels = torch.stack([transform(picture) for picture in some])  # (B, 3, H, W)
        yield pixels.to(run.method.device)[None]


@torch.no_grad()
def features_of(run: SavedRun, pictures: Iterable[Image.Image]) -> Tensor:
    """Features (N, E) of N pictures under the learned prompts, of length one, in fp32 on the CPU: the
    mean over the templates where each prompts the images."""
    method = run.method.eval()
    with method.towers.autocast():
        encoded = method.encode()
    parts = []
    for images in batches(run, pictures):
        features = method(images, encoded).image_features  # (M or 1, B, E)
        parts.append(F.normalize(features.mean(dim=0), dim=-1).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def prediction_of(run: SavedRun, pictures: Iterable[Image.Image]) -> Prediction:
    """The ``Prediction`` for N pictures, on the CPU."""
    method = run.method.eval()
    with method.towers.autocast():
        encoded = method.encode()
    answers = [method.answer(images, encoded).cpu() for images in batches(run, pictures)]
    return Prediction.concatenate(answers)
