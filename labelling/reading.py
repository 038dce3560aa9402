"""Reads images as a run's test takes them, batch by batch, while the batch before is computed."""

import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.common.errors import UserError

from .pictures import Picture, Pictures, ahead, is_path, one_by_one

AHEAD = 2  # batches that are read, so that reading never waits for the one that is computed


class ReadImages(NamedTuple):
    """Images that were read.

    Attributes:
        names: of those that can be read; None where an image came without one.
        pixels: (B, 3, H, W), theirs; None where there is none.
        errors: place in the batch → why an image can't be read.
    """

    names: list[str | None]
    pixels: Tensor | None
    errors: dict[int, UserError]


Read = Callable[
    [Picture], Tensor | UserError
]  # an image's pixels (3, H, W), or why it can't be read
ReadBatch = Callable[[ThreadPoolExecutor, list[Picture]], ReadImages]


def read_images(pool: ThreadPoolExecutor, images: list[Picture], read: Read) -> ReadImages:
    """A batch of images, read by the threads of a pool."""
    pixels = []
    names = []
    errors = {}
    for number, (image, result) in enumerate(zip(images, pool.map(read, images))):
        if isinstance(result, Tensor):
            pixels.append(result)
            names.append(os.fspath(image) if is_path(image) else None)
        else:
            errors[number] = result
    return ReadImages(names, torch.stack(pixels) if pixels else None, errors)


def batches_of(
    images: Pictures, size: int, read_batch: ReadBatch, broken: dict[int, UserError] | None
) -> Generator[tuple[Tensor, list[str | None]], None, None]:
    """Images (B, 3, H, W) and their names, while the next ones are read; batches without a readable image
    are left out.

    Args:
        size: of a batch.
        broken: collects the errors of unreadable images by their places among all, from 0; without it
            the first one is raised.
    """
    place = 0
    remaining = iter(one_by_one(images))
    taken = iter(lambda: list(islice(remaining, size)), [])
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
        with closing(ahead(taken, partial(read_batch, pool), AHEAD)) as batches:
            for batch in batches:
                for number, error in batch.errors.items():
                    if broken is None:
                        raise error
                    broken[place + number] = error
                place += len(batch.names) + len(batch.errors)
                if batch.pixels is not None:
                    yield batch.pixels, batch.names
