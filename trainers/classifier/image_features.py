"""Images as vectors, under the prompts that a classifier has learned."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from ..common.errors import UserError
from ..data.pictures import Picture
from ..method import Encoded, Method


@torch.no_grad()
def image_features(
    method: Method,
    images: Iterable[Picture],
    read: Callable[[Picture], Tensor | UserError],
    encoded: Encoded | None,
    cfg: CfgNode,
) -> numpy.ndarray:
    """Features (N, E) of N images, of length one: the mean over the M templates that prompt them.

    Args:
        read: an image → its pixels (3, H, W), or why it can't be read; encoded: ``Method.encode``'s.

    Raises:
        UserError: an image can't be read, or there is none.
    """
    features = []
    remaining = iter(images)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(remaining, cfg.DATALOADER.TEST.BATCH_SIZE)):
            pixels = []
            for result in pool.map(read, batch):
                if not isinstance(result, Tensor):
                    raise result
                pixels.append(result)
            shown = torch.stack(pixels).to(method.device)  # (B, 3, H, W)
            of_templates = method(shown[None], encoded).image_features  # (M or 1, B, E)
            features.append(F.normalize(of_templates.mean(dim=0), dim=-1).float().cpu())
    if not features:
        raise UserError("there is no image to look at: give at least one")
    return torch.cat(features).numpy()
