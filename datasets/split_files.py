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
            os.path.join(folder, f"split_zhou_{cls.__name__}.json"),
            os.path.join(folder, cls.image_dir),
        )


@DATASET_REGISTRY.register()
class Caltech101(SplitFileDataset):
    dataset_dir, image_dir = "caltech-101", "101_ObjectCategories"


@DATASET_REGISTRY.register()
class OxfordPets(SplitFileDataset):
    dataset_dir, image_dir = "oxford_pets", "images"


@DATASET_REGISTRY.register()
class StanfordCars(SplitFileDataset):
    dataset_dir = "stanford_cars"


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitFileDataset):
    dataset_dir, image_dir = "oxford_flowers", "jpg"


@DATASET_REGISTRY.register()
class Food101(SplitFileDataset):
    dataset_dir, image_dir = "food-101", "images"


@DATASET_REGISTRY.register()
class SUN397(SplitFileDataset):
    dataset_dir, image_dir = "sun397", "SUN397"


@DATASET_REGISTRY.register()
class DescribableTextures(SplitFileDataset):
    dataset_dir, image_dir = "dtd", "images"


@DATASET_REGISTRY.register()
class EuroSAT(SplitFileDataset):
    dataset_dir, image_dir = "eurosat", "2750"


@DATASET_REGISTRY.register()
class UCF101(SplitFileDataset):
    dataset_dir, image_dir = "ucf101", "UCF-101-midframes"
