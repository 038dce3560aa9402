"""Sorts ImageNet as it is downloaded (ILSVRC 2012) into class folders: tars in a tar, and validation
images that lie flat."""

import io
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy
from scipy.io import loadmat

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.files import UNFINISHED
from trainers.data.lists import read_lines, reading

from .archives import blaming, members, members_of_tar
from .imagenet import DEVKIT

log = logging.getLogger("get")

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
META = "data/meta.mat"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
WNID = r"n\d{8}"
# a validation image, and after it the class, with anything but another image between them: lines
# "name wnid", "name number wnid", Kaggle's LOC_val_solution.csv, valprep.sh, JSON
LABEL_LINE = re.compile(rf"(ILSVRC2012_val_\d{{8}})(?:(?!ILSVRC2012_val_).)*?\b({WNID})\b")
DEPTH = 5  # of the folders that are looked into: Kaggle's ILSVRC/Data/CLS-LOC/val, and one more


def sort(folder: str, target: str, labels: str | None) -> None:
    """Sort the files in a folder and below it: tars, a flat folder of validation images, class folders.

    Args:
        target: the data set's folder: ``images/train`` and ``images/val`` are made or
            completed there; labels: path of a list of the validation images' classes; None: the devkit.

    Raises:
        UserError: nothing of ImageNet is there, a tar is damaged or hostile, or the classes of the
            validation images are not known; OSError: the disk is full, or fails.
    """
    folder = os.path.abspath(folder)
    train = f"{target}/images/train"
    val = f"{target}/images/val"
    train_tars = paths_ending_in(TRAIN_ARCHIVE, folder)
    for path in train_tars:
        log.info("imagenet: sorting %s into %s", path, train)
        with blaming(path):
            sort_train(path, train)
    has_val = sort_validation(folder, val, labels)
    linked = []
    for place, is_val in sorted_folders(folder):
        to = val if is_val else train
        if os.path.realpath(place) != os.path.realpath(to):
            linked.append(place)
            link_folder(place, to)
    if not (train_tars or has_val or linked):
        raise UserError(
            f"{folder} has nothing of ImageNet: neither {TRAIN_ARCHIVE}, {VAL}, images called ILSVRC2012_val_…, nor class folders"
        )


def sort_validation(folder: str, val: str, labels: str | None) -> bool:
    """Sort the tars and flat folders of validation images into ``val``; return whether there are any.

    Raises:
        UserError: their classes are not known, or a tar is damaged or hostile.
    """
    flat = [*flat_folders(folder)]
    tars = paths_ending_in(VAL, folder)
    if not flat and not tars:
        return False
    wnids = read_labels(labels) if labels else read_devkit(folder)
    for path in tars:
        log.info("imagenet: sorting %s into %s", path, val)
        with blaming(path):
            sort_val(path, val, wnids)
    for place in flat:
        log.info("imagenet: sorting %s into %s", place, val)
        sort_flat(place, val, wnids)
    return True


def link_folder(place: str, to: str) -> None:
    """Make ``to`` a link to a folder that is sorted already, unless ``to`` is there."""
    if os.path.lexists(to):
        log.info("imagenet: %s is there already, %s is left as it is", to, place)
        return
    log.info("imagenet: %s is a link to %s", to, place)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    os.symlink(place, to)


# ---- files in the folder ----


def folders_below(folder: str, depth: int = DEPTH) -> Iterator[str]:
    """A folder and those below it, but for class folders."""
    yield folder
    if depth:
        with os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if entry.is_dir())
        for path in inner:
            if not re.fullmatch(WNID, os.path.basename(path)):
                yield from folders_below(path, depth - 1)


def paths_ending_in(name: str, folder: str) -> list[str]:
    return [
        f"{place}/{name}" for place in folders_below(folder) if os.path.isfile(f"{place}/{name}")
    ]


def flat_folders(folder: str) -> Iterator[str]:
    """Yield the folders with validation images outside of class folders."""
    for place in folders_below(folder):
        with os.scandir(place) as entries:
            is_flat = any(name_of_val(entry.name) and entry.is_file() for entry in entries)
        if is_flat:
            yield place


def sorted_folders(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield each folder of ImageNet's class folders, and whether its images are validation images.

    Folders of ImageNet's variants are left out."""
    for place in folders_below(folder):
        wnids = [name for name in sorted(os.listdir(place)) if re.fullmatch(WNID, name)]
        images = os.listdir(f"{place}/{wnids[0]}") if wnids else []
        if images and name_of_val(images[0]):
            yield place, True
        elif images and images[0].startswith(f"{wnids[0]}_"):
            yield place, False


def name_of_val(name: str) -> str:
    """A validation image's name without its ending; empty where the file is none."""
    found = re.fullmatch(r"(ILSVRC2012_val_\d{8})\.\w+", name)
    return found[1] if found else ""


# ---- classes of the validation images ----


def read_labels(path: str) -> dict[str, str]:
    """Image → WordNet id, of a list in any of the usual forms.

    Raises:
        UserError: it can't be read, or names no image with its WordNet id.
    """
    with reading(path, "give a list of the validation images as --labels"):
        labels = dict(pair for line in read_lines(path) for pair in LABEL_LINE.findall(line))
    if not labels:
        raise UserError(
            f"--labels {path} has no line with an image and its WordNet id, such as ILSVRC2012_val_00000001.JPEG n01751748: "
            f"numbers alone are counted in several ways; take {DEVKIT}, or Kaggle's LOC_val_solution.csv"
        )
    return labels


def read_devkit(folder: str) -> dict[str, str]:
    """Image → WordNet id, of the devkit in a folder: packed or unpacked.

    Its ``meta.mat`` numbers the classes in an order of its own, and the truth has a number for each
    image.

    Raises:
        UserError: there is none, or it is damaged.
    """
    for path in paths_ending_in(DEVKIT, folder):
        with blaming(path):
            files = {
                wanted: member.open().read()
                for member in members(path)
                for wanted in (META, TRUTH)
                if member.name.endswith(wanted)
            }
            return labels_of(files[META], files[TRUTH])
    for place in folders_below(folder):
        if os.path.isfile(f"{place}/{META}") and os.path.isfile(f"{place}/{TRUTH}"):
            with blaming(place):
                files = {name: Path(place, name).read_bytes() for name in (META, TRUTH)}
                return labels_of(files[META], files[TRUTH])
    raise UserError(
        f"the classes of the validation images are not known: put {DEVKIT} of image-net.org into {folder}, or give a list "
        "of them as --labels, such as Kaggle's LOC_val_solution.csv"
    )


def labels_of(meta: bytes, truth: bytes) -> dict[str, str]:
    """Image → WordNet id; meta, truth: content of the devkit's files."""
    classes = numpy.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
    wnid = {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in classes}
    lines = truth.decode("ascii").split()
    return {f"ILSVRC2012_val_{number:08d}": wnid[int(line)] for number, line in enumerate(lines, 1)}


# ---- images to their places ----


def write(source: IO[bytes], size: int, target: str) -> int:
    """Writes a file that is not there yet; whether one of another size is."""
    if os.path.exists(target):
        return int(os.path.getsize(target) != size)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        with open(f"{target}{UNFINISHED}", "wb") as file:
            shutil.copyfileobj(source, file)
        os.rename(f"{target}{UNFINISHED}", target)
    except OSError as error:
        error.filename = target  # a full disk names no file
        raise
    return 0


def say_odd(odd: int, target: str) -> None:
    if odd:
        log.warning(
            "imagenet: %s in %s, there before, of another size than in the archive: delete what is cut, and give the "
            "same command again",
            counted(odd, "image"),
            target,
        )


def sort_train(path: str, target: str) -> None:
    """Unpack a tar of training images, which has a tar for each class, ``n01440764.tar``.

    Raises:
        UserError: as ``members``; also for a tar of another name.
    """
    odd = 0
    for outer in members(path):
        wnid, ending = os.path.splitext(os.path.basename(outer.name))
        if not re.fullmatch(WNID, wnid) or ending != ".tar":
            raise UserError(
                f"{path} is refused: its entry {outer.name} is no class, such as n01440764.tar"
            )
        with tarfile.open(fileobj=outer.open()) as inner:
            for member in members_of_tar(f"{path}/{outer.name}", inner):
                name = os.path.basename(member.name)
                odd += write(member.open(), member.size, f"{target}/{wnid}/{name}")
    say_odd(odd, target)


def class_of(name: str, wnids: Mapping[str, str]) -> str:
    """Return the WordNet id of a validation image.

    Raises:
        UserError: the name is not a validation image's, or its class is not known.
    """
    if name_of_val(name) not in wnids:
        raise UserError(
            f"the class of {name} is not known: its name, or the list of classes, is of another data set"
        )
    return wnids[name_of_val(name)]


def sort_val(path: str, target: str, wnids: Mapping[str, str]) -> None:
    """Unpack a tar of validation images into class folders.

    Raises:
        UserError: as ``members`` and ``class_of``.
    """
    odd = 0
    for member in members(path):
        name = os.path.basename(member.name)
        odd += write(member.open(), member.size, f"{target}/{class_of(name, wnids)}/{name}")
    say_odd(odd, target)


def sort_flat(folder: str, target: str, wnids: Mapping[str, str]) -> None:
    """Sort a folder of validation images: the ones in the data set's own folder move, others stay where they
    are and are linked, or copied to another disk.

    Raises:
        UserError: as ``class_of``; nothing has moved then.
    """
    names = sorted(filter(name_of_val, os.listdir(folder)))
    places = {name: f"{target}/{class_of(name, wnids)}/{name}" for name in names}
    is_own = os.path.realpath(folder) == os.path.realpath(target)
    for name, place in places.items():
        if os.path.exists(place):
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if is_own:
            os.rename(f"{folder}/{name}", place)
        else:
            link(f"{folder}/{name}", place)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        with open(source, "rb") as file:
            write(file, os.path.getsize(source), target)
