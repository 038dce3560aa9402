"""ImageFolder: anybody's folder of class folders as a data set of Dassl; ``--root`` is the folder
itself, or a file that names images and labels. See ``labelling.folders.own_images``.
"""

import os

from dassl.data.datasets import DATASET_REGISTRY
from yacs.config import CfgNode

from datasets.base import ImageDataset
from trainers.common.errors import UserError
from trainers.data.lists import Lists

from ..folders.own_images import list_images, own_images


@DATASET_REGISTRY.register()
class ImageFolder(ImageDataset):
    """One's own images; a part of them is always held out for the test."""

    advice = "ImageFolder's --root is the folder that holds the class folders, or train and test"

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = self.find(cfg.DATASET.ROOT)
        self.take(own_images(self.dataset_dir, cfg, can_fold=False))

    @classmethod
    def find(cls, root: str) -> str:
        if not root:
            raise UserError(f"ImageFolder needs --root: {cls.advice}")
        place = cls.place(root)
        return place if os.path.isfile(place) else super().find(root)

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        """Without a look at the images: those that look alike may be divided here."""
        return list_images(folder)
