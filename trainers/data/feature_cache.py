"""Features that CLIP has of test images without prompts: computed once, for every run whose method does not prompt the image encoder.

``TEST.FEATURE_CACHE`` names the folder, which many runs and machines may share; without it nothing is kept. Of each list of images there is one
file, named by the SHA-256 of all that the features follow from: the images' bytes, how they are cut and normalised, the image encoder's
weights and code, precision, device, torch. Where any of that is another there is no file, and the features are computed as ever.
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
from torch.utils.data import DataLoader, Dataset

from .. import distributed
from ..common.config_files import plain
from ..common.files import file_hash, write_arrays
from ..common.fingerprints import tensor_hash
from ..common.readers import read_arrays
from .loader import CheckedImages

log = logging.getLogger(__name__)

READERS = 8  # of files at a time: a disk in a network answers slowly, but many at once


class ImageFeatures:
    """The features (N, E) of a loader's N images: found in the cache, or taken up batch by batch and then kept there.

    Args:
        path: the file in the cache.
        images: the loader's data set.
    """

    def __init__(self, path: str, images: CheckedImages) -> None:
        self.path, self.images = path, images
        self.indices: Tensor = torch.empty(0, dtype=torch.long)  # (B,), of the batch at hand
        self.parts: list[tuple[Tensor, Tensor]] = []  # indices (B,), features (B, E), until all are there
        self.found = distributed.from_first(partial(read, path, len(images)))

    def loader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """The same batches without reading the images, where their features are there; else the loader itself."""
        self.parts = []
        return loader if self.found is None else DataLoader(ImagesNotRead(self.images), batch_size=loader.batch_size)

    def of_batch(self, compute: Callable[[], Tensor], device: torch.device) -> Tensor:
        """Features (1, B, E) of the batch at hand; ``compute()`` gives them where they are not there."""
        if self.found is not None:
            return self.found[self.indices].to(device)[None]
        features = compute()
        self.parts.append((self.indices, features[0].cpu()))
        return features

    def keep(self) -> None:
        """Writes what was taken up, if that is all of it: not where images were skipped. A folder that can't be written to is warned of."""
        if self.found is not None or not self.parts:
            return
        indices, features = (torch.cat(part) for part in zip(*self.parts))
        if not torch.equal(indices, torch.arange(len(self.images))):
            return
        self.found = features
        if distributed.is_first():
            try:
                write_arrays(self.path, {"features": features.numpy(), "sha256": numpy.array(content_hash(features.numpy()))})
            except OSError as error:
                log.warning("The features of %d images are not kept: %s (%s)", len(features), self.path, error.strerror)


class ImagesNotRead(Dataset[dict[str, Any]]):
    """The items of a data set with an empty tensor for each image."""

    def __init__(self, images: CheckedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images.facts(index), "img": torch.empty(0)}


def file_of(folder: str, loader: DataLoader[Any], encoder: nn.Module, *circumstances: object) -> str | None:
    """Path in the cache for the features of a loader's images; None where one of them can't be read, which is left to the loader to say.

    Args:
        encoder: of the images. circumstances: whatever else the features depend on, as JSON takes it or as text.
    """
    images = loader.dataset
    assert isinstance(images, CheckedImages)
    try:
        with ThreadPoolExecutor(READERS) as readers:
            contents = list(readers.map(file_hash, [item.impath for item in images.data_source]))
    except OSError:
        return None
    device = next(encoder.parameters()).device
    made_from = {
        "images": contents, "transform": repr(images.transform), "input": plain(images.cfg.INPUT),
        "batch size": loader.batch_size,  # which decides how sums are rounded
        "encoder": repr(encoder), "weights": tensor_hash(encoder.state_dict().values()), "code": code_hash(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type, "torch": torch.__version__,
        "circumstances": circumstances,
    }
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
    return os.path.join(folder, f"{name}.npz")


def code_hash() -> str:
    """Of the code that makes a feature from an image."""
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
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, MemoryError):
        pass
    log.warning("%s is damaged: the features of its %d images are computed anew", path, count)
    return None


def content_hash(features: numpy.ndarray) -> str:
    return hashlib.sha256(repr((features.dtype, features.shape)).encode() + features.tobytes()).hexdigest()
