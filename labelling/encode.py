"""Features of a run's pictures, each encoded once, in blocks that a killed run and the next round take again."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from trainers.common.errors import raise_machines
from trainers.common.files import write_arrays
from trainers.common.readers import read_arrays
from trainers.data.images import Item
from trainers.engine.run import Run

from .appearance import looks_of
from .seen import FEATURES_FOLDER, write_seen

log = logging.getLogger(__name__)
PICTURES_PER_BLOCK = 256  # pictures of a block, about: a whole number of batches


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
        path → statistics (S,) of how each image looks (``appearance``).
    """
    loaders = run.loaders
    images = loaders.images
    items = (*images.train_x, *images.whole_val, *images.val, *images.test)
    every = {str(item.impath): item for item in items}
    features, looks = encode(run, [*every.values()])
    loaders.features.update(zip(every, features))
    if images.kept is not None:
        images.kept.shown.keep_only(())
    return dict(zip(every, looks))


def encode(run: Run, items: Sequence[Item]) -> Encoded:
    """Return the features of N images and how they look; blocks of both lie in the run's folder, from which a
    killed run and the next round take the images that they know, by their bytes."""
    folder = f"{run.cfg.OUTPUT_DIR}/{FEATURES_FOLDER}"
    key = key_of(run)
    contents = [run.loaders.images.digests[str(item.impath)].hex() for item in items]
    known = read_blocks(folder, key)
    missing = {content: item for content, item in zip(contents, items) if content not in known}
    if missing and run.loaders.images.kept is not None:
        write_seen(run.cfg.OUTPUT_DIR, run.loaders.images.kept)
    for start, block in blocks_of(run, [*missing.values()]):
        part = [*missing][start : start + len(block.looks)]
        write_block(f"{folder}/{number_after(folder):09d}.npz", block, part, key)
        known.update(rows_of(block, part))
    features = torch.stack([known[content].features for content in contents])
    return Encoded(features, numpy.stack([known[content].looks for content in contents]))


def blocks_of(run: Run, items: Sequence[Item]) -> Iterator[tuple[int, Encoded]]:
    """Yield where each block of images starts, and the block."""
    if not items:
        return
    per_batch = run.cfg.DATALOADER.TEST.BATCH_SIZE
    size = max(1, PICTURES_PER_BLOCK // per_batch) * per_batch
    start = 0
    with torch.random.fork_rng(devices=[]):  # a loader draws a seed
        shown = run.pairs(run.loaders.over(items))
        batches = tqdm(shown, "Looking at the images", mininterval=1, dynamic_ncols=True)
        block: list[Encoded] = []
        number = 0
        for batch in batches:
            (pixels,), _ = batch  # (B, 3, H, W)
            (features,), _ = run.method.towers.features_of([batch], normalize=False)  # (B, E)
            block.append(Encoded(features.cpu(), looks_of(pixels)))
            number += len(pixels)
            if number == size or start + number == len(items):
                yield start, join(block)
                start += number
                block = []
                number = 0


def join(parts: Sequence[Encoded]) -> Encoded:
    """Return the images of several parts as one."""
    features = torch.cat([part.features for part in parts])
    return Encoded(features, numpy.concatenate([part.looks for part in parts]))


def rows_of(block: Encoded, contents: Sequence[str]) -> dict[str, Encoded]:
    """Return content → features (E,) and looks (S,); contents: n hashes of the bytes of a block's images.

    Raises:
        ValueError: there are more or fewer of these.
    """
    rows = zip(contents, block.features, block.looks, strict=True)
    return {content: Encoded(features, looks) for content, features, looks in rows}


def key_of(run: Run) -> str:
    """Return a hash of what an image's features follow from: CLIP, precision and how it is shown."""
    towers = run.method.towers
    parts = towers.backbone_hash, towers.precision, run.cfg.INPUT
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def blocks_in(folder: str) -> list[str]:
    """Return the paths of the blocks in a folder, the oldest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [f"{folder}/{name}" for name in sorted(names) if re.fullmatch(r"\d{9}\.npz", name)]


def number_after(folder: str) -> int:
    """Return the number of the next block in a folder."""
    blocks = blocks_in(folder)
    return 1 + int(os.path.basename(blocks[-1])[:9]) if blocks else 0


def read_blocks(folder: str, key: str) -> dict[str, Encoded]:
    """Return the images of the blocks in a folder (``rows_of``); a block of another key, or one that can't
    be read, is removed."""
    known: dict[str, Encoded] = {}
    for place in blocks_in(folder):
        found = read_block(place)
        if found is not None and found[0] == key:
            known.update(found[1])
            continue
        if found is None:
            log.warning("%s can't be read, and is made again", place)
        os.remove(place)
    return known


def images_in(folder: str) -> dict[str, Encoded]:
    """Return the images that a run has encoded (``rows_of``); folder: of the run."""
    known: dict[str, Encoded] = {}
    for place in blocks_in(f"{folder}/{FEATURES_FOLDER}"):
        found = read_block(place)
        known.update(found[1] if found else {})
    return known


def read_block(place: str) -> tuple[str, dict[str, Encoded]] | None:
    """Return a block's key and its images (``rows_of``); None where it can't be read."""
    try:
        arrays = read_arrays(place)
        block = Encoded(torch.from_numpy(arrays["features"]), arrays["looks"])
        return str(arrays["key"]), rows_of(block, arrays["content"].tolist())
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, place)
        return None


def write_block(place: str, images: Encoded, contents: Sequence[str], key: str) -> None:
    """Write the images of a block; contents: hashes of their bytes."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    arrays = {"features": images.features.numpy(), "looks": images.looks}
    write_arrays(place, {**arrays, "content": numpy.array(contents), "key": numpy.array(key)})
