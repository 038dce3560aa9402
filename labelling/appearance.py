"""How a picture looks, whatever it shows: a few statistics of its pixels. A CLIP is trained to ignore these, so
that its features alone find few changed cameras (docs/log.md)."""

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64  # pixels of a side that statistics are taken of
SCALES = 4  # at which contrast is measured: 64, 32, 16 and 8 pixels a side
FAINT = 1e-3  # contrast, below which there is none


def looks_of(pixels: Tensor) -> numpy.ndarray:
    """Return 16 statistics of each picture, (B, 16) in fp32: the means (3) and deviations (3) of the colours,
    mean and deviation of the saturation, and at each of ``SCALES`` the logarithms of the mean and the
    root mean square of the differences of neighbours.

    pixels: (B, 3, H, W), as the CLIP is shown them.
    """
    small = F.adaptive_avg_pool2d(pixels.float(), SIDE)  # (B, 3, S, S)
    saturation = small.amax(dim=1) - small.amin(dim=1)  # (B, S, S)
    found = [
        small.mean(dim=(2, 3)),
        small.std(dim=(2, 3)),
        torch.stack([saturation.mean(dim=(1, 2)), saturation.std(dim=(1, 2))], dim=1),
    ]
    grey = small.mean(dim=1, keepdim=True)  # (B, 1, S, S)
    for _ in range(SCALES):
        steps = [grey.diff(dim=2).flatten(1), grey.diff(dim=3).flatten(1)]
        contrast = torch.cat(steps, dim=1).abs()  # (B, 2 S (S − 1))
        root_mean_square = contrast.square().mean(dim=1).sqrt()
        means = torch.stack([contrast.mean(dim=1), root_mean_square], dim=1)  # (B, 2)
        found.append((means + FAINT).log())
        grey = F.avg_pool2d(grey, 2)
    return torch.cat(found, dim=1).cpu().numpy()
