"""ImageFolder: anybody's folder of class folders as a data set of Dassl; ``--root`` is the folder
itself. See ``labelling.folders.own_images``.
"""

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from yacs.config import CfgNode

from datasets.base import ImageDataset
from datasets.splits import make_data
from trainers.common.errors import UserError
from trainers.data.lists import Lists

from ..folders.own_images import OwnImages, list_images


@DATASET_REGISTRY.register()
class ImageFolder(ImageDataset):
    """One's own images.

    Attributes:
        broken, folds, groups, notes, are_new: as those of ``OwnImages``.
    """

    advice = "ImageFolder's --root is the folder that holds the class folders, or train and test"

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = self.find(cfg.DATASET.ROOT)
        own = OwnImages(self.dataset_dir, cfg)
        self.fewshot_sample = own.fewshot_sample
        self.content = own.content
        self.broken = own.broken
        self.folds = own.folds
        self.groups = own.groups
        self.are_new = own.are_new
        self.notes = own.notes
        DatasetBase.__init__(
            self,
            train_x=make_data(own.train_x),
            val=make_data(own.val),
            test=make_data(own.test),
        )

    @classmethod
    def find(cls, root: str) -> str:
        if not root:
            raise UserError(f"ImageFolder needs --root: {cls.advice}")
        return super().find(root)

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        """Without a look at the images: those that look alike may be divided here."""
        return list_images(folder)

    def whole_val(self) -> list[Datum]:
        """The validation images that were looked through."""
        return list(self.val or ())
