"""Image transforms by name, always applied in one order whatever the order of the choices."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torchvision.transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from dassl.data.transforms.randaugment import RandAugment
from dassl.utils import check_availability

Step = tuple[str, Callable[[Any], Any]]  # what to print, transform

# center_crop is accepted as in Dassl: testing crops the centre in any case
AVAI_CHOICES = (
    "random_flip random_resized_crop normalize random_crop center_crop randaugment".split()
)

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Collection[str] | None = None
) -> Any:
    """The transform (`Compose`) for training or testing with `choices` (by default INPUT.TRANSFORMS); prints its steps.

    None with INPUT.NO_TRANSFORM.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    if choices is None:
        choices = cfg.INPUT.TRANSFORMS
    for choice in choices:
        if choice not in AVAI_CHOICES:
            raise AssertionError(
                f"INPUT.TRANSFORMS: dassl-lite has no {choice}, it has {', '.join(AVAI_CHOICES)}"
            )
    check_availability(
        cfg.INPUT.INTERPOLATION, list(INTERPOLATION_MODES), key="INPUT.INTERPOLATION"
    )
    steps = _train_steps(cfg.INPUT, choices) if is_train else _test_steps(cfg.INPUT, choices)
    print(f"Building transform_{'train' if is_train else 'test'}")
    tfms = []
    for line, tfm in steps:
        print(f"+ {line}")
        tfms.append(tfm)
    return T.Compose(tfms)


def _train_steps(inp: CfgNode, choices: Collection[str]) -> Iterator[Step]:
    """(what to print, transform) in order."""
    size, interp = inp.SIZE, INTERPOLATION_MODES[inp.INTERPOLATION]
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        yield f"resize to {size[0]}x{size[1]}", T.Resize(size, interpolation=interp)
    if "random_crop" in choices:
        yield (
            f"random crop (padding = {inp.CROP_PADDING})",
            T.RandomCrop(size, padding=inp.CROP_PADDING),
        )
    if "random_resized_crop" in choices:
        scale = inp.RRCROP_SCALE
        tfm = T.RandomResizedCrop(size, scale=scale, interpolation=interp)
        yield f"random resized crop (size={size}, scale={scale})", tfm
    if "random_flip" in choices:
        yield "random flip", T.RandomHorizontalFlip()
    if "randaugment" in choices:
        n, m = inp.RANDAUGMENT_N, inp.RANDAUGMENT_M
        yield f"randaugment (n={n}, m={m})", RandAugment(n, m)
    yield from _tensor_steps(inp, choices)


def _test_steps(inp: CfgNode, choices: Collection[str]) -> Iterator[Step]:
    size, interp = inp.SIZE, INTERPOLATION_MODES[inp.INTERPOLATION]
    yield f"resize the smaller edge to {max(size)}", T.Resize(max(size), interpolation=interp)
    yield f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)
    yield from _tensor_steps(inp, choices)


def _tensor_steps(inp: CfgNode, choices: Collection[str]) -> Iterator[Step]:
    yield "to torch tensor of range [0, 1]", T.ToTensor()
    if "normalize" in choices:
        mean, std = inp.PIXEL_MEAN, inp.PIXEL_STD
        yield f"normalization (mean={mean}, std={std})", T.Normalize(mean=mean, std=std)
