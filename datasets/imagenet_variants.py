"""The four sets that a prompt learned on ImageNet is tested on, in CoOp's layout: ImageNetV2, -Sketch, -A and -R.

Each has a copy of ImageNet's ``classnames.txt`` in its folder.
"""

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import listdir_nohidden

from trainers.common.errors import UserError

from .base import TargetDataset
from .imagenet import class_folders, read_classnames, read_images
from .splits import Lists, find_folder


class ImageNetVariant(TargetDataset):
    """A folder of WordNet-id folders, numbered in their sorted order: as in CoOp, a set of 200 classes is a 200-way task.

    Attributes:
        image_dir: folder of the class folders below the data set's.
        every_class: whether it has every class of ``classnames.txt``.
    """

    source = "ImageNet"
    image_dir = ""
    every_class = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        classnames = read_classnames(f"{folder}/classnames.txt")
        place = find_folder(folder, cls.image_dir)
        wnids = class_folders(place)
        missing = sorted(set(classnames) - set(wnids)) if cls.every_class or not wnids else []
        if missing:
            more = f" and lacks {len(missing) - 1} more" if missing[1:] else ""
            raise UserError(f"{place} has no folder {missing[0]}{more}: unpack it wholly")
        return [], [], read_images(place, wnids, classnames)


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    dataset_dir, image_dir, every_class = "imagenet-sketch", "images", True


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    dataset_dir, image_dir = "imagenet-adversarial", "imagenet-a"


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    dataset_dir, image_dir = "imagenet-rendition", "imagenet-r"


@DATASET_REGISTRY.register()
class ImageNetV2(TargetDataset):
    """The matched-frequency images; folder ``17`` is the class of line 17 (from 0) of ``classnames.txt``."""

    dataset_dir = "imagenetv2"
    source = "ImageNet"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        names = read_classnames(f"{folder}/classnames.txt").values()
        place = find_folder(folder, "imagenetv2-matched-frequency-format-val")
        classnames = {str(label): name for label, name in enumerate(names)}
        odd = set(filter(str.isdecimal, listdir_nohidden(place))) ^ set(classnames)
        if odd:
            first = min(odd, key=int)
            raise UserError(
                f"{place} must have a folder for each of the {len(classnames)} lines of classnames.txt, "
                f"0 to {len(classnames) - 1}; {first} is {'missing' if first in classnames else 'too many'}"
            )
        return [], [], read_images(place, list(classnames), classnames)
