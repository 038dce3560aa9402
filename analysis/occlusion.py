"""Occlusion maps: which places of an image each template's answer depends on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from results.report.inspections import Occlusion
from trainers.classifier.prompted import PromptedClassifier
from trainers.prompting.backbone import Backbone

GREY = 0.5  # of the patch, in all three colours
RESNET_PATCH = 32  # pixels of an image that one place of a ResNet's last stage stands for: its stages halve five times


def occlusion_map(
    predict: Callable[[Tensor], Any], image: Tensor, label: int, size: int, stride: int
) -> numpy.ndarray:
    """How far each template's probability of a class falls when a grey patch covers a place of the image (Zeiler, Fergus, 2014,
    "Visualizing and Understanding Convolutional Networks", §4.2).

    Args:
        predict: (B, 3, H, W) images in [0, 1] → (B, M, K) probabilities of M templates.
        image: (3, H, W) in [0, 1].
        label: index of the class.
        size, stride: side of the patch and distance between its places, in pixels.

    Returns:
        (M, R, C) numpy array in [-1, 1]: at [m, r, c] template m's probability of the whole image less that of the image covered from
        pixel (r · stride, c · stride) on.

    Raises:
        ValueError: the patch is larger than the image.
    """
    if size > min(image.shape[1:]):
        raise ValueError(
            f"a patch of {size} pixels covers all of an image of {tuple(image.shape[1:])}"
        )
    rows, columns = ((side - size) // stride + 1 for side in image.shape[1:])
    shown = image.repeat(1 + rows * columns, 1, 1, 1)  # the first one stays whole
    for place, covered in enumerate(shown[1:]):
        top, left = (number * stride for number in divmod(place, columns))
        covered[:, top : top + size, left : left + size] = GREY
    probability = numpy.asarray(predict(shown))[:, :, label]  # (1 + R·C, M)
    return (probability[0] - probability[1:]).T.reshape(-1, rows, columns)


def patch_size(backbone: Backbone) -> int:
    """Side in pixels of what becomes one token, or one place of a ResNet's last stage."""
    return (
        backbone.vision_transformer.conv1.kernel_size[0]
        if backbone.takes_visual_prompts
        else RESNET_PATCH
    )


def pictures(classifier: PromptedClassifier, paths: Sequence[str]) -> Tensor:
    """(N, 3, H, W) in [0, 1]: what the classifier's model is shown of image files, before colours are normalised."""
    shown = torch.cat([batch[0].cpu() for batch, _ in classifier.batches(paths)])  # (N, 3, H, W)
    settings = classifier.trainer.cfg.INPUT
    if "normalize" in settings.TRANSFORMS:
        mean, deviation = (
            torch.tensor(values)[:, None, None]
            for values in (settings.PIXEL_MEAN, settings.PIXEL_STD)
        )
        shown = shown * deviation + mean
    return (255 * shown).round().clamp(0, 255) / 255


def occlusions(
    classifier: PromptedClassifier, paths: Sequence[str], labels: Sequence[int]
) -> list[Occlusion]:
    """``Occlusion`` of each image file: the patch is two tokens wide and moves by one.

    Args:
        classifier: a ``PromptedClassifier`` of a method with templates; paths: N files; labels: N class indices.
    """
    stride = patch_size(classifier.trainer.backbone)
    found = []
    for image, label in zip(pictures(classifier, paths), labels):
        drops = occlusion_map(
            lambda covered: classifier.predict(covered).votes, image, label, 2 * stride, stride
        )
        found.append(
            Occlusion(
                classifier.classnames[label],
                image.permute(1, 2, 0).numpy(),
                drops,
                2 * stride,
                stride,
            )
        )
    return found
