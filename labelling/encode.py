"""Features of a run's pictures, each encoded once, in blocks that a killed run takes again."""

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from trainers.common.files import write_arrays
from trainers.common.readers import read_arrays
from trainers.data.images import Item
from trainers.engine.run import Run

from .appearance import looks_of

log = logging.getLogger(__name__)
BLOCK = 256  # pictures of a block, about: a whole number of batches
FEATURES = "features"  # folder of the blocks, in that of a run


class Encoded(NamedTuple):
    """N images as a CLIP and ``appearance`` see them.

    Attributes:
        features: (N, E), the CLIP's own, of any length, on the CPU; looks: (N, S).
    """

    features: Tensor
    looks: numpy.ndarray


@torch.no_grad()
def learn_features(run: Run) -> dict[str, numpy.ndarray]:
    """Encode each image of a run once, as it is tested: the folds, the fit, the tests, the comparison with
    the untrained CLIP and the map of a report take these features, and no pixels.

    Returns:
        path → statistics (S,) of how each image looks, see ``appearance``.
    """
    loaders = run.loaders
    images = loaders.images
    items = (*images.train_x, *images.whole_val, *images.val, *images.test)
    every = {str(item.impath): item for item in items}
    features, looks = encoded(run, [*every.values()])
    loaders.features.update(zip(every, features))
    if images.kept is not None:
        images.kept.shown.keep_only(())
    return dict(zip(every, looks))


def encoded(run: Run, items: Sequence[Item]) -> Encoded:
    """Return the features of N images and how they look; finished blocks are written into the run's folder,
    and those that are there are read."""
    folder = f"{run.cfg.OUTPUT_DIR}/{FEATURES}"
    key = key_of(run)
    per_batch = run.cfg.DATALOADER.TEST.BATCH_SIZE
    size = max(1, BLOCK // per_batch) * per_batch
    parts: list[Encoded] = []
    done = 0
    while done < len(items) and (known := kept(f"{folder}/{done:09d}.npz", key)) is not None:
        parts.append(known)
        done += len(known.features)
    if done == len(items):
        return joined(parts)
    with torch.random.fork_rng(devices=[]):  # a loader draws a seed
        shown = run.pairs(run.loaders.over(items[done:]))
        batches = tqdm(shown, "Looking at the images", mininterval=1, dynamic_ncols=True)
        block: list[Encoded] = []
        number = 0
        for batch in batches:
            (pixels,), _ = batch  # (B, 3, H, W)
            (features,), _ = run.method.towers.features_of([batch], normalize=False)  # (B, E)
            block.append(Encoded(features.cpu(), looks_of(pixels)))
            number += len(pixels)
            if number == size or done + number == len(items):
                parts.append(joined(block))
                write_block(f"{folder}/{done:09d}.npz", parts[-1], key)
                done += number
                block = []
                number = 0
    return joined(parts)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Return the images of several parts as one."""
    features = torch.cat([part.features for part in parts])
    return Encoded(features, numpy.concatenate([part.looks for part in parts]))


def key_of(run: Run) -> str:
    """Return a hash of what features follow from: pictures, CLIP, precision and how pictures are shown."""
    towers = run.method.towers
    parts = run.loaders.images.split_hash, towers.backbone_hash, towers.precision, run.cfg.INPUT
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def kept(place: str, key: str) -> Encoded | None:
    """Return the images of a block; None where there is none of this run that can be read."""
    if not os.path.isfile(place):
        return None
    try:
        arrays = read_arrays(place)
        found = Encoded(torch.from_numpy(arrays["features"]), arrays["looks"])
        return found if str(arrays["key"]) == key else None
    except Exception:  # damaged bytes can raise anything: the features are made again
        log.warning("%s can't be read, and is made again", place)
        return None


def write_block(place: str, images: Encoded, key: str) -> None:
    """Write the images of a block."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    arrays = {"features": images.features.numpy(), "looks": images.looks, "key": numpy.array(key)}
    write_arrays(place, arrays)


def forget_features(run: Run) -> None:
    """Remove the blocks of a run that is done."""
    shutil.rmtree(f"{run.cfg.OUTPUT_DIR}/{FEATURES}", ignore_errors=True)
