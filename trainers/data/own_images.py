"""One's own images: a folder of class folders, without renaming anything.

The folder holds either ``train``, ``test`` and, if there is one, ``val``, each with the same class
folders, or the class folders; those are divided, class by class, into 50 % train, 20 % val and 30 %
test. The division follows from the file names alone and not from the run's seed, so that all seeds,
and tests of their prompts, have the same test images. Images may lie in folders below a class
folder. Class names are the folders' names, or those of a file ``classnames.txt`` beside them:
``folder name``, a line per class.

Fewer than ``FEW`` images that are not divided already can serve as training and test images all,
see ``tests_all``: then no answer of the test may come from a classifier that has seen the image.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence

import numpy
from yacs.config import CfgNode

from ..classnames import alike
from ..common.console import counted, first_few
from ..common.errors import UserError
from ..common.fingerprints import image_name
from ..common.image_files import (
    Seen,
    files_below,
    is_image,
    left_out,
    look_through,
    named,
    transparent_parts,
)
from .class_folders import (
    LEAST,
    class_folders,
    deeper,
    divide,
    image_files,
    labelled,
    read_classnames,
    small_classes,
)
from .fewshot import FOLDER, choose
from .label_files import read_labels
from .lists import PARTS, Image, Lists

log = logging.getLogger(__name__)
FEW = 100  # images, below which a part of them tells too little
# mean difference of two pictures from afar, below which they look alike: of 255, and as a share of how
# far the picture is from one grey, since all line drawings are nearly white
NEAR = 3
SAME = 0.25
NAME = "ImageFolder"  # as a data set
Parts = dict[str, list[Image]]  # train, val and test


class OwnImages:
    """What a run takes of one's own images; labels follow the sorted names of the class folders.

    Images that can't be read are reported before training.

    Args:
        folder: absolute path; cfg: the run's config.

    Attributes:
        train_x, val, test: the images, under Dassl's names.
        folds: in how many folds the test's images, which are all that there are, answer each other;
            0 where nothing is trained on them.
        classnames: the K names.
        fewshot_sample: ``hash`` and ``origin`` of the few-shot sample, None where all images are taken.
        content: hash of the bytes of the images.
        broken: part → names of the images that were left out, since they can't be read.
        notes: what a reader of the run's figures has to know.

    Raises:
        UserError: there are images that can't be read and they are not to be skipped, or nothing is
            left of a class or of the test.
    """

    def __init__(self, folder: str, cfg: CfgNode) -> None:
        self.dataset_dir = folder
        lists = list_images(folder)
        notes = check_small(folder, cfg)
        if warning := deeper([image for images in lists for image in images]):
            log.warning("%s", warning)
            notes.append(warning)
        notes += notes_on_files_left_out(folder)
        is_all = tests_all(cfg, folder, lists)
        self.folds = cfg.DATASET.FOLDS if is_all else 0
        if is_all:
            every = sorted(sum(lists, []), key=lambda image: image.label)
            lists = every, [], every
        chosen = choose(cfg, folder, *lists)
        self.fewshot_sample = chosen.sample
        if not is_all and is_few(folder, lists):
            held_out = counted(len(chosen.test), "image")
            notes.append(
                f"The accuracy is of {held_out}, held out. Of so few images a trainer of image features, "
                "such as GDA, is tested on all by cross-validation, and trained on all"
            )
            log.info("%s", notes[-1])
        parts = {"train": chosen.train, "val": chosen.val, "test": chosen.test}
        paths = [*dict.fromkeys(image.impath for images in parts.values() for image in images)]
        seen = dict(zip(paths, look_through(paths)))
        digests = [seen[path].digest for path in paths]
        self.content = hashlib.sha256(b"".join(digests)).hexdigest()
        self.broken: dict[str, list[str]] = {}
        # another toolbox's config may not have the key
        skips = cfg.DATALOADER.get("BROKEN_IMAGES", "error") == "skip"
        parts = self.readable(parts, seen, skips)
        self.train_x = parts["train"]
        self.val = parts["val"]
        self.test = parts["test"]
        self.classnames = classnames_of(self.train_x)
        self.notes = notes + self.notes_on_copies(seen)
        if transparent := sum(picture.is_transparent for picture in seen.values()):
            log.info(
                "Transparent parts, in %d of %d images, are %s (INPUT.BACKGROUND)",
                transparent,
                len(paths),
                transparent_parts(cfg.INPUT.BACKGROUND),
            )

    def whole_val(self) -> list[Image]:
        """Those that were looked through."""
        return self.val

    def readable(self, parts: Parts, seen: Mapping[str, Seen], skips: bool) -> Parts:
        """The images without the unreadable ones.

        Raises:
            UserError: there are such images, and they are not to be skipped, or a class or the test
                has no other.
        """
        reasons = {path: picture.reason for path, picture in seen.items() if picture.reason}
        if not reasons:
            return parts
        broken = first_few(
            [
                f"{os.path.relpath(path, self.dataset_dir)} ({reason})"
                for path, reason in reasons.items()
            ]
        )
        left = {
            part: [item for item in items if item.impath not in reasons]
            for part, items in parts.items()
        }
        classes, others = ({item.label for item in of["train"]} for of in (parts, left))
        if not skips or classes != others or not left["test"]:
            raise UserError(
                f"{len(reasons)} of the images in {self.dataset_dir} can't be read: {broken}: replace them, take them out, or go "
                "on without them with DATALOADER.BROKEN_IMAGES skip, if each class and the test have others"
            )
        lost_images = counted(len(reasons), "image")
        log.warning("Left out, since they can't be read: %s (%s)", lost_images, broken)
        self.broken = {
            part: sorted(names)
            for part, items in parts.items()
            if (part != "train" or not self.folds)
            and (names := [image_name(item.impath) for item in items if item.impath in reasons])
        }
        return left

    def notes_on_copies(self, seen: Mapping[str, Seen]) -> list[str]:
        """Warns of test images that look like training images of their class, copies and the same
        picture in another size or format, and returns the warnings. Those that
        look like another class's show fine differences, which make a test no easier."""
        copies = []
        for label in sorted({item.label for item in self.test}):
            tested, trained = (
                [item.impath for item in images if item.label == label]
                for images in (self.test, self.train_x)
            )
            known = numpy.array([seen[path].coarse for path in trained])  # (N, pixels)
            for path in tested:
                differences = numpy.abs(known - seen[path].coarse).mean(axis=1)  # (N,)
                if path in trained:
                    differences[trained.index(path)] = numpy.inf
                shown = seen[path].coarse
                assert shown is not None  # what can't be read is left out
                spread = numpy.abs(shown - shown.mean()).mean()
                if differences.min() <= min(NEAR, SAME * spread):
                    copies.append((path, trained[differences.argmin()]))
        if not copies:
            return []
        test, train = (os.path.relpath(path, self.dataset_dir) for path in copies[0])
        note = (
            f"Training images look like {counted(len(copies), 'test image')}, such as {train} like "
            f"{test}: an accuracy on these is not a test"
        )
        log.warning("%s", note)
        return [note]


def list_images(folder: str) -> Lists:
    """All images of a folder, see the head of this file: train, val and test.

    Raises:
        UserError: it is laid out otherwise.
    """
    if any(class_folders(f"{folder}/{part}") for part in ("train", "test")):
        places = [part for part in PARTS if part != "val" or os.path.isdir(f"{folder}/val")]
        parts = {part: image_files(f"{folder}/{part}") for part in places}
    else:
        files = image_files(folder, may_be_empty=True)
        # the others: see ``check_small``
        large = {name: paths for name, paths in files.items() if len(paths) >= LEAST}
        parts = divide(folder, large)
    names = {name: name for name in parts["train"]}
    path = f"{folder}/classnames.txt"
    if os.path.isfile(path):
        names = read_classnames(path, names)
    for group in alike(names.values()):
        if len({*group}) > 1:
            log.warning(
                "Class names that differ in case or Unicode form only: %s",
                " ".join(map(ascii, group)),
            )
    return labelled(folder, parts, names)


def tests_all(cfg: CfgNode, folder: str, lists: Lists) -> bool:
    """Whether all images of a folder are training images and test images, in folds: where that is
    asked for, there are few, and they are not to be sampled."""
    # another toolbox's config may not have the key
    is_wanted = cfg.DATASET.get("FOLDS", 0) > 0 and cfg.DATASET.NUM_SHOTS < 1
    return is_wanted and is_few(folder, lists)


def is_few(folder: str, lists: Lists) -> bool:
    """Whether a folder has fewer than ``FEW`` images, which are not divided already."""
    is_divided = any(class_folders(f"{folder}/{part}") for part in ("train", "test"))
    return not is_divided and sum(map(len, lists)) < FEW


def check_small(folder: str, cfg: CfgNode) -> list[str]:
    """Warns of classes that are left out, since they have too few images to divide, and returns
    the warnings.

    Raises:
        UserError: there are such classes, and they are not to be skipped, or no two others.
    """
    if any(class_folders(f"{folder}/{part}") for part in ("train", "test")):
        return []
    files = image_files(folder, may_be_empty=True)
    small = small_classes(files)
    if not small:
        return []
    # another toolbox's config may not have the key
    skips = cfg.DATASET.get("SKIP_SMALL", False)
    if not skips or sum(len(paths) >= LEAST for paths in files.values()) < 2:
        raise UserError(
            f"{folder} has {small}, which are too few to divide into train, val and test: add some, or, if there are "
            "two other classes, leave these out with --skip-small (in Python and with run.py: DATASET.SKIP_SMALL True)"
        )
    note = f"Left out: {small}"
    log.warning("%s", note)
    return [note]


def classnames_of(images: Sequence[Image]) -> list[str]:
    """The names of the classes in the order of their labels."""
    return [name for _, name in sorted({(image.label, image.classname) for image in images})]


def labelled_in(folder: str) -> tuple[list[str], list[str]]:
    """Paths of all images of a folder of class folders, or of its ``test``, and the names of their
    classes; of a file those that it names, see ``label_files``.

    Raises:
        UserError: there are no class folders.
    """
    if os.path.isfile(folder):
        return read_labels(folder)
    place = f"{folder}/test" if class_folders(f"{folder}/test") else folder
    files = image_files(place)
    names = {name: name for name in files}
    if os.path.isfile(f"{folder}/classnames.txt"):
        names = read_classnames(f"{folder}/classnames.txt", names)
    pairs = [(path, names[name]) for name, paths in files.items() for path in paths]
    return [path for path, _ in pairs], [name for _, name in pairs]


def notes_on_files_left_out(folder: str) -> list[str]:
    """Warns of what is left out of class folders, and of images that lie outside of them, in a line
    each, and returns the warnings."""
    places = [folder, *(os.path.join(folder, part) for part in PARTS)]
    samples = os.path.join(folder, FOLDER, "")
    inside = []
    outside = []
    for path in files_below(folder):
        if os.path.dirname(path) not in places:
            if not path.startswith(samples):
                inside.append(path)
        elif is_image(path):
            outside.append(path)
    lines = [left_out(inside)]
    if outside:
        number = counted(len(outside), "image")
        lines += [f"Left out, since they lie in no class folder: {number} ({named(outside)})"]
    notes = [line for line in lines if line]
    for note in notes:
        log.warning("%s", note)
    return notes
