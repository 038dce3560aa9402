"""Images as programs hold them, paths, PIL images, arrays and tensors: as PIL images, and read batch by batch
as a run's test takes them."""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeGuard, TypeVar, cast

import numpy
import torch
from PIL import Image
from torch import Tensor

from trainers.common.errors import UserError
from trainers.common.image_files import MAX_PIXELS, by_photograph, each_decoded, in_places

Picture = str | os.PathLike[str] | Image.Image | numpy.ndarray | Tensor
Pictures = Picture | Iterable[Picture]
Given = TypeVar("Given")
Result = TypeVar("Result")


def is_path(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, (str, os.PathLike))


def one_by_one(images: Pictures) -> Iterable[Picture]:
    """An iterable of images, of one image or of many."""
    if is_path(images) or not isinstance(images, Iterable):  # a PIL image is none
        return [images]
    if isinstance(images, numpy.ndarray) and images.dtype.kind in "UO":  # of paths, or of objects
        return cast(Iterable[Picture], images.ravel().tolist())
    if isinstance(images, (numpy.ndarray, Tensor)) and images.ndim < 4:
        return [images]
    return images


def ahead(
    items: Iterable[Given], work: Callable[[Given], Result], number: int
) -> Generator[Result, None, None]:
    """Yield the result of ``work`` for each item, made in a thread of its own: while the caller has one result the next
    ``number`` are made, and no more."""
    thread = ThreadPoolExecutor(max_workers=1)
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(thread.submit(work, item))
            if len(begun) > number:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def transform_each(
    images: Sequence[Picture],
    background: str,
    transform: Callable[[Image.Image], Tensor],
    least: int,
) -> list[Tensor | UserError]:
    """Apply a transform to an image of any kind, or to each box of a photograph: to a path or a PIL image as a
    viewer shows it (``as_seen``). An image that can't be read has its error, as ``PromptedClassifier.predict``.

    images: one, or paths of boxes in one file; least: as in ``draft``.
    """
    try:
        files = [as_file(image) for image in images]
    except UserError as error:
        return [error]
    with closing(each_decoded(files, background, least)) as pictures:
        return [
            picture if isinstance(picture, UserError) else transform(picture)
            for picture in pictures
        ]


def as_file(image: Picture) -> str | Image.Image:
    """Return a path as text, and any other image as a PIL image; errors as ``array_picture``."""
    if is_path(image):
        return os.fspath(image)
    return image if isinstance(image, Image.Image) else array_picture(image)


def array_picture(image: object) -> Image.Image:
    """A tensor or an array as a PIL image.

    Raises:
        UserError: it is not an image.
    """
    pixels: Any = image  # asked for what an array has, whatever it is
    try:
        if math.prod(pixels.shape) > 3 * MAX_PIXELS:  # it may be a small one, expanded
            raise ValueError(f"its shape is {tuple(pixels.shape)}")
        if isinstance(pixels, Tensor):
            pixels = pixels.detach().movedim(0, -1).cpu()  # (H, W, 3)
            pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
        if pixels.dtype.kind == "f":
            if not 0 <= pixels.min() <= pixels.max() <= 1:
                raise ValueError(f"it has values from {pixels.min():.3g} to {pixels.max():.3g}")
            pixels = (pixels * 255).round().astype(numpy.uint8)
        if pixels.shape[2:] != (3,):
            raise ValueError(f"its shape is {pixels.shape}")
        return Image.fromarray(pixels)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"this {type(pixels).__name__} is not an image ({error}): give a path, a PIL image, an array (H, W, 3) or a "
            "tensor (3, H, W), of uint8 or in [0, 1] and not normalised"
        ) from error


# ---- batch by batch, while the batch before is computed ----

AHEAD = 2  # batches that are read, so that reading never waits for the one that is computed


class ReadImages(NamedTuple):
    """Images that were read.

    Attributes:
        names: of the B readable images; None for an image without a name.
        pixels: (B, 3, H, W), of the readable images; None where there are none.
        errors: place in the batch → why an image can't be read.
    """

    names: list[str | None]
    pixels: Tensor | None
    errors: dict[int, UserError]


# pixels (3, H, W) of an image, or of each box of a photograph, or why it can't be read
Read = Callable[[Sequence[Picture]], list[Tensor | UserError]]
ReadBatch = Callable[[ThreadPoolExecutor, list[Picture]], ReadImages]


def read_images(pool: ThreadPoolExecutor, images: list[Picture], read: Read) -> ReadImages:
    """A batch of images, read by the threads of a pool; the boxes of a photograph by the same one."""
    pixels = []
    names = []
    errors = {}
    photographs = by_photograph(images)
    parts = pool.map(lambda places: read([images[place] for place in places]), photographs)
    for number, (image, result) in enumerate(zip(images, in_places(photographs, parts))):
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
