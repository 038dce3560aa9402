"""Photographs and drawings that one ``git clone`` below the root brings: GroceryStoreDataset, PACS,
CIFAR-10 as pictures. ``python -m datasets.get grocery_store pacs cifar10`` does it; get.yaml has the
addresses."""

from dassl.data.datasets import DATASET_REGISTRY

from trainers.data.class_folders import divide, image_files, lists_with_labels
from trainers.data.lists import PARTS, Lists, read_lines, reading

from .base import ImageDataset, TargetDataset, register
from .splits import read_lists

# class folder → class name
PACS = {name: name for name in "dog elephant giraffe guitar horse house person".split()}
CIFAR = {
    name: name for name in "airplane automobile bird cat deer dog frog horse ship truck".split()
}
VALIDATION = 5  # every fifth training image of CIFAR-10, which has no val of its own


@DATASET_REGISTRY.register()
class GroceryStore(ImageDataset):
    """81 products, photographed in shops; the kind is appended to a name that lacks it: "Golden
    Delicious Apple".

    Klasson, Zhang, Kjellström, 2019, "A Hierarchical Grocery Store Image Dataset with Visual and
    Semantic Labels".
    """

    dataset_dir = "GroceryStoreDataset/dataset"
    lists = ("classes.csv", *(f"{part}.txt" for part in PARTS))
    by_kind = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        names = {}
        path = f"{folder}/classes.csv"
        advice = cls.how_to_get(folder)
        with reading(path, advice):
            for line in read_lines(path)[1:]:
                product, label, kind, kind_label, *_ = cells(line)
                if cls.by_kind:
                    product = kind
                    label = kind_label
                name = product if kind.lower() in product.lower() else f"{product} {kind}"
                names[label] = name.replace("-", " ")

        def entry(line: str) -> tuple[str, str, str]:
            name, label, kind_label = cells(line)
            label = kind_label if cls.by_kind else label
            return name, label, names[label]

        return read_lists(folder, f"{folder}/{{}}.txt", entry, advice)


def cells(line: str) -> list[str]:
    """Split a line at its commas."""
    return [cell.strip() for cell in line.split(",")]


register(GroceryStore, "GroceryStoreCoarse", by_kind=True)  # the same photographs by their 43 kinds


@DATASET_REGISTRY.register()
class CIFAR10(ImageDataset):
    """CIFAR-10 (Krizhevsky, 2009, "Learning multiple layers of features from tiny images") as JPEGs
    of 32 pixels; the test images are its own."""

    dataset_dir = "CIFAR-10-images"
    lists_images = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        parts = {part: image_files(f"{folder}/{part}") for part in ("train", "test")}
        parts["val"] = {name: paths[::VALIDATION] for name, paths in parts["train"].items()}
        for paths in parts["train"].values():
            del paths[::VALIDATION]
        return lists_with_labels(folder, parts, CIFAR)


# ---- PACS (Li, Yang, Song, Hospedales, 2017, "Deeper, Broader and Artier Domain Generalization") ----


class PACSDomain(ImageDataset):
    """A domain of PACS to train on: 50 % train, 20 % val and 30 % test of each class, as CoOp
    divides undivided sets."""

    lists_images = False

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return lists_with_labels(folder, divide(folder, image_files(folder)), PACS)


class PACSTarget(TargetDataset):
    """All images of a domain, to test prompts on that were trained on another one."""

    lists_images = False
    source = "another domain of PACS"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return lists_with_labels(folder, {"test": image_files(folder)}, PACS)


for domain, place in {
    "Photo": "photo",
    "ArtPainting": "art_painting",
    "Cartoon": "cartoon",
    "Sketch": "sketch",
}.items():
    register(PACSDomain, f"PACS{domain}", dataset_dir=f"Homework3-PACS/PACS/{place}")
    register(PACSTarget, f"PACS{domain}All", dataset_dir=f"Homework3-PACS/PACS/{place}")
