"""The data sets whose split is a ``split_zhou_*.json`` file, with the folder layout that CoOp's users have on disk."""

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import ImageDataset
from .splits import Lists, read_split


class SplitFileDataset(ImageDataset):
    """A folder of images and a split file.

    Attributes:
        dataset_dir: folder below the root; image_dir: folder of the images below that; the split file is named after the class.
    """

    image_dir = ""

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return read_split(
            f"{folder}/split_zhou_{cls.__name__}.json",
            os.path.join(folder, cls.image_dir),
        )


# data set → folder below the root, folder of the images below that
FOLDERS = {
    "Caltech101": ("caltech-101", "101_ObjectCategories"),
    "OxfordPets": ("oxford_pets", "images"),
    "StanfordCars": ("stanford_cars", ""),
    "OxfordFlowers": ("oxford_flowers", "jpg"),
    "Food101": ("food-101", "images"),
    "SUN397": ("sun397", "SUN397"),
    "DescribableTextures": ("dtd", "images"),
    "EuroSAT": ("eurosat", "2750"),
    "UCF101": ("ucf101", "UCF-101-midframes"),
}
for name, (dataset_dir, image_dir) in FOLDERS.items():
    places = {"dataset_dir": dataset_dir, "image_dir": image_dir, "__module__": __name__}
    DATASET_REGISTRY.register()(type(name, (SplitFileDataset,), places))
