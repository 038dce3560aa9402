"""Cache of CLIP's features of test images without prompts, for all runs whose method does not prompt the image encoder.

``TEST.FEATURE_CACHE`` names the folder, which many runs and machines may share; without it nothing is kept. Of each list of images there is one
file, named by the SHA-256 of all that the features follow from: the images' bytes, how they are cut and normalised, the image encoder's
weights and code, precision, device, torch. If any of that differs, there is no file, and the features are computed.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .. import distributed
from ..common.config_files import plain
from ..common.files import write_arrays
from ..common.image_files import picture_hash
from ..common.fingerprints import tensor_hash
from ..common.readers import read_arrays
from .loader import CheckedImages

log = logging.getLogger(__name__)

READERS = 8  # of files at a time: a disk in a network answers slowly, but many at once


class Features(Dataset[dict[str, Any]]):
    """The items of a data set of images whose ``img`` is the image's feature (E,); images that can't be read are left out.

    Args:
        images: the data set.
        indices: (n,) of its images.
        features: (n, E) of those.
    """

    def __init__(self, images: CheckedImages, indices: Tensor, features: Tensor) -> None:
        self.images, self.indices, self.features = images, indices, features

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images.facts(int(self.indices[index])), "img": self.features[index]}


def features_of(
    path: str, images: CheckedImages, encode: Callable[[], tuple[Tensor, Tensor]]
) -> Features:
    """The features of N images: those in the cache, else computed, and kept there if no image is missing.

    A folder that can't be written to is warned of.

    Args:
        path: the file in the cache, see ``file_of``.
        encode: gives indices (n,) of the images that can be read, and their features (n, E), both on the CPU.
    """
    found = distributed.from_first(partial(read, path, len(images)))
    if found is not None:
        return Features(images, torch.arange(len(images)), found)
    indices, features = encode()
    if distributed.is_first() and torch.equal(indices, torch.arange(len(images))):
        try:
            write_arrays(
                path,
                {
                    "features": features.numpy(),
                    "sha256": numpy.array(content_hash(features.numpy())),
                },
            )
        except OSError as error:
            log.warning(
                "The features of %d images are not kept: %s (%s)",
                len(features),
                path,
                error.strerror,
            )
    return Features(images, indices, features)


def file_of(
    folder: str,
    images: CheckedImages,
    batch_size: int | None,
    encoder: nn.Module,
    *circumstances: object,
) -> str | None:
    """Path in the cache for the features of images; None if one of them can't be read, which their loader will report.

    Args:
        batch_size: images encoded at a time.
        encoder: of the images.
        circumstances: whatever else the features depend on, as JSON takes it or as text.
    """
    try:
        with ThreadPoolExecutor(READERS) as readers:
            contents = list(readers.map(picture_hash, [item.impath for item in images.data_source]))
    except (OSError, ValueError):
        return None
    device = next(encoder.parameters()).device
    made_from = {
        "images": contents,
        "transform": repr(images.transform),
        "input": plain(images.cfg.INPUT),
        "batch size": batch_size,  # which decides how sums are rounded
        "encoder": repr(encoder),
        "weights": tensor_hash(encoder.state_dict().values()),
        "code": code_hash(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "circumstances": circumstances,
    }
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
    return os.path.join(folder, f"{name}.npz")


def code_hash() -> str:
    """Hash of the code from image to feature."""
    files: Sequence[Path] = sorted(Path(__file__).parents[1].joinpath("prompting").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def read(path: str, count: int) -> Tensor | None:
    """Features (N, E) of that many images; None where there is no such file, or it is damaged, which is warned of."""
    if not os.path.exists(path):
        return None
    try:
        found = read_arrays(path)
        features, sha256 = found["features"], str(found["sha256"])
        if sha256 == content_hash(features) and features.ndim == 2 and len(features) == count:
            return torch.from_numpy(features)
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
        MemoryError,
    ):
        pass
    log.warning("%s is damaged: the features of its %d images are computed anew", path, count)
    return None


def content_hash(features: numpy.ndarray) -> str:
    return hashlib.sha256(
        repr((features.dtype, features.shape)).encode() + features.tobytes()
    ).hexdigest()
