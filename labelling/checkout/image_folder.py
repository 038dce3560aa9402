"""ImageFolder: anybody's folder of class folders as a data set of Dassl; ``--root`` is the folder
itself, or a file that names images and labels, or several (``joined_roots``). See ``labelling.own_images``.
"""

import os

from dassl.data.datasets import DATASET_REGISTRY
from yacs.config import CfgNode

from datasets.base import ImageDataset
from trainers.common.errors import UserError
from trainers.common.fingerprints import joined_roots, places_in, roots_in
from trainers.data.lists import Image, Lists

from ..own_images import own_images
from ..table import read_table
from ..task import MULTI_LABEL_TASK, SINGLE_LABEL


@DATASET_REGISTRY.register()
class ImageFolder(ImageDataset):
    """One's own images; a part of them is always held out for the test."""

    advice = "ImageFolder's --root is the folder that holds the class folders, or train and test"

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = self.find(cfg.DATASET.ROOT)
        table = read_table(self.dataset_dir, multi_label=False, boxes=cfg.DATASET.BOXES)
        self.take(own_images(table, SINGLE_LABEL, cfg, can_fold=False))

    @classmethod
    def find(cls, root: str) -> str:
        if not root:
            raise UserError(f"ImageFolder needs --root: {cls.advice}")
        for one in places_in(root):
            if not os.path.isfile(cls.place(one)):
                super().find(one)
        return joined_roots(cls.place(one) for one in roots_in(root))

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        """Divide the images without a search for near-duplicates, which may be in several parts here."""
        table = read_table(folder, multi_label=False)
        large, _ = SINGLE_LABEL.checked(table, skips=True)
        return SINGLE_LABEL.divide(large)

    @classmethod
    def undivided_images(cls, root: str, boxes: bool) -> list[Image]:
        """The pictures of a folder or a file of multi-label pictures, or a file's boxes (``Task.items``)."""
        return MULTI_LABEL_TASK.items(read_table(cls.find(root), multi_label=True, boxes=boxes))
