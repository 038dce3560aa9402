"""From a picture to the pixels that a CLIP takes; Dassl's test transform, without Dassl."""

import torchvision.transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode


def pixels_of_test(settings: CfgNode) -> T.Compose:
    """The transform of test images, PIL image → (3, H, W): the smaller edge resized, the centre cut
    out; normalised if ``TRANSFORMS`` names it.

    settings: ``cfg.INPUT``.
    """
    size = tuple(settings.SIZE)
    steps = [
        T.Resize(max(size), InterpolationMode(settings.INTERPOLATION)),
        T.CenterCrop(size),
        T.ToTensor(),
    ]
    if "normalize" in settings.TRANSFORMS:
        steps.append(T.Normalize(settings.PIXEL_MEAN, settings.PIXEL_STD))
    return T.Compose(steps)
