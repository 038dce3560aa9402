"""The few-shot sample of a run: CoOp's rule for every data set.

Where CoOp, or anything built on it, has left ``<data set>/split_fewshot/shot_S-seed_N.pkl``, that
sample is taken. Else it is drawn with Python's generator freshly seeded, whose state is then
restored: the sample is CoOp's for that seed, and later draws of the run do not depend on whether
a file was there. (CoOp's runs do: its first run of a seed goes on with a used generator, later
ones, which read the file, with a fresh one. Every run here is like the later ones.) Nothing is
written: the same seed draws the same sample again, whose hash is in the run record. Without a seed
(below 0) the sample is drawn with the generator as it is, and no file is read.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from ..common.errors import UserError
from ..common.fingerprints import split_hash
from .lists import Image, subsample_classes
from .pickles import read_pickle

VALIDATION_SHOTS = 4  # at most, as in CoOp
SAMPLES_FOLDER = "split_fewshot"
Parts = Mapping[str, list[Image]]  # by their names: train, val


class FewShot(NamedTuple):
    """The images that a run trains, validates and tests on.

    Attributes:
        val: the test list itself where the data set has no validation images of its own.
        whole_val: all validation images of the run's classes; ``val`` may be a sample of them.
        sample: ``hash`` and ``origin`` of the few-shot sample, None where all images are taken.
    """

    train: list[Image]
    val: list[Image]
    test: list[Image]
    whole_val: list[Image]
    sample: dict[str, str] | None


def choose(
    cfg: CfgNode, folder: str, train: list[Image], val: list[Image], test: list[Image]
) -> FewShot:
    """Choose a run's images from a data set.

    With ``NUM_SHOTS`` ≥ 1 that many training images a class are taken and at most 4 validation
    images; then ``SUBSAMPLE_CLASSES`` keeps the base or the new classes. ``val`` may be the test
    list itself (ImageNet), which is not sampled.

    Args:
        cfg: the run's config; folder: the data set's.

    Raises:
        UserError: a stored sample can't be used, or no class is left.
    """
    val_is_test = val is test
    whole = val
    sample = None
    most = cfg.DATASET.NUM_SHOTS
    if most >= 1:
        parts: Parts = {"train": train} if val_is_test else {"train": train, "val": val}
        shots = {"train": most, "val": min(most, VALIDATION_SHOTS)}
        parts, origin = sample_of(folder, parts, shots, cfg.SEED)
        train = parts["train"]
        val = parts.get("val", val)
        sample = {"hash": split_hash(train, parts.get("val", ()), ()), "origin": origin}
    train, val, test, whole = subsample_classes(
        train, val, test, whole, subsample=cfg.DATASET.SUBSAMPLE_CLASSES
    )
    return FewShot(train, test if val_is_test else val, test, whole, sample)


def sample_of(folder: str, parts: Parts, shots: Mapping[str, int], seed: int) -> tuple[Parts, str]:
    """The sample of a seed, CoOp's where its file is in the data set's folder, else drawn, and where
    it is from. With a seed the generator is left as it was."""
    coops = f"{folder}/{SAMPLES_FOLDER}/shot_{shots['train']}-seed_{seed}.pkl"
    if seed >= 0 and os.path.isfile(coops):
        sample = resolve(coops, read_pickle(coops, parts), parts, shots, folder)
        return sample, f"CoOp: {os.path.basename(coops)}"
    state = random.getstate()
    if seed >= 0:
        random.seed(seed)
    drawn = {part: draw(images, shots[part]) for part, images in parts.items()}
    if seed < 0:
        return drawn, "drawn without a seed"
    random.setstate(state)
    return drawn, f"drawn with seed {seed}"


def draw(images: Sequence[Image], shots: int) -> list[Image]:
    """Draws a number of images of each class, all of one that has fewer, with the draws of Dassl's
    ``generate_fewshot_dataset``."""
    by_label: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        by_label[image.label].append(image)
    drawn = []
    for members in by_label.values():
        drawn += random.sample(members, shots) if len(members) >= shots else members
    return drawn


def resolve(
    path: str,
    sample: Mapping[str, Sequence[tuple[str, int]]],
    parts: Parts,
    shots: Mapping[str, int],
    folder: str,
) -> Parts:
    """The images that a stored sample names, wherever the data folder lay when it was written.

    Args:
        path: the sample's file; sample: part → list of (path, label).
        parts: part → all its images; shots: part → images a class.
        folder: the data set's folder; all in the sample are images of it, or refused.

    Raises:
        UserError: a path or label that the split doesn't have, or a class without its number of images.
    """
    chosen: dict[str, list[Image]] = {}
    for part, images in parts.items():
        chosen[part] = images_listed(path, sample[part], images, folder)
        present = Counter(image.label for image in images)
        wanted = {label: min(shots[part], count) for label, count in present.items()}
        if Counter(image.label for image in chosen[part]) != wanted:
            raise UserError(
                f"few-shot sample {path} must have {shots[part]} {part} images of each class, or all that there "
                "are: delete it"
            )
    return chosen


def images_listed(
    path: str, entries: Sequence[tuple[str, int]], images: Sequence[Image], folder: str
) -> list[Image]:
    """Pick the images below a folder that a file of CoOp lists by path and label.

    Raises:
        UserError: it lists another image, or one twice.
    """
    known = {}
    for image in images:
        below = image.impath.removeprefix(folder).lstrip(os.sep).replace(os.sep, "/")
        known[below, image.label] = image
    chosen: dict[Image, None] = {}
    for name, label in entries:
        listed = match(name, label, known)
        if listed is None or listed in chosen:
            problem = "twice" if listed else f"which {folder} has not"
            raise UserError(
                f"{path} lists {name} with label {label}, {problem}: it belongs to another split or data set, "
                "delete it"
            )
        chosen[listed] = None
    return list(chosen)


def match(name: str, label: int, known: Mapping[tuple[str, int], Image]) -> Image | None:
    """The image whose path below the data folder is the longest end of ``name``, or None."""
    spellings = (name, name.replace("\\", "/"))  # a backslash may be Windows' or of the name
    ends = (
        text.split("/", steps)[-1] for text in spellings for steps in range(text.count("/") + 1)
    )
    return next((known[end, label] for end in ends if (end, label) in known), None)
