"""The views of ``views.py`` made on batches of tensors, each transform by a counterpart of its own."""
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image
from torch import Tensor

from .errors import UserError
from .views import gaussian

CACHE_BYTES = 2 ** 20  # of images that a processor's cache holds beside an operation's intermediate results


class TensorViews:
    """The views of ``views.template_views`` from uint8 tensors: crop and flip are made image by image, everything else on batches, on the device.

    Every image has its own random numbers, drawn by torchvision's transforms in their order. So from the same state of torch's
    generator these are the views that the transforms themselves give, but for rounding: on PIL images they round to 8 bits after
    every operation.

    Args:
        views: M transforms, as ``template_views`` builds them.

    Raises:
        UserError: a step of theirs has no counterpart here; the message names it.
    """

    def __init__(self, views: Sequence[T.Compose]) -> None:
        self.memory = ReusedMemory()
        self.crops, self.flips, self.steps = [], [], []
        for crop, *steps in (view.transforms for view in views):
            flip = steps.pop(0) if isinstance(steps[0], T.RandomHorizontalFlip) else None  # Dassl flips what it has just cropped
            steps = normalised_at_once(steps)
            other = [step for step in steps if type(step) not in BATCHED]
            if other or not isinstance(crop, (T.RandomResizedCrop, T.Resize)):
                raise UserError(f"TRAINER.CDC.VIEWS_ON_TENSORS can't do {type((other or [crop])[0]).__name__}: take it out of "
                                "INPUT.TRANSFORMS, or set VIEWS_ON_TENSORS to False")
            self.crops.append(crop)
            self.flips.append(flip)
            self.steps.append([BATCHED[type(step)](step, crop.size) for step in steps])

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """What the loader hands out for a PIL image: ``crops``, uint8 (M, 3, H, W), and the numbers ``drawn`` for all steps, in one row."""
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)  # interleaved channels are what torch resizes fastest
        crops, drawn = [], []
        for crop, flip, steps in zip(self.crops, self.flips, self.steps):
            cropped = resized(pixels, crop)
            crops.append(cropped.flip(-1) if is_flipped(flip) else cropped)
            drawn += [number for step in steps for number in step.draw()]
        return {"crops": torch.stack(crops), "drawn": torch.tensor(drawn)}

    def draw(self, height: int, width: int) -> None:
        """Draws the numbers of an image of that size for nothing: whatever is drawn next is what it would be behind the image."""
        image = torch.empty(3, height, width, device="meta")
        for crop, flip, steps in zip(self.crops, self.flips, self.steps):
            if isinstance(crop, T.RandomResizedCrop):
                crop.get_params(image, crop.scale, crop.ratio)
            is_flipped(flip)
            for step in steps:
                step.draw()

    def finish(self, batch: dict[str, Tensor], device: torch.device) -> Tensor:
        """Views (M, B, 3, H, W) from what the loader has collated for B images."""
        crops = batch["crops"].to(device, non_blocking=True).transpose(0, 1)  # (M, B, 3, H, W)
        views = self.memory.empty(crops.shape) if device.type == "cpu" else torch.empty(crops.shape, device=device)
        views.copy_(crops)  # 0 … 255 until ``Normalize``
        drawn = batch["drawn"]  # on the CPU: which images a step changes is looked up there, without waiting for the device
        for images, steps in zip(views, self.steps):
            for step in steps:
                step(images, drawn[:, :step.numbers])
                drawn = drawn[:, step.numbers:]
        return views


def resized(pixels: Tensor, crop: T.RandomResizedCrop | T.Resize) -> Tensor:
    """uint8 (3, H, W) out of an image under a ``RandomResizedCrop`` or a ``Resize``."""
    if isinstance(crop, T.RandomResizedCrop):
        top, left, height, width = crop.get_params(pixels, crop.scale, crop.ratio)
        pixels = pixels[:, top:top + height, left:left + width]
    mode = crop.interpolation.value
    return F.interpolate(pixels[None], size=list(crop.size), mode=mode, antialias=mode != "nearest")[0]


def is_flipped(flip: T.RandomHorizontalFlip | None) -> bool:
    """Draws whether an image is flipped."""
    return flip is not None and bool(torch.rand(1) < flip.p)


def normalised_at_once(steps: Sequence[Any]) -> list[Any]:
    """Steps at whose end one Normalize, from 0 … 255, stands for ``ToTensor``, whose values are 0 … 1, and a Normalize behind it."""
    last = steps[-1] if isinstance(steps[-1], T.Normalize) else T.Normalize([0.0] * 3, [1.0] * 3)
    at_once = T.Normalize(*([255 * value for value in values] for values in (last.mean, last.std)))
    return [step for step in steps if not isinstance(step, (T.ToTensor, T.Normalize))] + [at_once]


class ReusedMemory:
    """Memory for float32 tensors of the CPU, lent again once the last tensor in it is gone.

    New memory of a batch's size comes from the operating system, which clears every page of it: that takes longer than most steps.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[numpy.ndarray]] = {}  # number of values → blocks of that size that nobody has

    def __reduce__(self) -> tuple[type["ReusedMemory"], tuple[()]]:
        return ReusedMemory, ()  # another process begins with none

    def empty(self, shape: torch.Size) -> Tensor:
        """A tensor of any values."""
        blocks = self.free.setdefault(shape.numel(), [])
        block = blocks.pop() if blocks else numpy.empty(shape.numel(), dtype=numpy.float32)
        lent = block.view()  # which the tensor and all its views hold on to
        weakref.finalize(lent, blocks.append, block).atexit = False
        return torch.from_numpy(lent).view(shape)


# ---- the transforms' counterparts ----

class Step:
    """One transform on batches.

    Attributes:
        numbers: how many random numbers it draws for an image.
        transform: whose parameters and draws these are.
        size: (H, W) of the images.
    """
    numbers = 0

    def __init__(self, transform: Any, size: Sequence[int]) -> None:
        self.transform, self.size = transform, size

    def draw(self) -> Sequence[float]:
        """The random numbers of one image."""
        return []

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        """Changes images (B, 3, H, W) in place, given their numbers (B, ``numbers``)."""
        raise NotImplementedError


class Normalize(Step):
    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.transform.mean, self.transform.std))
        torch.addcmul(-mean / std, images, 1 / std, out=images)


class Grayscale(Step):
    numbers = 1

    def draw(self) -> Sequence[float]:
        return [float(torch.rand(1) < self.transform.p)]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        change(images, drawn[:, 0], lambda chosen: luma(chosen).expand_as(chosen))


class Jitter(Step):
    numbers = 8  # the order of the four adjustments, and the factor of each

    def __init__(self, transform: T.ColorJitter, size: Sequence[int]) -> None:
        super().__init__(transform, size)
        self.ranges = (transform.brightness, transform.contrast, transform.saturation, transform.hue)  # None: not adjusted

    def draw(self) -> Sequence[float]:
        order, *factors = self.transform.get_params(*self.ranges)
        return [*order.tolist(), *(factor or 0.0 for factor in factors)]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        for turn in range(4):
            for kind, adjust in enumerate((brightness, contrast, saturation, hue)):
                if self.ranges[kind] is not None:
                    change(images, drawn[:, turn] == kind, adjust, drawn[:, 4 + kind, None, None, None])


# Adjustments give back images as they should be, and may make them so in place.

def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 255)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = luma(images.mean(dim=(2, 3), keepdim=True))
    return images.lerp_(mean, 1 - factor).clamp_(0, 255)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return images.lerp_(luma(images), 1 - factor).clamp_(0, 255)


def luma(images: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of RGB images as Pillow weighs it."""
    red, green, blue = images.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Images whose hues are turned by ``shift`` of the colour circle; their greatest and least channel (HSV's V, S) stay.

    On a circle of six sectors a channel is value - chroma · clamp(2 - |sector - 2|, 0, 1): high for two sectors, low for two, and in
    between on its way. Counted in circles, so that nothing has to be scaled on the way there.
    """
    red, green, blue = images.split(1, dim=1)
    value, least = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = value - least
    angle = torch.where(value == red, green - blue,
                        torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)) / chroma.clamp(min=1e-3)
    start = images.new_tensor([11, 9, 7])[:, None, None] / 6  # one turn ahead: nothing below zero, where frac is no remainder
    distance = (angle / 6 + shift + start).frac_().sub_(1 / 3).abs_().clamp_(1 / 6, 1 / 3)  # (B, 3, H, W)
    return torch.addcmul(value - 2 * chroma, chroma, distance, value=6)


class Blur(Step):
    """Of ``RandomApply([GaussianBlur])``."""
    numbers = 1  # the standard deviation, 0 where it is not applied

    def __init__(self, transform: T.RandomApply, size: Sequence[int]) -> None:
        super().__init__(transform, size)
        self.blur, = transform.transforms

    def draw(self) -> Sequence[float]:
        return [0.0 if self.transform.p < torch.rand(1) else self.blur.get_params(*self.blur.sigma)]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        change(images, drawn[:, 0], self.blurred, drawn)

    def blurred(self, images: Tensor, sigma: Tensor) -> Tensor:
        """A Gaussian along the rows, then one along the columns: the same as one in both directions at once.

        As matrix products, which are several times as fast on a CPU as a convolution of single channels.
        """
        width, height = self.blur.kernel_size
        rows, columns = images.shape[2:]
        images = images.flatten(1, 2) @ self.filters(sigma, width, columns).mT  # (B, 3 · rows, columns)
        down = self.filters(sigma, height, rows)
        return torch.stack([down @ channel for channel in images.view(len(images), 3, rows, columns).unbind(dim=1)], dim=1)

    @staticmethod
    def filters(sigma: Tensor, length: int, pixels: int) -> Tensor:
        """Matrices (B, ``pixels``, ``pixels``): a row of pixels, mirrored at its ends, → the same filtered by ``length`` taps."""
        tap = torch.arange(length, device=sigma.device) - length // 2
        source = (torch.arange(pixels, device=sigma.device)[:, None] + tap).abs()
        source = pixels - 1 - (pixels - 1 - source).abs()  # (pixels, length)
        shape = len(sigma), pixels, length
        return sigma.new_zeros(len(sigma), pixels, pixels).scatter_add_(2, source.expand(shape), gaussian(sigma, length)[:, None].expand(shape))


class Affine(Step):
    """Of a ``RandomAffine`` without shear that fills with 0."""
    numbers = 4  # degrees, pixels to the right and down, scale

    def draw(self) -> Sequence[float]:
        t, (height, width) = self.transform, self.size
        angle, shift, scale, _ = t.get_params(t.degrees, t.translate, t.scale, t.shear, (width, height))
        return [angle, *shift, scale]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        angle, right, down, scale = drawn.unbind(dim=1)
        cos, sin = torch.cos(angle.deg2rad()) / scale, torch.sin(angle.deg2rad()) / scale
        height, width = self.size
        # where an output pixel comes from, in units of half the image from its centre, as grid_sample counts
        origin = torch.stack([cos, sin * height / width, -(cos * right + sin * down) * 2 / width,
                              -sin * width / height, cos, (sin * right - cos * down) * 2 / height], dim=1).view(-1, 2, 3)
        change(images, torch.ones(len(images)), self.moved, origin)

    def moved(self, images: Tensor, origin: Tensor) -> Tensor:
        height, width = self.size
        x, y = (torch.arange(1 - length, length, 2, device=images.device) / length for length in (width, height))
        # affine_grid's own product with three columns takes longer than all the rest
        grid = torch.stack([(row[:, :1] * x)[:, None] + (row[:, 1:2] * y)[:, :, None] + row[:, 2:, None]
                            for row in origin.unbind(dim=1)], dim=-1)  # (B, H, W, 2)
        return F.grid_sample(images, grid, mode=self.transform.interpolation.value, align_corners=False)


class Crop(Step):
    """Of a ``RandomCrop`` to the size that the images have, out of a frame of zeros around them."""
    numbers = 2  # top and left

    def draw(self) -> Sequence[float]:
        height, width = (length + 2 * self.transform.padding for length in self.size)
        return self.transform.get_params(torch.empty(3, height, width, device="meta"), self.transform.size)[:2]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        height, width = self.size
        framed = F.pad(images, [self.transform.padding] * 4)
        for image, frame, (top, left) in zip(images, framed, drawn.int().tolist()):
            image.copy_(frame[:, top:top + height, left:left + width])


def change(images: Tensor, chosen: Tensor, operation: Callable[..., Tensor], *per_image: Tensor) -> None:
    """Changes those of B images that are ``chosen``, (B,), by ``operation(images, *per_image)``, which may work in place."""
    chosen = chosen.nonzero()[:, 0]
    at_once = max(1, CACHE_BYTES // images[0].nbytes) if images.device.type == "cpu" else len(images)
    for part in chosen.split(at_once):
        if len(part) == 0:  # of nothing, split makes one empty part
            continue
        values = [value[part].to(images.device) for value in per_image]
        if part[-1] - part[0] == len(part) - 1:  # one beside the other: no copies
            neighbours = images[part[0]:part[-1] + 1]
            neighbours.copy_(operation(neighbours, *values))
        else:
            part = part.to(images.device)
            images.index_copy_(0, part, operation(images.index_select(0, part), *values))


BATCHED = {T.Normalize: Normalize, T.RandomGrayscale: Grayscale, T.ColorJitter: Jitter, T.RandomApply: Blur, T.RandomAffine: Affine,
           T.RandomCrop: Crop}
