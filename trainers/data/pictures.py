"""Images as programs hold them, paths, PIL images, arrays and tensors, as PIL images."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

import numpy
import torch
from PIL import Image
from torch import Tensor

from ..common.errors import UserError
from ..common.image_files import decoded

Picture = str | os.PathLike[str] | Image.Image | numpy.ndarray | Tensor
Pictures = Picture | Iterable[Picture]


def is_path(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, (str, os.PathLike))


def one_by_one(images: Pictures) -> Iterable[Picture]:
    """An iterable of images, of one image or of many."""
    if is_path(images) or not isinstance(images, Iterable):  # a PIL image is none
        return [images]
    if isinstance(images, (numpy.ndarray, Tensor)) and images.ndim < 4:
        return [images]
    return images


def transformed(
    image: Picture, background: str, transform: Callable[[Image.Image], Tensor]
) -> Tensor:
    """What a transform makes of an image of any kind: of a path or a PIL image of what a viewer shows, see ``as_seen``.

    Raises:
        UserError: see ``PromptedClassifier.predict``.
    """
    if is_path(image):
        image = os.fspath(image)
    elif not isinstance(image, Image.Image):
        image = array_picture(image)
    with decoded(image, background) as picture:
        return transform(picture)


def array_picture(image: object) -> Image.Image:
    """A tensor or an array as a PIL image."""
    if not isinstance(image, (numpy.ndarray, Tensor)):
        raise UserError(
            f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}"
        )
    if isinstance(image, numpy.ndarray):
        if image.dtype != numpy.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(
                f"the array {image.dtype} {image.shape} is not an image: it must be uint8 (H, W, 3)"
            )
        return Image.fromarray(image)
    described = f"the tensor {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    is_floating = image.is_floating_point()
    if (
        image.dim() != 3
        or len(image) != 3
        or image.numel() == 0
        or not (is_floating or image.dtype == torch.uint8)
    ):
        raise UserError(
            f"{described} is not an image: it must be uint8 or floating point (3, H, W)"
        )
    if is_floating:
        if not 0 <= image.min() <= image.max() <= 1:
            raise UserError(
                f"{described} has values from {image.min():.3g} to {image.max():.3g}: give an image in [0, 1], not normalised"
            )
        image = (image.float() * 255).round().byte()
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def write_class_folders(images: Sequence[Picture], labels: Sequence[str], folder: str) -> str:
    """Puts images into the folders of their classes, which are made in ``folder``; returns it.

    Raises:
        UserError: there are not as many labels as images, or the folder exists already.
    """
    if len(images) != len(labels) or not images:
        raise UserError(
            f"there are {len(images)} images and {len(labels)} labels: give one for each"
        )
    if os.path.exists(folder):
        raise UserError(
            f"{folder} exists already, where the images would go: give fit that folder, or another one "
            "for the run"
        )
    for number, (image, label) in enumerate(zip(images, labels)):
        place = f"{folder}/{label}"
        os.makedirs(place, exist_ok=True)
        name = f"{place}/{number:06d}"
        if is_path(image):
            shutil.copyfile(image, name + os.path.splitext(image)[1])
        else:
            picture = image if isinstance(image, Image.Image) else array_picture(image)
            picture.save(f"{name}.png")
    return folder
