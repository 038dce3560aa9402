"""Drawings → training batches: backgrounds, geometry, colour."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)  # CLIP's
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def normalise(images: Tensor) -> Tensor:
    """RGB in [0, 1] → the model's input."""
    return (images - MEAN) / STD


def make_batch(images: Tensor, may_flip: Tensor) -> Tensor:
    """RGBA uint8 (b, 4, s, s) and which may be mirrored (b,) → (b, 3, s, s), normalised. Draws from torch's generator."""
    b = len(images)
    images = images.float().div_(255)
    images[:, :3] *= images[:, 3:]  # premultiplied, so that edges blend rightly
    uniform = torch.rand(8, b)
    scale = torch.where(
        uniform[0] < 0.3, 0.6 + 0.35 * uniform[1], 0.85 + 0.45 * uniform[1]
    )  # < 1 magnifies
    angle = (uniform[2] - 0.5) * math.radians(30) * (uniform[3] < 0.5)
    stretch = torch.exp((torch.rand(b) - 0.5) * 0.3)
    mirror = torch.where((uniform[4] < 0.3) & may_flip, -1.0, 1.0)
    room = 0.15 + 0.5 * (1 - scale).clamp(min=0)  # how far the window may wander
    shift = (torch.rand(b, 2) - 0.5) * 2 * room[:, None]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(
        [cos * mirror * stretch, -sin, shift[:, 0], sin * mirror * stretch, cos, shift[:, 1]], 1
    )
    grid = F.affine_grid(theta.view(b, 2, 3), [b, 4, *images.shape[2:]], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    rgb, alpha = images[:, :3], images[:, 3:]
    backs = torch.rand(b, 3, 1, 1)
    backs[uniform[5] < 0.6] = 1.0
    rgb = rgb + (1 - alpha) * backs
    mix = torch.eye(3) + 0.12 * torch.randn(b, 3, 3) * (uniform[6] < 0.5).view(
        b, 1, 1
    )  # colours drift into each other
    grey = (uniform[7] < 0.1).view(b, 1, 1)
    mix = torch.where(grey, torch.tensor([0.299, 0.587, 0.114]).expand(3, 3), mix)
    light = 1 + 0.3 * (torch.rand(b, 1, 1) - 0.5)
    rgb = torch.baddbmm(0.1 * (torch.rand(b, 1, 1) - 0.5), mix * light, rgb.flatten(2)).view_as(rgb)
    return normalise(rgb.clamp(0, 1))
