"""The views of ``views.py`` made on batches of tensors, by the steps of ``tensor_steps.py``."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image
from torch import Tensor

from .batch_memory import ReusedMemory, parts_in_cache
from .errors import UserError
from .tensor_steps import BATCHED

Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Drawn:
    """What is random about an image's views.

    Attributes:
        boxes: what each view cuts out.
        numbers: all steps' of all views, in one row.
    """
    boxes: list[Box]
    numbers: list[float]


class TensorViews:
    """The views of ``views.template_views`` from uint8 tensors: cut out and resized image by image, everything else on batches, on the device.

    Every image has its own random numbers, drawn by torchvision's transforms in their order. So from the same state of torch's
    generator these are the views that the transforms themselves give, but for rounding: on PIL images they round to 8 bits after
    every operation.

    Args:
        transforms: M of them, as ``template_views`` builds them.

    Raises:
        UserError: a step of theirs has no counterpart here; the message names it.
    """

    def __init__(self, transforms: Sequence[T.Compose]) -> None:
        self.transforms, self.memory = list(transforms), ReusedMemory()
        self.crops, self.steps = [], []
        for crop, *steps in (transform.transforms for transform in transforms):
            steps = normalised_at_once(steps)
            other = [step for step in steps if type(step) not in BATCHED]
            if other or not isinstance(crop, (T.RandomResizedCrop, T.Resize)):
                raise UserError(f"TRAINER.CDC.VIEWS_ON_TENSORS can't do {type((other or [crop])[0]).__name__}: take it out of "
                                "INPUT.TRANSFORMS, or set VIEWS_ON_TENSORS to False")
            self.crops.append(ResizedCrop(crop))
            self.steps.append([BATCHED[type(step)](step, crop.size) for step in steps])

    def __call__(self, image: Tensor) -> dict[str, Any]:
        """What the loader hands out for an image, uint8 (3, height, width): ``crops``, M tensors, uint8 (3, H, W), and ``numbers``, those drawn."""
        drawn = self.draw(*image.shape[1:])
        return {"crops": [crop(image, box) for crop, box in zip(self.crops, drawn.boxes)], "numbers": torch.tensor(drawn.numbers)}

    def draw(self, height: int, width: int) -> Drawn:
        """Draws for an image of that size: whatever is drawn next is what it would be behind the image."""
        boxes, numbers = [], []
        for crop, steps in zip(self.crops, self.steps):
            boxes.append(crop.draw(height, width))
            numbers += [number for step in steps for number in step.draw()]
        return Drawn(boxes, numbers)

    def finish(self, batch: dict[str, Any], device: torch.device) -> Tensor:
        """Views (M, B, 3, H, W) from what the loader has collated for B images."""
        crops, numbers = batch["crops"], batch["numbers"]  # numbers stay: which images a step changes is known without waiting for the device
        shape = torch.Size((len(crops), *crops[0].shape))
        views = self.memory.empty(shape, device)
        columns = iter(numbers.split([step.numbers for steps in self.steps for step in steps], dim=1))
        for view, crop, steps in zip(views, crops, self.steps):
            crop, drawn = crop.to(device, non_blocking=True), [next(columns) for _ in steps]
            for part in parts_in_cache(view):
                images = view[part]
                images.copy_(crop[part])  # 0 … 255 until ``Normalize``
                for step, own in zip(steps, drawn):
                    step(images, own[part])
        return views


def pixels(image: Image.Image) -> Tensor:
    """uint8 (3, H, W) of an RGB image, with a pixel's channels beside each other: that is what torch resizes fastest."""
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


class ResizedCrop:
    """What a ``RandomResizedCrop``, or a ``Resize``, makes of an image.

    A random box is drawn as torchvision draws it (to the last bit), but in less than half of the time, which is an eighth of all that four
    views of a small image take.
    """

    def __init__(self, transform: T.RandomResizedCrop | T.Resize) -> None:
        self.size, self.mode = list(transform.size), transform.interpolation.value
        self.is_random = isinstance(transform, T.RandomResizedCrop)
        if self.is_random:
            self.scale, self.ratio = transform.scale, transform.ratio
            self.log_ratio = torch.tensor(transform.ratio).log().tolist()

    def draw(self, height: int, width: int) -> Box:
        """A box in an image of that size: of a share of its area and a shape that are random, where such a box fits in ten trials."""
        if not self.is_random:
            return 0, 0, height, width
        for _ in range(10):
            area = height * width * uniform(*self.scale).item()
            ratio = uniform(*self.log_ratio).exp_().item()
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                return whole_number(height - rows + 1), whole_number(width - columns + 1), rows, columns
        ratio = min(max(width / height, min(self.ratio)), max(self.ratio))  # the largest box of an allowed shape, in the middle
        rows, columns = min(height, round(width / ratio)), min(width, round(height * ratio))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def __call__(self, image: Tensor, box: Box) -> Tensor:
        """uint8 (3, H, W): the part of an image, uint8 (3, height, width), in the box, in the transform's size."""
        top, left, height, width = box
        return F.interpolate(image[None, :, top:top + height, left:left + width], size=self.size, mode=self.mode, antialias=self.mode != "nearest")[0]


def uniform(low: float, high: float) -> Tensor:
    """(1,), drawn as torchvision's transforms draw."""
    return torch.empty(1).uniform_(low, high)


def whole_number(below: int) -> int:
    """From 0, drawn as torchvision's transforms draw."""
    return int(torch.randint(0, below, size=(1,)).item())


def normalised_at_once(steps: Sequence[Any]) -> list[Any]:
    """Steps at whose end one Normalize, from 0 … 255, stands for ``ToTensor``, whose values are 0 … 1, and a Normalize behind it."""
    last = steps[-1] if isinstance(steps[-1], T.Normalize) else T.Normalize([0.0] * 3, [1.0] * 3)
    at_once = T.Normalize(*([255 * value for value in values] for values in (last.mean, last.std)))
    return [step for step in steps if not isinstance(step, (T.ToTensor, T.Normalize))] + [at_once]
