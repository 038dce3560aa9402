"""Image transforms by name, always applied in one order whatever the order of the choices."""

from collections.abc import Callable, Collection, Iterator

import torchvision.transforms as T
from PIL import Image
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from dassl.data.transforms.randaugment import RandAugment
from dassl.utils import check_availability

# center_crop is accepted as in Dassl: testing crops the centre in any case
AVAI_CHOICES = (
    "random_flip random_resized_crop normalize random_crop center_crop randaugment".split()
)
INTERPOLATION_MODES = {name: InterpolationMode(name) for name in ("bilinear", "bicubic", "nearest")}


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Collection[str] | None = None
) -> T.Compose | None:
    """The transform (`Compose`) for training or testing with `choices` (by default
    INPUT.TRANSFORMS); prints its steps.

    None with INPUT.NO_TRANSFORM.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    if choices is None:
        choices = cfg.INPUT.TRANSFORMS
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, key="INPUT.TRANSFORMS")
    print(f"Building transform_{'train' if is_train else 'test'}")
    tfms = []
    for line, tfm in _steps(cfg.INPUT, is_train, choices):
        print(f"+ {line}")
        tfms.append(tfm)
    return T.Compose(tfms)


def _steps(
    inp: CfgNode, is_train: bool, choices: Collection[str]
) -> Iterator[tuple[str, Callable[[Image.Image], object]]]:
    """Yield (printed name, transform) in order."""
    size = inp.SIZE
    interp = INTERPOLATION_MODES[inp.INTERPOLATION]
    sides = f"{size[0]}x{size[1]}"
    if is_train:
        if "random_crop" not in choices and "random_resized_crop" not in choices:
            yield f"resize to {sides}", T.Resize(size, interp)
        if "random_crop" in choices:
            padding = inp.CROP_PADDING
            yield f"random crop (padding = {padding})", T.RandomCrop(size, padding)
        if "random_resized_crop" in choices:
            scale = inp.RRCROP_SCALE
            tfm = T.RandomResizedCrop(size, scale, interpolation=interp)
            yield f"random resized crop (size={size}, scale={scale})", tfm
        if "random_flip" in choices:
            yield "random flip", T.RandomHorizontalFlip()
        if "randaugment" in choices:
            n = inp.RANDAUGMENT_N
            m = inp.RANDAUGMENT_M
            yield f"randaugment (n={n}, m={m})", RandAugment(n, m)
    else:
        yield f"resize the smaller edge to {max(size)}", T.Resize(max(size), interp)
        yield f"{sides} center crop", T.CenterCrop(size)
    yield "to torch tensor of range [0, 1]", T.ToTensor()
    if "normalize" in choices:
        mean = inp.PIXEL_MEAN
        std = inp.PIXEL_STD
        yield f"normalization (mean={mean}, std={std})", T.Normalize(mean, std)
