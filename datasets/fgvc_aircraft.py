"""FGVC-Aircraft in its own layout: ``fgvc_aircraft/images``, ``variants.txt`` and ``images_variant_{train,val,test}.txt``."""

import os

from dassl.data.datasets import DATASET_REGISTRY

from trainers.common.errors import UserError

from .base import ImageDataset
from .splits import PARTS, Image, Lists, check_places, read_lines


@DATASET_REGISTRY.register()
class FGVCAircraft(ImageDataset):
    """Labels are the lines of ``variants.txt``."""

    dataset_dir = "fgvc_aircraft"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        source = "it comes with the data set's images"
        names = read_lines(f"{folder}/variants.txt", source)
        variants = {name: label for label, name in enumerate(names)}
        images = f"{folder}/images"
        lists: list[list[Image]] = []
        for part in PARTS:
            lists.append([])
            for line in read_lines(f"{folder}/images_variant_{part}.txt", source):
                number, _, variant = line.partition(" ")  # variants have spaces
                if variant not in variants:
                    raise UserError(f"{folder}: {variant!r} is not in variants.txt")
                path = os.path.join(images, f"{number}.jpg")
                lists[-1].append(Image(path, variants[variant], variant))
        check_places(f"{folder}/images_variant_*.txt", images, *lists)
        return tuple(lists)
