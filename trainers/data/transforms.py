"""From a picture to the pixels that a CLIP takes: Dassl's transforms, without Dassl, and the
augmentation of each template's view.

A view is the training transform with one more operation. The paper names its two augmentation sets;
which operations they hold is our choice (docs/method.md).
"""

import math
from collections.abc import Callable

import torchvision.transforms as T
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from ..common.errors import UserError
from ..host import has_dassl, training_transforms

TransformStep = Callable[[Image.Image | Tensor], Image.Image | Tensor]  # of a transform
View = Callable[[Image.Image], Tensor]  # a whole transform, PIL image → (3, H, W)
OWN_TRANSFORMS = {"random_resized_crop", "random_crop", "center_crop", "random_flip", "normalize"}


def pixels_of_test(settings: CfgNode) -> T.Compose:
    """Return the transform of test images, PIL image → (3, H, W), by ``shape_of_test``; normalised if
    ``TRANSFORMS`` names it.

    settings: ``cfg.INPUT``.
    """
    return T.Compose([*shape_of_test(settings), *steps_to_pixels(settings)])


def shape_of_test(settings: CfgNode) -> list[TransformStep]:
    """The first steps of the transform of test images: the smaller edge resized, or under ``SQUASH`` the
    whole image, whatever its shape; then the centre cut out. Under ``CROP_PCT`` 1 they leave an image of
    ``SIZE`` as it is, under any other one the first step leaves what it has made.

    settings: ``cfg.INPUT``.
    """
    size = tuple(settings.SIZE)
    resized = tuple(math.floor(side / settings.CROP_PCT) for side in size)  # as timm rounds it
    interpolation = InterpolationMode(settings.INTERPOLATION)
    shape = resized if settings.SQUASH else max(resized)
    resize = T.Resize(shape, interpolation)
    return [resize] if shape == size else [resize, T.CenterCrop(size)]


def least_side(settings: CfgNode) -> int:
    """Return the least pixels that a JPEG's sides are decoded to, for ``image_files.draft``; 0: it is
    decoded as it is. The same in training, tests and labelling, whose pixels are then the same.

    settings: ``cfg.INPUT``.
    """
    least: int = settings.DECODED_AT * max(settings.SIZE)
    return least


def steps_of_training(cfg: CfgNode) -> list[TransformStep]:
    """The steps of the transform of training images that ``cfg.INPUT.TRANSFORMS`` names, with Dassl's
    draws.

    Raises:
        UserError: it names one that only Dassl has, and Dassl is not installed.
    """
    settings = cfg.INPUT
    names = settings.TRANSFORMS
    if others := [name for name in names if name not in OWN_TRANSFORMS]:
        if not has_dassl():
            raise UserError(
                f"INPUT.TRANSFORMS has {others[0]}, which Dassl makes: install dassl-lite, or leave it out"
            )
        return training_transforms(cfg)
    size = tuple(settings.SIZE)
    interpolation = InterpolationMode(settings.INTERPOLATION)
    steps: list[TransformStep] = []
    if "random_crop" not in names and "random_resized_crop" not in names:
        steps.append(T.Resize(size, interpolation))
    if "random_crop" in names:
        steps.append(T.RandomCrop(size, settings.CROP_PADDING))
    if "random_resized_crop" in names:
        steps.append(T.RandomResizedCrop(size, settings.RRCROP_SCALE, interpolation=interpolation))
    if "random_flip" in names:
        steps.append(T.RandomHorizontalFlip())
    return [*steps, *steps_to_pixels(settings)]


def steps_to_pixels(settings: CfgNode) -> list[TransformStep]:
    """The last steps, PIL image → (3, H, W); settings: ``cfg.INPUT``."""
    if "normalize" not in settings.TRANSFORMS:
        return [T.ToTensor()]
    return [T.ToTensor(), T.Normalize(settings.PIXEL_MEAN, settings.PIXEL_STD)]


def template_views(
    steps: list[TransformStep], settings: CfgNode, templates: int, augmentation: int | None
) -> list[T.Compose]:
    """One transform per template.

    Args:
        steps: shared by all views: crop, flip, to a tensor, normalise …
        settings: ``cfg.INPUT``, which says how strong colour jitter (``COLORJITTER_*``), grayscale
            (``RGS_P``) and blur (``GB_P``, ``GB_K``) are.
        templates: M.
        augmentation: ``1``: in turn nothing more, colour jitter, grayscale and blur, a small affine
            map; ``2``: the same, and one more random crop each (``CROP_PADDING``); None: nothing
            more for any of them.

    Returns:
        list of M transforms, PIL image → (3, H, W).
    """
    tensor = next(i for i, step in enumerate(steps) if isinstance(step, T.ToTensor))
    jitter = T.ColorJitter(*(settings[f"COLORJITTER_{part}"] for part in "BCSH"))
    blur = T.RandomApply([T.GaussianBlur(settings.GB_K)], settings.GB_P)
    extra: list[list[TransformStep]] = [
        [],
        [jitter],
        [T.RandomGrayscale(settings.RGS_P), blur],
        [T.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1))],
    ]
    if augmentation is None:
        extra = [[]]
    crop: list[TransformStep] = (
        [T.RandomCrop(settings.SIZE, padding=settings.CROP_PADDING)] if augmentation == 2 else []
    )
    return [
        T.Compose(steps[:tensor] + crop + extra[template % len(extra)] + steps[tensor:])
        for template in range(templates)
    ]
