"""Base classes of all data sets: a folder, lists of images, and the rule by which a run selects
from them."""

import os
from types import SimpleNamespace

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from yacs.config import CfgNode

from trainers.common.errors import UserError
from trainers.common.fingerprints import split_hash

from .fewshot import VALIDATION_SHOTS, Parts, sample_of
from .splits import Image, Lists, make_data, subsample_classes


class ImageDataset(DatasetBase):
    """A subclass says where its folder is and lists the images in it; everything else is inherited.

    Attributes:
        dataset_dir: name of the folder below the root; of an instance: its absolute path.
        advice: what to do where the folder is not there.
        test_only: whether it has no images to train on.
        fewshot_sample: ``hash`` and ``origin`` of its few-shot sample, None where all images are taken.
        content: hash of the bytes of the images, where they may be replaced from one run to the
            next; else empty.
    """

    advice = (
        "lay the data out as CoOp's DATASETS.md describes and give its parent as --root (or $DATA to the "
        "scripts); the data set openmoji needs no download"
    )
    fewshot_sample: dict[str, str] | None = None
    validation: list[Image] = []
    dataset_dir = ""
    content = ""
    test_only = False

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = self.find(cfg.DATASET.ROOT)
        super().__init__(**self.choose(cfg, *self.list_images(self.dataset_dir)))

    @classmethod
    def place(cls, root: str) -> str:
        """Absolute path of the data set's folder below ``root``, which need not be there."""
        return os.path.abspath(os.path.join(os.path.expanduser(root), cls.dataset_dir))

    @classmethod
    def find(cls, root: str) -> str:
        """The same.

        Raises:
            UserError: it is not there.
        """
        path = cls.place(root)
        if not os.path.isdir(path):
            raise UserError(f"data folder {path} is missing: {cls.advice}")
        return path

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        """All images, as three lists of ``Image`` (train, val, test); the files need not be there.

        Raises:
            UserError: what the lists are read from is missing or malformed.
        """
        raise NotImplementedError

    def choose(
        self, cfg: CfgNode, train: list[Image], val: list[Image], test: list[Image]
    ) -> dict[str, list[Datum]]:
        """What a run trains, validates and tests on: ``DatasetBase``'s arguments.

        With ``NUM_SHOTS`` ≥ 1 that many training images a class are taken and at most 4 validation
        images; then ``SUBSAMPLE_CLASSES`` keeps the base or the new classes. ``val`` may be the test
        list itself (ImageNet), which is not sampled.

        Raises:
            UserError: an image is missing, or a stored sample can't be used.
        """
        val_is_test = val is test
        whole = val
        most = cfg.DATASET.NUM_SHOTS
        if most >= 1:
            parts: Parts = {"train": train} if val_is_test else {"train": train, "val": val}
            shots = {"train": most, "val": min(most, VALIDATION_SHOTS)}
            parts, origin = sample_of(self, parts, shots, cfg.SEED)
            train, val = parts["train"], parts.get("val", val)
            taken = SimpleNamespace(train_x=train, val=parts.get("val"), test=None)
            self.fewshot_sample = {"hash": split_hash(taken), "origin": origin}
        train, val, test, self.validation = subsample_classes(
            train, val, test, whole, subsample=cfg.DATASET.SUBSAMPLE_CLASSES
        )
        trained = make_data(train)
        tested = make_data(test)
        validated = tested if val_is_test else make_data(val)
        return {"train_x": trained, "val": validated, "test": tested}

    def whole_val(self) -> list[Datum]:
        """All validation images of the run's classes, of which ``val`` may be a few-shot sample."""
        return make_data(self.validation)


class TargetDataset(ImageDataset):
    """A set on which prompts of another one with the same classes are tested; ``list_images`` has
    nothing but test images.

    As in CoOp they stand in ``train_x`` too, which is where Dassl reads class names from.

    Attributes:
        source: name of the data set to train on.
    """

    test_only = True
    source = ""

    def choose(
        self, cfg: CfgNode, train: list[Image], val: list[Image], test: list[Image]
    ) -> dict[str, list[Datum]]:
        """
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
        images = make_data(test)
        return {"train_x": images, "test": images}


def register(base: type[ImageDataset], name: str, **attributes: object) -> None:
    """Registers a data set that differs from ``base`` in class attributes."""
    DATASET_REGISTRY.register(type(name, (base,), {**attributes, "__module__": base.__module__}))
