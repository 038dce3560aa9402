"""FGVC-Aircraft in its own layout: ``fgvc_aircraft/images``, ``variants.txt`` and ``images_variant_{train,val,test}.txt``."""

import os

from dassl.data.datasets import DATASET_REGISTRY

from trainers.common.errors import UserError

from .base import ImageDataset
from .splits import PARTS, Image, Lists, check_places


@DATASET_REGISTRY.register()
class FGVCAircraft(ImageDataset):
    """Labels are the lines of ``variants.txt``."""

    dataset_dir = "fgvc_aircraft"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        variants = {name: label for label, name in enumerate(read_lines(folder, "variants.txt"))}
        images = f"{folder}/images"
        lists: list[list[Image]] = []
        for part in PARTS:
            lists.append([])
            for line in read_lines(folder, f"images_variant_{part}.txt"):
                number, _, variant = line.partition(" ")  # variants have spaces
                if variant not in variants:
                    raise UserError(f"{folder}: {variant!r} is not in variants.txt")
                path = os.path.join(images, f"{number}.jpg")
                lists[-1].append(Image(path, variants[variant], variant))
        check_places(f"{folder}/images_variant_*.txt", images, *lists)
        return tuple(lists)


def read_lines(folder: str, name: str) -> list[str]:
    path = f"{folder}/{name}"
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: it comes with the data set's images")
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]
