"""torchvision's transforms on batches of tensors: each has a counterpart here, which changes every image by its own random numbers."""
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from torch import Tensor

from .batch_memory import CACHE_BYTES
from .views import gaussian

BLOCK = 64  # pixels of a row that are blurred at once


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
        images.mul_(1 / std).sub_(mean / std)


class Sometimes(Step):
    """One that changes an image, with a probability, or leaves it."""
    numbers = 1

    def draw(self) -> Sequence[float]:
        return [float(torch.rand(1) < self.transform.p)]


class Flip(Sometimes):
    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        change(images, drawn[:, 0], lambda chosen: chosen.flip(-1))


class Grayscale(Sometimes):
    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        change(images, drawn[:, 0], lambda chosen: luma(chosen).expand_as(chosen))


class Jitter(Step):
    numbers = 8  # the order of the four adjustments, and the factor of each

    def __init__(self, transform: T.ColorJitter, size: Sequence[int]) -> None:
        super().__init__(transform, size)
        self.ranges = (transform.brightness, transform.contrast, transform.saturation, transform.hue)  # None: not adjusted

    def draw(self) -> Sequence[float]:
        order, *factors, shift = self.transform.get_params(*self.ranges)
        return [*order.tolist(), *(1.0 if factor is None else factor for factor in factors), shift or 0.0]

    def __call__(self, images: Tensor, drawn: Tensor) -> None:
        factors = drawn[:, 4:].index_fill(1, torch.tensor(HUE), 1.0)
        for kinds in drawn[:, :4].long().unbind(dim=1):  # of the adjustment whose turn it is, (B,)
            scale(images, kinds, factors.gather(1, kinds[:, None]))
            if self.ranges[HUE] is not None:
                change(images, kinds == HUE, hue, drawn[:, 4 + HUE, None, None, None])


CONTRAST, SATURATION, HUE = 1, 2, 3  # kinds of adjustments as ``ColorJitter`` counts them; 0 is brightness


def scale(images: Tensor, kinds: Tensor, factors: Tensor) -> None:
    """Scales each image's distance from what it would be without brightness, contrast or saturation, as its kind (B,) is, by its factor (B, 1)."""
    rest = (1 - factors) * torch.stack([kinds == SATURATION, kinds == CONTRAST], dim=1)
    factor, of_grey, of_mean = torch.cat([factors, rest], dim=1).to(images.device)[:, :, None, None, None].unbind(dim=1)  # each (B, 1, 1, 1)
    without = luma(images)  # (B, 1, H, W)
    mean = without.mean(dim=(2, 3), keepdim=True)
    images.mul_(factor).add_(without.mul_(of_grey).add_(of_mean * mean)).clamp_(0, 255)


def luma(images: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of RGB images as Pillow weighs it."""
    red, green, blue = images.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Images, in place, whose hues are turned by ``shift`` of the colour circle; their greatest and least channel (HSV's V, S) stay.

    On a circle of six sectors a channel is value - chroma · clamp(2 - |sector - 2|, 0, 1): high for two sectors, low for two, and in
    between on its way. Counted in circles, so that nothing has to be scaled on the way there.
    """
    red, green, blue = images.split(1, dim=1)
    value, chroma = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = torch.sub(value, chroma, out=chroma)
    # between red and yellow the angle is (green - blue) / chroma, and so on; which channel is greatest is a weight of 0 or 1 (its sign), for
    # comparisons take a CPU several times as long
    angle = torch.add(blue - red, chroma, alpha=2)
    angle.lerp_((red - green).add_(chroma, alpha=4), (value - green).sign_())
    angle = (green - blue).lerp_(angle, (value - red).sign_()).div_(chroma.clamp(min=1e-3))
    start = images.new_tensor([11, 9, 7])[:, None, None] / 6  # one turn ahead: nothing below zero, where frac is no remainder
    distance = torch.add(start + shift, angle, alpha=1 / 6).frac_().sub_(1 / 3).abs_().clamp_(1 / 6, 1 / 3)  # (B, 3, H, W)
    return torch.addcmul(value.sub_(chroma, alpha=2), chroma, distance, value=6, out=images)


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

        As matrix products, which are several times as fast on a CPU as a convolution of single channels, and block by block, because a
        pixel depends on few others.
        """
        width, height = self.blur.kernel_size
        rows, columns = images.shape[2:]
        across = self.filters(sigma, width, columns)
        down = across if (height, rows) == (width, columns) else self.filters(sigma, height, rows)
        filtered = torch.empty_like(images)
        for block, around in blocks(columns, width):
            torch.bmm(images.flatten(1, 2)[..., around], across[:, block, around].mT, out=filtered.flatten(1, 2)[..., block])
        for block, around in blocks(rows, height):
            images[:, :, block] = down[:, None, block, around] @ filtered[:, :, around]
        return images

    @staticmethod
    def filters(sigma: Tensor, length: int, pixels: int) -> Tensor:
        """Matrices (B, ``pixels``, ``pixels``): a row of pixels, mirrored at its ends, → the same filtered by ``length`` taps."""
        tap = torch.arange(length, device=sigma.device) - length // 2
        source = (torch.arange(pixels, device=sigma.device)[:, None] + tap).abs()
        source = pixels - 1 - (pixels - 1 - source).abs()  # (pixels, length)
        shape = len(sigma), pixels, length
        return sigma.new_zeros(len(sigma), pixels, pixels).scatter_add_(2, source.expand(shape), gaussian(sigma, length)[:, None].expand(shape))


def blocks(pixels: int, length: int) -> Iterator[tuple[slice, slice]]:
    """A row of pixels in parts, each with all that a filter of ``length`` taps, mirrored at the row's ends, sees from it."""
    for first in range(0, pixels, BLOCK):
        yield slice(first, first + BLOCK), slice(max(0, first - length // 2), first + BLOCK + length // 2)


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
        grid = images.new_empty(len(images), height, width, 2)
        for axis, row in enumerate(origin.unbind(dim=1)):
            torch.add((row[:, :1] * x + row[:, 2:])[:, None], (row[:, 1:2] * y)[:, :, None], out=grid[..., axis])
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
    for part in parts(chosen.nonzero()[:, 0].tolist(), images):
        values = [value[part].to(images.device) for value in per_image]
        if isinstance(part, slice):
            neighbours = images[part]
            neighbours.copy_(operation(neighbours, *values))
        else:
            index = torch.tensor(part, device=images.device)
            images.index_copy_(0, index, operation(images.index_select(0, index), *values))


def parts(chosen: Sequence[int], images: Tensor) -> Iterator[slice | list[int]]:
    """What to change of ``images`` at once, given the places of all that are to be changed.

    Neighbours are a slice, changed where they are. Others are copied together first, but for images so large that this takes longer than
    it saves.
    """
    runs: list[list[int]] = []
    for place in chosen:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    if len(runs) > 1 and (images.device.type != "cpu" or images[0].nbytes < CACHE_BYTES / 8):
        yield list(chosen)
    else:
        yield from (slice(run[0], run[-1] + 1) for run in runs)


BATCHED = {T.Normalize: Normalize, T.RandomHorizontalFlip: Flip, T.RandomGrayscale: Grayscale, T.ColorJitter: Jitter, T.RandomApply: Blur,
           T.RandomAffine: Affine, T.RandomCrop: Crop}
