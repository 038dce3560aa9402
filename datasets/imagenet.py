"""ImageNet in CoOp's layout: ``imagenet/images/{train,val}/<wnid>/…`` and ``imagenet/classnames.txt``."""

import os
import re
from collections.abc import Mapping, Sequence

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import listdir_nohidden

from trainers.common.errors import UserError

from .base import ImageDataset
from .fewshot import match, relative
from .pickles import read_pickle
from .splits import Image, Lists, find_folder, read_lines, subfolders


@DATASET_REGISTRY.register()
class ImageNet(ImageDataset):
    """Labels follow the sorted WordNet ids; the validation images are the test set, and serve as ``val`` too."""

    dataset_dir = "imagenet"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        classnames = read_classnames(f"{folder}/classnames.txt")
        folders = [find_folder(folder, "images", part) for part in ("train", "val")]
        wnids, tested = (class_folders(place) for place in folders)
        if wnids != tested:
            differing = sorted(set(wnids) ^ set(tested))
            raise UserError(
                f"{folders[0]} and {folders[1]} hold different classes "
                f"({', '.join(differing[:3])}{' …' if len(differing) > 3 else ''}): unpack both wholly"
            )
        train, test = (read_images(place, wnids, classnames) for place in folders)
        train = in_coops_order(train, folder)
        return train, test, test


def in_coops_order(train: list[Image], folder: str) -> list[Image]:
    """The training images in the order of CoOp's ``preprocessed.pkl`` where there is one, else as they are.

    CoOp takes the order of the file system, notes it in that file, and draws its samples from it.

    Raises:
        UserError: the file is unsafe, or lists other images than the folder holds.
    """
    path = f"{folder}/preprocessed.pkl"
    if not os.path.isfile(path):
        return train
    known = {(relative(image.impath, folder), image.label): image for image in train}
    ordered = [match(name, label, known) for name, label in read_pickle(path, ("train",))["train"]]
    if None in ordered or len(set(ordered)) != len(train):
        raise UserError(
            f"{path} lists other training images than {os.path.join(folder, 'images', 'train')} holds: "
            "delete it or complete the images"
        )
    return [image for image in ordered if image is not None]


def read_classnames(path: str) -> dict[str, str]:
    """Folder name → class name, from lines ``folder name`` (the folder's name ends at a tab, or else at the first space), in their order.

    Raises:
        UserError: the file is missing, or a line has no name.
    """
    lines = read_lines(path, "CoOp's DATASETS.md says where to get it")
    pairs = [line.split("\t" if "\t" in line else " ", 1) for line in lines]
    bad = next((line for line, pair in zip(lines, pairs) if len(pair) < 2), None)
    if bad is not None:
        raise UserError(
            f"{path}: the line {bad!r} must be a folder's name, a space and the class name"
        )
    return {folder: name.strip() for folder, name in pairs}


def class_folders(folder: str) -> list[str]:
    """The folders named by a WordNet id, sorted; whatever else lies there is no class."""
    return [name for name in subfolders(folder) if re.fullmatch(r"n\d+", name)]


def read_images(folder: str, wnids: Sequence[str], classnames: Mapping[str, str]) -> list[Image]:
    """All images of a folder of class folders, sorted; labels are positions in ``wnids``.

    Raises:
        UserError: a class folder has no name in ``classnames.txt``.
    """
    images = []
    for label, wnid in enumerate(wnids):
        if wnid not in classnames:
            raise UserError(f"{os.path.join(folder, wnid)} has no name in classnames.txt")
        images += [
            Image(f"{folder}/{wnid}/{name}", label, classnames[wnid])
            for name in listdir_nohidden(f"{folder}/{wnid}", sort=True)
        ]
    return images
