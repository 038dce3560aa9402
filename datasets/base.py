"""Base classes of all data sets: a folder, lists of images, and a run's selection
from them."""

import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from yacs.config import CfgNode

from trainers.common.errors import UserError
from trainers.data.fewshot import choose
from trainers.data.images import Images
from trainers.data.lists import Image, Lists, classnames_of

from .sources import how_to_get
from .splits import make_data


class ImageDataset(DatasetBase):
    """A subclass says where its folder is and lists the images in it; everything else is inherited.

    Attributes:
        dataset_dir: name of the folder below the root; of an instance: its absolute path.
        image_dir: folder of the images below the data set's.
        lists: names of the files that list its images or name its classes, in the data set's folder.
        lists_images: whether these files list every image; else its class folders do.
        advice: the next step where the folder is missing; empty: the command that gets it.
        images: the ``Images`` of a run.
    """

    advice = ""
    image_dir = ""
    lists: tuple[str, ...] = ()
    lists_images = True
    dataset_dir = ""
    images: Images

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = self.find(cfg.DATASET.ROOT)
        self.take(self.choose(cfg, *self.list_images(self.dataset_dir)))

    def take(self, images: Images) -> None:
        """Takes the images of a run, as Dassl has them and as ``images``.

        Raises:
            UserError: an image is missing.
        """
        trained = make_data(images.train_x)
        tested = trained if images.is_test_only else make_data(images.test)
        validated = tested if images.val is images.test else make_data(images.val)
        super().__init__(train_x=trained, val=validated, test=tested)
        self.images = images

    @classmethod
    def place(cls, root: str) -> str:
        """Absolute path of the data set's folder below ``root``, which need not be there."""
        return os.path.abspath(os.path.join(os.path.expanduser(root), cls.dataset_dir))

    @classmethod
    def find(cls, root: str) -> str:
        """Absolute path of the data set's folder below ``root``.

        Raises:
            UserError: it is not there.
        """
        path = cls.place(root)
        if not os.path.isdir(path):
            raise UserError(
                f"data folder {path} is missing: {cls.how_to_get(path)}; where you have it, give its parent as --root "
                "(or $DATA to the scripts); the data set openmoji needs no download"
            )
        return path

    @classmethod
    def how_to_get(cls, folder: str) -> str:
        """Return the next step where the data set's folder, or something in it, is missing."""
        root = folder.removesuffix(cls.dataset_dir).rstrip(os.sep) or os.sep
        return cls.advice or how_to_get(cls.__name__, root)

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        """All images, as three lists of ``Image`` (train, val, test); the files need not be there.

        Raises:
            UserError: a file with the lists is missing or malformed.
        """
        raise NotImplementedError

    @classmethod
    def undivided_images(cls, root: str, boxes: bool) -> list[Image]:
        """All pictures of multi-label data, or all boxes of a file.

        root: as ``find`` returns it; boxes: whether each box is a picture.

        Raises:
            UserError: its images have one label each, or as ``list_images``.
        """
        raise UserError(f"the images of {cls.__name__} have one label each")

    def choose(
        self, cfg: CfgNode, train: list[Image], val: list[Image], test: list[Image]
    ) -> Images:
        """Return the images that a run trains, validates and tests on.

        Raises:
            UserError: as ``fewshot.choose``.
        """
        chosen = choose(cfg, self.dataset_dir, train, val, test)
        return Images(
            chosen.train,
            chosen.val,
            chosen.test,
            classnames_of(chosen.train),
            whole_val=chosen.whole_val,
            fewshot_sample=chosen.sample,
        )


class TargetDataset(ImageDataset):
    """A data set on which prompts of another one with the same classes are tested; ``list_images`` lists
    test images only.

    As in CoOp they stand in ``train_x`` too, which is where Dassl reads class names from.

    Attributes:
        source: name of the data set to train on.
    """

    source = ""

    def choose(
        self, cfg: CfgNode, train: list[Image], val: list[Image], test: list[Image]
    ) -> Images:
        """The test images, as they are.

        Raises:
            UserError: the config asks for a few-shot sample or for half of the classes.
        """
        shots = cfg.DATASET.NUM_SHOTS
        classes = cfg.DATASET.SUBSAMPLE_CLASSES
        if shots >= 1 or classes != "all":
            raise UserError(
                f"DATASET.NUM_SHOTS is {shots} and DATASET.SUBSAMPLE_CLASSES {classes!r}, but {type(self).__name__} "
                f"has test images only: train on {self.source}, then test here with --eval-only --model-dir"
            )
        return Images(test, (), test, classnames_of(test), is_test_only=True)


def register(base: type[ImageDataset], name: str, **attributes: object) -> None:
    """Registers a data set that differs from ``base`` in class attributes."""
    DATASET_REGISTRY.register(type(name, (base,), {**attributes, "__module__": base.__module__}))
