"""ImageFolder: anybody's folder of class folders, without renaming anything.

``--root`` is the folder itself. It holds either ``train``, ``test`` and, if there is one, ``val``, each with the same class
folders, or the class folders; those are divided, class by class, into 50 % train, 20 % val and 30 % test. The division
follows from the file names alone and not from the run's seed, so that all seeds, and tests of their prompts, have the same
test images. Images may lie in folders below a class folder. Class names are the folders' names, or those of a file
``classnames.txt`` beside them: ``folder name``, a line a class.
"""

import hashlib
import logging
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy
from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from trainers.classnames import alike
from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.fingerprints import BELOW, image_name
from trainers.common.image_files import (
    ENDINGS,
    Seen,
    files_below,
    is_image,
    left_out,
    look_through,
    named,
    transparent_parts,
)

from .base import ImageDataset
from .fewshot import FOLDER
from .imagenet import read_classnames
from .splits import PARTS, Image, Lists, find_folder, subfolders

log = logging.getLogger(__name__)
NEAR = 3  # of 255: mean difference of two pictures from afar, below which they look alike
Files = dict[str, list[str]]  # class folder → paths of images
SHARES = {
    "train": 0.5,
    "val": 0.2,
}  # as CoOp divides data sets that come undivided; the rest is for testing


@DATASET_REGISTRY.register()
class ImageFolder(ImageDataset):
    """Labels follow the sorted names of the class folders. See the head of this file."""

    @classmethod
    def find(cls, root: str) -> str:
        if not root:
            raise UserError(
                "ImageFolder needs --root: the folder that holds the class folders, or train and test"
            )
        advice = (
            "ImageFolder's --root is the folder that holds the class folders, or train and test"
        )
        return find_folder(root, advice=advice)

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        if any(class_folders(f"{folder}/{part}") for part in ("train", "test")):
            parts = {
                part: class_files(f"{folder}/{part}")
                for part in PARTS
                if part != "val" or os.path.isdir(f"{folder}/{part}")
            }
            for part, files in parts.items():
                if differing := files.keys() ^ parts["train"].keys():
                    name = min(differing)
                    has, lacks = ("train", part) if name in parts["train"] else (part, "train")
                    raise UserError(
                        f"{folder}: the class {name} is in {has} and not in {lacks}; all parts need the same class folders"
                    )
        else:
            parts = divide(folder, class_files(folder))
        names = class_names(folder, list(parts["train"]))
        for group in filter(lambda group: len({*group}) > 1, alike(names.values())):
            log.warning(
                "Class names that differ in case or Unicode form only: %s",
                " ".join(map(ascii, group)),
            )
        return tuple(labelled(parts.get(part, {}), names) for part in PARTS)

    def choose(
        self, cfg: CfgNode, train: list[Image], val: list[Image], test: list[Image]
    ) -> dict[str, list[Datum]]:
        """Like every data set, without the images that can't be read, which are reported before training.

        Raises:
            UserError: there are such images and they are not to be skipped, or nothing is left of a class or of the test.
        """
        for line in filter(None, left_out_of(self.dataset_dir)):
            log.warning(line)
        chosen = super().choose(cfg, train, val, test)
        paths = [item.impath for part in chosen.values() for item in part]
        seen = dict(zip(paths, look_through(paths)))
        reasons = {path: picture.reason for path, picture in seen.items() if picture.reason}
        transparent = sum(picture.is_transparent for picture in seen.values())
        digests = [seen[path].digest for path in paths]
        self.content = hashlib.sha256(b"".join(digests)).hexdigest()
        self.notes = self.notes_on_copies(seen, chosen)
        if reasons:
            skips = cfg.DATALOADER.BROKEN_IMAGES == "skip"
            chosen = self.without(reasons, chosen, skips)
        if transparent:
            log.info(
                "Transparent parts, in %d of %d images, are %s (INPUT.BACKGROUND)",
                transparent,
                len(paths),
                transparent_parts(cfg.INPUT.BACKGROUND),
            )
        return chosen

    def whole_val(self) -> list[Datum]:
        """Those that were looked through."""
        return list(self.val or ())

    def notes_on_copies(
        self, seen: Mapping[str, Seen], chosen: Mapping[str, list[Datum]]
    ) -> list[str]:
        """Warns of test images that look like training images of their class, copies and the same
        picture in another size or format, and returns the warnings. Like those of another class are
        pictures of fine differences, which make a test no easier."""
        # label → paths of the training images that can be read, and what they look like from afar
        trained: dict[int, list[tuple[str, numpy.ndarray]]] = defaultdict(list)
        for item in chosen["train_x"]:
            if (coarse := seen[item.impath].coarse) is not None:
                trained[item.label].append((item.impath, coarse))
        copies = {}
        for item in chosen["test"]:
            coarse, known = seen[item.impath].coarse, trained[item.label]
            if coarse is not None and known:
                paths, pictures = zip(*known)
                differences = numpy.abs(numpy.stack(pictures) - coarse).mean(axis=1)  # (N,)
                if differences.min() < NEAR:
                    copies[item.impath] = paths[differences.argmin()]
        if not copies:
            return []
        test, train = (
            os.path.relpath(path, self.dataset_dir) for path in next(iter(copies.items()))
        )
        note = (
            f"Training images look like {counted(len(copies), 'test image')}, such as {train} like "
            f"{test}: an accuracy on these is not a test"
        )
        log.warning("%s", note)
        return [note]

    def without(
        self, reasons: Mapping[str, str], chosen: dict[str, list[Datum]], skips: bool
    ) -> dict[str, list[Datum]]:
        """The images without the unreadable ones; reasons: path → why."""
        broken = ", ".join(
            f"{os.path.relpath(path, self.dataset_dir)} ({reason})"
            for path, reason in reasons.items()
        )
        if not skips:
            raise UserError(
                f"{len(reasons)} of the images in {self.dataset_dir} can't be read: {broken}: replace them, take them out, or go on "
                "without them with DATALOADER.BROKEN_IMAGES skip"
            )
        lost_images = counted(len(reasons), "image")
        log.warning("Left out, since they can't be read: %s (%s)", lost_images, broken)
        left = {
            part: [item for item in items if item.impath not in reasons]
            for part, items in chosen.items()
        }
        lost = {item.classname for item in chosen["train_x"]} - {
            item.classname for item in left["train_x"]
        }
        if lost or not left["test"]:
            what = f"training image of the class {min(lost)!r}" if lost else "test image"
            raise UserError(f"no {what} in {self.dataset_dir} can be read: {broken}: replace them")
        self.broken = {
            part.removesuffix("_x"): sorted(names)
            for part, items in chosen.items()
            if (names := [image_name(item.impath) for item in items if item.impath in reasons])
        }
        return left


def left_out_of(folder: str) -> tuple[str, str]:
    """What is left out of class folders, and which images lie outside of them, in a line each; "" for nothing."""
    places = [folder, *(os.path.join(folder, part) for part in PARTS)]
    files = [
        path
        for path in files_below(folder)
        if not path.startswith(os.path.join(folder, FOLDER, ""))
    ]
    stray = [path for path in files if os.path.dirname(path) in places and is_image(path)]
    return (
        left_out(path for path in files if os.path.dirname(path) not in places),
        f"Left out, since they lie in no class folder: {counted(len(stray), 'image')} ({named(stray)})"
        if stray
        else "",
    )


def class_folders(folder: str) -> list[str]:
    return [name for name in subfolders(folder) if name != FOLDER]


def class_files(folder: str) -> dict[str, list[str]]:
    """Class folder → paths of the images in it and below, both sorted.

    Raises:
        UserError: the folder is missing or has no class folders or only one, a class has no image, or a name is not UTF-8.
    """
    classes = class_folders(folder)
    if not classes:
        raise UserError(
            f"{folder} has no class folders: put the images of each class into a folder of their own"
        )
    if len(classes) == 1:
        raise UserError(
            f"{folder} has one class only, {classes[0]!a}: there is nothing to tell apart"
        )
    files = {}
    for name in classes:
        place = f"{folder}/{name}"
        files[name] = [
            path if os.path.dirname(path) == place else place + BELOW + os.path.relpath(path, place)
            for path in filter(is_image, files_below(place))
        ]
        for path in (place, *files[name]):
            try:
                path.encode()
            except UnicodeEncodeError:  # Python's stand-ins for bytes that are no UTF-8
                raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
        if not files[name]:
            raise UserError(f"{place} has too few images: none (they end in {', '.join(ENDINGS)})")
    return files


def labelled(files: Files, names: Mapping[str, str]) -> list[Image]:
    """The images of class folders, whose labels follow the order of the classes' names."""
    return [
        Image(path, label, classname)
        for label, (folder, classname) in enumerate(names.items())
        for path in files.get(folder, ())
    ]


def divide(folder: str, files: Files) -> dict[str, Files]:
    """Class folder → images, divided class by class into train, val and test.

    Raises:
        UserError: a class has so few images that a part of it would be empty.
    """
    parts: dict[str, Files] = {"train": {}, "val": {}, "test": {}}
    for name, paths in files.items():
        shuffled = random.Random(f"ImageFolder {name}").sample(
            paths, len(paths)
        )  # seeded by the class alone
        first, second = (round(SHARES[part] * len(paths)) for part in ("train", "val"))
        cut = {
            "train": shuffled[:first],
            "val": shuffled[first : first + second],
            "test": shuffled[first + second :],
        }
        if not all(cut.values()):
            raise UserError(
                f"{os.path.join(folder, name)} has too few images to divide: {len(paths)}, "
                "at least 4 are needed for train, val and test"
            )
        for part, chosen in cut.items():
            parts[part][name] = chosen
    return parts


def class_names(folder: str, classes: Sequence[str]) -> dict[str, str]:
    """Class folder → class name.

    Raises:
        UserError: ``classnames.txt`` leaves a class out.
    """
    path = f"{folder}/classnames.txt"
    if not os.path.isfile(path):
        return {name: name for name in classes}
    names = read_classnames(path)
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(f"{path} has no line for the class folder {missing[0]}")
    return {name: names[name] for name in classes}
