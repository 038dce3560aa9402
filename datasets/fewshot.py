"""The few-shot sample of a run: CoOp's rule for every data set.

Where CoOp, or anything built on it, has left ``<data set>/split_fewshot/shot_S-seed_N.pkl``, that
sample is taken. Else it is drawn with Python's generator freshly seeded, whose state is then
restored: the sample is CoOp's for that seed, and what follows in the run does not depend on whether
a file was there. (CoOp's runs do: its first run of a seed goes on with a used generator, later
ones, which read the file, with a fresh one. Every run here is like the later ones.) Nothing is
written: the same seed draws the same sample again, whose hash is in the run record. Without a seed
(below 0) the sample is drawn with the generator as it is, and no file is read.
"""

import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from dassl.data.datasets import DatasetBase

from trainers.common.errors import UserError

from .pickles import read_pickle
from .splits import Image

VALIDATION_SHOTS = 4  # at most, as in CoOp
FOLDER = "split_fewshot"
Parts = Mapping[str, list[Image]]  # by their names: train, val


def sample_of(
    dataset: DatasetBase, parts: Parts, shots: Mapping[str, int], seed: int
) -> tuple[Parts, str]:
    """The sample of a seed, CoOp's where its file is there, else drawn, and where it is from. With
    a seed the generator is left as it was."""
    folder = dataset.dataset_dir
    coops = f"{folder}/{FOLDER}/shot_{shots['train']}-seed_{seed}.pkl"
    if seed >= 0 and os.path.isfile(coops):
        sample = resolve(coops, read_pickle(coops, parts), parts, shots, folder)
        return sample, f"CoOp: {os.path.basename(coops)}"
    state = random.getstate()
    if seed >= 0:
        random.seed(seed)
    drawn = {
        part: dataset.generate_fewshot_dataset(images, num_shots=shots[part])
        for part, images in parts.items()
    }
    if seed < 0:
        return drawn, "drawn without a seed"
    random.setstate(state)
    return drawn, f"drawn with seed {seed}"


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
        folder: the data set's folder; what is in the sample is an image of it or refused.

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
    """Those of the images below a folder that a file of CoOp lists by path and label.

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
