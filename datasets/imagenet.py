"""ImageNet in CoOp's layout, and the four sets that a prompt learned on it is tested on.

``imagenet/images/{train,val}/<wnid>/…`` and ``imagenet/classnames.txt``; each of the four
has a copy of it.
"""

import os
import shlex

from dassl.data.datasets import DATASET_REGISTRY

from trainers.common.errors import UserError
from trainers.common.image_files import is_image
from trainers.data.class_folders import lists_with_labels, numbered_files, read_classnames
from trainers.data.fewshot import images_listed
from trainers.data.lists import Image, Lists
from trainers.data.pickles import read_pickle

from .base import ImageDataset, TargetDataset, register

CLASSNAMES_FILE = "classnames.txt"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


@DATASET_REGISTRY.register()
class ImageNet(ImageDataset):
    """Labels follow the sorted WordNet ids; the validation images are the test set, and serve as
    ``val`` too."""

    dataset_dir = "imagenet"
    image_dir = "images"
    lists = (CLASSNAMES_FILE,)
    lists_images = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        parts = {
            part: numbered_files(f"{folder}/images/{place}")
            for part, place in (("train", "train"), ("test", "val"))
        }
        unsorted = first_picture(f"{folder}/images/val")
        if unsorted and parts["test"].keys() != parts["train"].keys():
            root = shlex.quote(os.path.dirname(folder))
            raise UserError(
                f"{unsorted} lies in no class folder: python -m datasets.get imagenet --root {root} --from "
                f"{root}/imagenet/images/val sorts the validation images, with {DEVKIT} of image-net.org in that folder "
                "or a list of their classes as --labels"
            )
        names = read_classnames(
            f"{folder}/{CLASSNAMES_FILE}", sorted({*parts["train"], *parts["test"]})
        )
        train, _, test = lists_with_labels(f"{folder}/images", parts, names)
        return in_coops_order(train, folder), test, test


def first_picture(folder: str) -> str:
    """Path of an image that lies in a folder itself; empty where there is none."""
    if not os.path.isdir(folder):
        return ""
    with os.scandir(folder) as entries:
        return next((entry.path for entry in entries if is_image(entry.name)), "")


def in_coops_order(train: list[Image], folder: str) -> list[Image]:
    """The training images in the order of CoOp's ``preprocessed.pkl`` where there is one, else as
    they are.

    CoOp takes the order of the file system, notes it in that file, and draws its samples from it.

    Raises:
        UserError: the file is unsafe, or lists other images than the folder holds.
    """
    path = f"{folder}/preprocessed.pkl"
    if not os.path.isfile(path):
        return train
    ordered = images_listed(path, read_pickle(path, ("train",))["train"], train, folder)
    if len(ordered) < len(train):
        raise UserError(f"{path} lacks training images that are in {folder}/images: delete it")
    return ordered


class ImageNetVariant(TargetDataset):
    """A folder of class folders, numbered in their order: as in CoOp, a set of 200 classes is a
    200-way task.

    Attributes:
        has_all: whether it has every class of ``classnames.txt``.
        by_line: whether folder ``17`` is the class of line 17 (from 0) of ``classnames.txt``.
    """

    source = "ImageNet"
    lists = (CLASSNAMES_FILE,)
    lists_images = False
    has_all = by_line = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        place = f"{folder}/{cls.image_dir}"
        files = numbered_files(place)
        names = read_classnames(f"{folder}/{CLASSNAMES_FILE}", () if cls.has_all else files)
        if cls.by_line:
            names = {str(line): name for line, name in enumerate(names.values())}
        return lists_with_labels(place, {"test": files}, names)


V2 = "imagenetv2-matched-frequency-format-val"
register(
    ImageNetVariant,
    "ImageNetV2",
    dataset_dir="imagenetv2",
    image_dir=V2,
    has_all=True,
    by_line=True,
)
register(
    ImageNetVariant,
    "ImageNetSketch",
    dataset_dir="imagenet-sketch",
    image_dir="images",
    has_all=True,
)
register(ImageNetVariant, "ImageNetA", dataset_dir="imagenet-adversarial", image_dir="imagenet-a")
register(ImageNetVariant, "ImageNetR", dataset_dir="imagenet-rendition", image_dir="imagenet-r")
