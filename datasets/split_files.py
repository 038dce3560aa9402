"""The data sets whose split is a ``split_zhou_*.json`` file, with the folder layout that CoOp's users have on disk."""
import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase

from .fewshot import few_shot
from .splits import find_folder, read_split


class SplitFileDataset(DatasetBase):
    """A folder of images and a split file.

    Attributes:
        dataset_dir: folder below the root; image_dir: folder of the images below that; the split file is named after the class.
    """
    dataset_dir = ""
    image_dir = ""

    def __init__(self, cfg):
        self.dataset_dir = find_folder(cfg.DATASET.ROOT, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, self.image_dir)
        train, val, test = read_split(os.path.join(self.dataset_dir, f"split_zhou_{type(self).__name__}.json"), self.image_dir)
        super().__init__(**few_shot(self, cfg, train, val, test))


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
