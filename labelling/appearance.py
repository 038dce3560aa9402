"""The appearance of a picture, whatever it shows: a few statistics of its pixels. A CLIP is trained to ignore these, so
that its features alone find few changed cameras (docs/log.md)."""

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

STATISTICS_SIDE = 64  # pixels of a side that statistics are taken of
SCALES = 4  # at which contrast is measured: 64, 32, 16 and 8 pixels a side
NO_CONTRAST = 1e-3  # contrast, below which there is none


def looks_of(pixels: Tensor) -> numpy.ndarray:
    """Return 16 statistics of each picture, (B, 16) in fp32: the means (3) and deviations (3) of the colours,
    mean and deviation of the saturation, and at each of ``SCALES`` the logarithms of the mean and the
    root mean square of the differences of neighbours.

    pixels: (B, 3, H, W), as the CLIP is shown them.
    """
    small = pixels.float()
    if small.shape[2:] != (STATISTICS_SIDE, STATISTICS_SIDE):
        small = F.adaptive_avg_pool2d(small, STATISTICS_SIDE)  # (B, 3, S, S)
    colours = small.flatten(2)  # (B, 3, S²)
    saturation = colours.amax(dim=1) - colours.amin(dim=1)  # (B, S²)
    variance, mean = torch.var_mean(colours, dim=2)  # (B, 3)
    of_saturation, mean_saturation = torch.var_mean(saturation, dim=1)  # (B,)
    found = [mean, variance.sqrt(), torch.stack([mean_saturation, of_saturation.sqrt()], dim=1)]
    grey = small.mean(dim=1)  # (B, S, S)
    for _ in range(SCALES):
        steps = grey.diff(dim=1).flatten(1), grey.diff(dim=2).flatten(1)  # (B, S (S − 1)) each
        number = sum(part.shape[1] for part in steps)
        absolute = sum(torch.linalg.vector_norm(part, 1, dim=1) for part in steps) / number
        squared = sum(torch.linalg.vector_norm(part, 2, dim=1).square() for part in steps) / number
        found.append((torch.stack([absolute, squared.sqrt()], dim=1) + NO_CONTRAST).log())
        grey = F.avg_pool2d(grey, 2)
    return torch.cat(found, dim=1).cpu().numpy()
