"""Image transforms by name, always applied in one order whatever the order of the choices."""

import random
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from yacs.config import CfgNode

from dassl.data.transforms.randaugment import RandAugment
from dassl.utils import check_availability, get_most_similar_str_to_a_from_b

Step = tuple[str, Callable[[Any], Any]]  # what to print, transform

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # accepted as in Dassl: testing crops the centre in any case
    "cutout",
    "randaugment",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
    "gaussian_noise",
]

NOT_HERE = ["imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment_fixmatch", "randaugment2"]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


class Random2DTranslation:
    """With probability `p`, enlarge to 9/8 of the size and crop at random; else only resize."""

    def __init__(
        self, height: int, width: int, p: float = 0.5, interpolation: InterpolationMode = InterpolationMode.BILINEAR
    ) -> None:
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image) -> Image:
        if random.uniform(0, 1) > self.p:
            return F.resize(img, [self.height, self.width], interpolation=self.interpolation)
        width, height = round(self.width * 1.125), round(self.height * 1.125)
        larger = F.resize(img, [height, width], interpolation=self.interpolation)
        left = round(random.uniform(0, width - self.width))
        top = round(random.uniform(0, height - self.height))
        return F.crop(larger, top, left, self.height, self.width)


class InstanceNormalization:
    """Each channel of each image to mean 0 and standard deviation 1."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: Tensor) -> Tensor:  # (c, h, w)
        flat = img.flatten(1)  # (c, h w)
        mean, std = flat.mean(1)[:, None, None], flat.std(1)[:, None, None]
        return (img - mean) / (std + self.eps)


class Cutout:
    """Zero `n_holes` squares of side `length`, whose centres are uniform over the image."""

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: Tensor) -> Tensor:  # (c, h, w)
        h, w = img.shape[1:]
        img = img.clone()
        for _ in range(self.n_holes):
            y, x = np.random.randint(h), np.random.randint(w)
            top, left = y - self.length // 2, x - self.length // 2
            bottom, right = y + self.length // 2, x + self.length // 2
            img[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0
        return img


class GaussianNoise:
    """With probability `p`, add normal noise."""

    def __init__(self, mean: float = 0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: Tensor) -> Tensor:
        if random.uniform(0, 1) > self.p:
            return img
        return img + (torch.randn(img.size()) * self.std + self.mean)


def _check_choices(choices: Collection[str]) -> None:
    for choice in choices:
        if choice in NOT_HERE:
            raise AssertionError(f"INPUT.TRANSFORMS: {choice} is not part of dassl-lite (here: {', '.join(AVAI_CHOICES)})")
        if choice not in AVAI_CHOICES:
            nearest = get_most_similar_str_to_a_from_b(choice, AVAI_CHOICES)
            raise AssertionError(f"INPUT.TRANSFORMS: {choice} is unknown (do you mean {nearest}?)")


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Collection[str] | None = None) -> Any:
    """The transform (`Compose`) for training or testing with `choices` (by default INPUT.TRANSFORMS); prints its steps.

    None with INPUT.NO_TRANSFORM.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    if choices is None:
        choices = cfg.INPUT.TRANSFORMS
    _check_choices(choices)
    check_availability(cfg.INPUT.INTERPOLATION, list(INTERPOLATION_MODES), key="INPUT.INTERPOLATION")
    steps = _train_steps(cfg.INPUT, choices) if is_train else _test_steps(cfg.INPUT, choices)
    print(f"Building transform_{'train' if is_train else 'test'}")
    tfms = []
    for line, tfm in steps:
        print(f"+ {line}")
        tfms.append(tfm)
    return T.Compose(tfms)


def _normalize(inp: CfgNode) -> Step:
    mean, std = inp.PIXEL_MEAN, inp.PIXEL_STD
    return f"normalization (mean={mean}, std={std})", T.Normalize(mean=mean, std=std)


def _train_steps(inp: CfgNode, choices: Collection[str]) -> Iterator[Step]:
    """(what to print, transform) in order."""
    size, interp = inp.SIZE, INTERPOLATION_MODES[inp.INTERPOLATION]
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        yield f"resize to {size[0]}x{size[1]}", T.Resize(size, interpolation=interp)
    if "random_translation" in choices:
        yield "random translation", Random2DTranslation(size[0], size[1])
    if "random_crop" in choices:
        yield f"random crop (padding = {inp.CROP_PADDING})", T.RandomCrop(size, padding=inp.CROP_PADDING)
    if "random_resized_crop" in choices:
        scale = inp.RRCROP_SCALE
        tfm = T.RandomResizedCrop(size, scale=scale, interpolation=interp)
        yield f"random resized crop (size={size}, scale={scale})", tfm
    if "random_flip" in choices:
        yield "random flip", T.RandomHorizontalFlip()
    if "randaugment" in choices:
        n, m = inp.RANDAUGMENT_N, inp.RANDAUGMENT_M
        yield f"randaugment (n={n}, m={m})", RandAugment(n, m)
    if "colorjitter" in choices:
        b, c, s, h = inp.COLORJITTER_B, inp.COLORJITTER_C, inp.COLORJITTER_S, inp.COLORJITTER_H
        line = f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})"
        yield line, T.ColorJitter(brightness=b, contrast=c, saturation=s, hue=h)
    if "randomgrayscale" in choices:
        yield "random gray scale", T.RandomGrayscale(p=inp.RGS_P)
    if "gaussian_blur" in choices:
        yield f"gaussian blur (kernel={inp.GB_K})", T.RandomApply([T.GaussianBlur(inp.GB_K)], p=inp.GB_P)
    yield "to torch tensor of range [0, 1]", T.ToTensor()
    if "cutout" in choices:
        n, length = inp.CUTOUT_N, inp.CUTOUT_LEN
        yield f"cutout (n_holes={n}, length={length})", Cutout(n, length)
    if "normalize" in choices:
        yield _normalize(inp)
    if "gaussian_noise" in choices:
        line = f"gaussian noise (mean={inp.GN_MEAN}, std={inp.GN_STD})"
        yield line, GaussianNoise(inp.GN_MEAN, inp.GN_STD)
    if "instance_norm" in choices:
        yield "instance normalization", InstanceNormalization()


def _test_steps(inp: CfgNode, choices: Collection[str]) -> Iterator[Step]:
    size, interp = inp.SIZE, INTERPOLATION_MODES[inp.INTERPOLATION]
    yield f"resize the smaller edge to {max(size)}", T.Resize(max(size), interpolation=interp)
    yield f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)
    yield "to torch tensor of range [0, 1]", T.ToTensor()
    if "normalize" in choices:
        yield _normalize(inp)
    if "instance_norm" in choices:
        yield "instance normalization", InstanceNormalization()
