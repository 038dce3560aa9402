"""Features of a run's pictures, each encoded once, in blocks that a killed run takes again."""

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from trainers.common.files import write_arrays
from trainers.common.readers import read_arrays
from trainers.data.images import Item
from trainers.engine.run import Run

log = logging.getLogger(__name__)
BLOCK = 256  # pictures of a block, about: a whole number of batches
FEATURES = "features"  # folder of the blocks, in that of a run


@torch.no_grad()
def learn_features(run: Run) -> None:
    """Encode each image of a run once, as it is tested: the folds, the fit, the tests, the comparison with
    the untrained CLIP and the map of a report take these features, and no pixels."""
    loaders = run.loaders
    images = loaders.images
    items = (*images.train_x, *images.whole_val, *images.val, *images.test)
    every = {str(item.impath): item for item in items}
    features = encoded(run, [*every.values()])
    loaders.features.update(zip(every, features))
    if images.kept is not None:
        images.kept.shown.keep_only(())


def encoded(run: Run, items: Sequence[Item]) -> Tensor:
    """Return the features (N, E), of any length, on the CPU; finished blocks are written into the run's
    folder, and those that are there are read."""
    folder = f"{run.cfg.OUTPUT_DIR}/{FEATURES}"
    key = key_of(run)
    per_batch = run.cfg.DATALOADER.TEST.BATCH_SIZE
    size = max(1, BLOCK // per_batch) * per_batch
    parts = []
    done = 0
    while done < len(items) and (known := kept(f"{folder}/{done:09d}.npz", key)) is not None:
        parts.append(known)
        done += len(known)
    if done == len(items):
        return torch.cat(parts)
    with torch.random.fork_rng(devices=[]):  # a loader draws a seed
        shown = run.pairs(run.loaders.over(items[done:]))
        batches = tqdm(shown, "Looking at the images", mininterval=1, dynamic_ncols=True)
        block: list[Tensor] = []
        for batch in batches:
            (features,), _ = run.method.towers.features_of([batch], normalize=False)  # (B, E)
            block.append(features.cpu())
            number = sum(map(len, block))
            if number == size or done + number == len(items):
                parts.append(torch.cat(block))
                write_block(f"{folder}/{done:09d}.npz", parts[-1], key)
                done += number
                block = []
    return torch.cat(parts)


def key_of(run: Run) -> str:
    """Return a hash of what features follow from: pictures, CLIP, precision and how pictures are shown."""
    towers = run.method.towers
    parts = run.loaders.images.split_hash, towers.backbone_hash, towers.precision, run.cfg.INPUT
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def kept(place: str, key: str) -> Tensor | None:
    """Return the features of a block; None where there is none of this run that can be read."""
    if not os.path.isfile(place):
        return None
    try:
        arrays = read_arrays(place)
        return torch.from_numpy(arrays["features"]) if str(arrays["key"]) == key else None
    except Exception:  # damaged bytes can raise anything: the features are made again
        log.warning("%s can't be read, and is made again", place)
        return None


def write_block(place: str, features: Tensor, key: str) -> None:
    """Write the features (n, E) of a block."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    write_arrays(place, {"features": features.numpy(), "key": numpy.array(key)})


def forget_features(run: Run) -> None:
    """Remove the blocks of a run that is done."""
    shutil.rmtree(f"{run.cfg.OUTPUT_DIR}/{FEATURES}", ignore_errors=True)
