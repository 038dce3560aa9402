"""Every data set in miniature, in the folder layout that its users have on disk."""

import json
import os
from functools import partial

import numpy
from PIL import Image as Picture

from tests.conftest import GOLDEN

LAYOUTS = GOLDEN["miniatures"]
SPLIT_FILES, VARIANTS, WNIDS = LAYOUTS["split files"], LAYOUTS["variants"], LAYOUTS["wnids"]
GROCERIES = LAYOUTS["groceries"]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (4, 4)).save(path)


def split_file(root, name):
    """Three classes, 6 / 5 / 2 images each in train / val / test."""
    folder = root / SPLIT_FILES[name]
    rows = {"train": [], "val": [], "test": []}
    for label, classname in enumerate(("one", "two_words", "three")):
        for part, count in (("train", 6), ("val", 5), ("test", 2)):
            for index in range(count):
                file_name = f"{classname}/{part}{index}.jpg"
                picture(folder / file_name)
                rows[part].append([file_name, label, classname])
    (root / SPLIT_FILES[name].split("/")[0] / f"split_zhou_{name}.json").write_text(
        json.dumps(rows)
    )


def aircraft(root):
    folder = root / "fgvc_aircraft"
    number = 0
    for part, count in (("train", 5), ("val", 4), ("test", 2)):
        lines = []
        for _ in range(count):
            for variant in ("707-320", "Boeing 717", "A310"):
                picture(folder / f"images/{number:07d}.jpg")
                lines.append(f"{number:07d} {variant}\n")
                number += 1
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    (folder / "variants.txt").write_text("707-320\nA310\nBoeing 717\n")


def imagenet(root, count=5):
    for part in ("train", "val"):
        for wnid in WNIDS:
            for index in range(count):
                picture(root / f"imagenet/images/{part}/{wnid}/{wnid}_{index}.JPEG")
    classnames(root / "imagenet")


def classnames(folder):
    (folder / "classnames.txt").write_text(
        "".join(f"{wnid} {WNIDS[wnid]}\n" for wnid in sorted(WNIDS))
    )


def imagenet_variant(root, name):
    """Beside the class folders lies what the archives bring along."""
    folder = root / VARIANTS[name]
    for wnid in WNIDS:
        for index in range(2):
            picture(folder / f"{wnid}/{index}.jpg")
    (folder / "README.txt").write_text("a readme")
    (folder / "__MACOSX").mkdir()
    classnames(folder.parent)


def imagenet_v2(root):
    for label in range(3):
        picture(root / "imagenetv2/imagenetv2-matched-frequency-format-val" / str(label) / "a.jpeg")
    classnames(root / "imagenetv2")


def grocery_store(root):
    """Avocados have no val images, as some products in the real one."""
    folder = root / "GroceryStoreDataset/dataset"
    kinds = ["Apple", "Avocado", "Milk", "Red-Beet"]
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        lines = []
        for label, (product, kind, place) in enumerate(GROCERIES):
            for index in range(0 if (part, product) == ("val", "Avocado") else count):
                name = f"{part}/{place}/{product}_{index + 1:03d}.jpg"
                picture(folder / name)
                lines.append(f"{name}, {label}, {kinds.index(kind)}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    rows = "".join(
        f"{product},{label},{kind},{kinds.index(kind)},/iconic/{place}.jpg,/iconic/{place}.txt\n"
        for label, (product, kind, place) in enumerate(GROCERIES)
    )
    (folder / "classes.csv").write_text(f"{LAYOUTS['grocery heads']}\n{rows}")


def cifar(root):
    for part, count in (("train", 10), ("test", 2)):
        for name in LAYOUTS["cifar"]:
            for index in range(count):
                picture(root / f"CIFAR-10-images/{part}/{name}/{index:04d}.jpg")
    (root / "CIFAR-10-images/README.md").write_text("a readme")


def pacs(root):
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        ending = "png" if domain == "sketch" else "jpg"
        for name in LAYOUTS["pacs"]:
            for index in range(10):
                place = root / f"Homework3-PACS/PACS/{domain}/{name}"
                picture(place / f"pic_{index:03d}.{ending}")


def image_folder(root, counts=LAYOUTS["image folder"]):
    """Pictures in class folders, of which no two look alike; counts: how many by folder."""
    for place, count in counts.items():
        (root / place).mkdir(parents=True)
        for index in range(count):
            draws = numpy.random.default_rng([index, *place.encode()])
            pixels = draws.integers(0, 256, (8, 8, 3), dtype="uint8")
            Picture.fromarray(pixels).save(root / f"{place}/{index}.png")


MINIATURES = {
    **{name: partial(split_file, name=name) for name in SPLIT_FILES},
    **{name: partial(imagenet_variant, name=name) for name in VARIANTS},
    "FGVCAircraft": aircraft,
    "ImageNet": imagenet,
    "ImageNetV2": imagenet_v2,
    "ImageFolder": image_folder,
    "GroceryStore": grocery_store,
    "GroceryStoreCoarse": grocery_store,
    "CIFAR10": cifar,
    **dict.fromkeys(LAYOUTS["domains"], pacs),
}


def files_below(folder):
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    )
