"""The data sets whose images are listed in files, with the folder layout that CoOp's users have on
disk."""

import os

from dassl.data.datasets import DATASET_REGISTRY

from trainers.data.lists import PARTS, Lists, read_lines, reading

from .base import ImageDataset, register
from .splits import read_lists, read_split


class SplitFileDataset(ImageDataset):
    """A folder of images and a file ``split_zhou_*.json``, which is named after the class."""

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        (name,) = cls.lists
        image_dir = os.path.join(folder, cls.image_dir)
        return read_split(f"{folder}/{name}", image_dir, cls.how_to_get(folder))


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
    register(
        SplitFileDataset,
        name,
        dataset_dir=dataset_dir,
        image_dir=image_dir,
        lists=(f"split_zhou_{name}.json",),
    )


@DATASET_REGISTRY.register()
class FGVCAircraft(ImageDataset):
    """FGVC-Aircraft by its own lists: labels are the lines of ``variants.txt``, images are in
    ``images_variant_{train,val,test}.txt``."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    lists = ("variants.txt", *(f"images_variant_{part}.txt" for part in PARTS))

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        advice = cls.how_to_get(folder)
        path = f"{folder}/variants.txt"
        with reading(path, advice):
            variants = read_lines(path)

        def entry(line: str) -> tuple[str, int, str]:
            number, variant = line.split(" ", 1)  # variants have spaces
            return f"{number}.jpg", variants.index(variant), variant

        return read_lists(f"{folder}/images", f"{folder}/images_variant_{{}}.txt", entry, advice)
