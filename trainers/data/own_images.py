"""One's own images: a folder of class folders, without renaming anything.

The folder holds either ``train``, ``test`` and, if there is one, ``val``, or what others call these,
see ``class_folders.PART_OF``, each with the same class folders, or the class folders; those are
divided, class by class, into 50 % train, 20 % val and 30 % test. Where there is no ``test``, ``val``
is tested on, and a fifth of ``train`` validates. The division follows from the file names and from
which images look alike, which stay together, and not from the run's seed, so that all seeds, and
tests of their prompts, have the same test images. Images may lie in folders below a class folder. Class names are the folders' names, or those of a file ``classnames.txt`` beside them:
``folder name``, a line per class.

Fewer than ``FEW`` images that are not divided already can serve as training and test images all,
see ``tests_all``: then no answer of the test may come from a classifier that has seen the image.
"""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy
from yacs.config import CfgNode

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
from ..texts.classnames import alike
from .class_folders import (
    LEAST,
    WITHOUT_TEST,
    deeper,
    divide,
    image_files,
    labelled,
    layout_of,
    read_classnames,
    small_classes,
)
from .fewshot import FOLDER, choose
from .label_files import read_labels
from .lists import PARTS, Image, Lists
from .look_alikes import are_new, groups_of

log = logging.getLogger(__name__)
FEW = 100  # images, below which a part of them tells too little
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
        groups: path → the number of the group of images that look alike, see ``look_alikes``.
        seen_groups: those of which an answer may have seen another image, see ``groups_seen``.
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
        every = [image for images in lists for image in images]
        notes = check_small(folder, cfg)
        for names in alike(dict.fromkeys(image.classname for image in every)):
            log.warning(
                "Class names that differ in case or Unicode form only: %s",
                " ".join(map(ascii, names)),
            )
        if warning := deeper(every):
            log.warning("%s", warning)
            notes.append(warning)
        notes += notes_on_files_left_out(folder)
        paths = [*dict.fromkeys(image.impath for image in every)]
        seen = dict(zip(paths, look_through(paths)))
        coarse = [seen[image.impath].coarse for image in every]
        group = groups_of(coarse, [image.label for image in every])
        self.groups = {image.impath: number for image, number in zip(every, group)}
        if len({*group}) < len(every):
            lists = list_images(folder, self.groups)
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
        seen = {path: seen[path] for path in paths}
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
        self.seen_groups = groups_seen(self.train_x, self.groups, is_all)
        self.notes = notes + self.notes_on_copies() + self.notes_on_two_classes(seen)
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

    def are_new(self, paths: Sequence[str]) -> numpy.ndarray:
        """Which of the images (N,) count where a promise is made, see ``look_alikes``."""
        return are_new([self.groups[path] for path in paths], self.seen_groups)

    def notes_on_copies(self) -> list[str]:
        """Warns of images that look like training images of their class, and says of others that they
        look alike; returns the notes. Those that look like another class's show fine differences,
        which make a test no easier."""
        notes = []
        first = {}
        for image in reversed(self.train_x):
            first[self.groups[image.impath]] = image.impath
        for part, images, why in (
            ("test", self.test, "an accuracy on these is not a test"),
            ("validation", self.val, "no promise (--max-error) rests on these"),
        ):
            copies = [image.impath for image in images if self.groups[image.impath] in first]
            if part == "test" and self.folds:
                copies = [path for path in copies if self.groups[path] in self.seen_groups]
            if copies:
                path = copies[-1 if self.folds else 0]  # in folds the first is a training image
                pair = first[self.groups[path]], path
                known, shown = (os.path.relpath(path, self.dataset_dir) for path in pair)
                notes.append(
                    f"Training images look like {counted(len(copies), f'{part} image')}, such as {known} like "
                    f"{shown}: {why}"
                )
        for note in notes:
            log.warning("%s", note)
        sizes = Counter(
            self.groups[image.impath] for image in {*self.train_x, *self.val, *self.test}
        )
        large = [group for group, size in sizes.items() if size > 1]
        if large and layout_of(self.dataset_dir).whole:
            together = sum(sizes[group] for group in large)
            notes.append(
                f"{counted(together, 'image')} look like others, in {counted(len(large), 'group')}: where a class has "
                "groups enough, each is trained on, validated or tested as a whole"
            )
            log.info("%s", notes[-1])
        return notes

    def notes_on_two_classes(self, seen: Mapping[str, Seen]) -> list[str]:
        """Warns of the same files in two classes, and returns the warnings."""
        by_digest: dict[bytes, dict[int, str]] = defaultdict(dict)
        for image in (*self.train_x, *self.val, *self.test):
            by_digest[seen[image.impath].digest].setdefault(image.label, image.impath)
        several = [[*paths.values()] for paths in by_digest.values() if len(paths) > 1]
        if not several:
            return []
        names = [os.path.relpath(path, self.dataset_dir) for path in several[0]]
        number = counted(len(several), "image")
        note = (
            f"{number} in two classes at once, such as {' and '.join(names)}: one of them is wrong"
        )
        log.warning("%s", note)
        return [note]


def groups_seen(
    trained: Iterable[Image], groups: Mapping[str, Hashable], in_folds: bool
) -> set[Hashable]:
    """The groups of which an answer to an image may have seen another one: those that were trained on
    or, where folds answer each other, those of classes that have no other, see ``folds``."""
    by_class: dict[int, set[Hashable]] = defaultdict(set)
    for image in trained:
        by_class[image.label].add(groups[image.impath])
    return set().union(*(own for own in by_class.values() if not in_folds or len(own) == 1))


def list_images(folder: str, groups: Mapping[str, Hashable] | None = None) -> Lists:
    """All images of a folder, see the head of this file: train, val and test.

    Args:
        groups: path → its group of images that look alike, which are not divided; without, each
            image is alone.

    Raises:
        UserError: it is laid out otherwise.
    """
    whole, places, _ = layout_of(folder)
    if whole:
        files = image_files(whole, may_be_empty=True)
        # the others: see ``check_small``
        large = {name: paths for name, paths in files.items() if len(paths) >= LEAST}
        parts = divide(folder, large, groups)
    elif "test" in places:
        # in this order they are looked for
        known = [part for part in PARTS if part != "val" or part in places]
        parts = {part: image_files(places.get(part, f"{folder}/{part}")) for part in known}
    else:
        parts = divide(folder, image_files(places["train"]), groups, WITHOUT_TEST)
        parts["test"] = image_files(places["val"])
    names = {name: name for name in parts["train"]}
    path = f"{folder}/classnames.txt"
    if os.path.isfile(path):
        names = read_classnames(path, names)
    return labelled(folder, parts, names)


def tests_all(cfg: CfgNode, folder: str, lists: Lists) -> bool:
    """Whether all images of a folder are training images and test images, in folds: where that is
    asked for, there are few, and they are not to be sampled."""
    # another toolbox's config may not have the key
    is_wanted = cfg.DATASET.get("FOLDS", 0) > 0 and cfg.DATASET.NUM_SHOTS < 1
    return is_wanted and is_few(folder, lists)


def is_few(folder: str, lists: Lists) -> bool:
    """Whether a folder has fewer than ``FEW`` images, which are not divided already."""
    return bool(layout_of(folder).whole) and sum(map(len, lists)) < FEW


def check_small(folder: str, cfg: CfgNode) -> list[str]:
    """Warns of classes that are left out, since they have too few images to divide, and returns
    the warnings.

    Raises:
        UserError: there are such classes, and they are not to be skipped, or no two others.
    """
    whole = layout_of(folder).whole
    if not whole:
        return []
    files = image_files(whole, may_be_empty=True)
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
    layout = layout_of(folder)
    place = layout.whole or layout.parts.get("test") or layout.parts["val"]
    files = image_files(place)
    names = {name: name for name in files}
    if os.path.isfile(f"{folder}/classnames.txt"):
        names = read_classnames(f"{folder}/classnames.txt", names)
    pairs = [(path, names[name]) for name, paths in files.items() for path in paths]
    return [path for path, _ in pairs], [name for _, name in pairs]


def notes_on_files_left_out(folder: str) -> list[str]:
    """Warns of what is left out of class folders, and of images that lie outside of them, in a line
    each, and returns the warnings."""
    layout = layout_of(folder)
    used = [layout.whole] if layout.whole else [*layout.parts.values()]
    places = {folder, *used}
    beside = tuple(os.path.join(folder, name, "") for name in layout.beside)
    samples = os.path.join(folder, FOLDER, "")
    inside = []
    outside = []
    unused: dict[str, int] = Counter()
    for path in files_below(folder):
        if path.startswith(beside):
            unused[os.path.relpath(path, folder).split(os.sep)[0]] += is_image(path)
        elif os.path.dirname(path) not in places:
            if not path.startswith(samples):
                inside.append(path)
        elif is_image(path):
            outside.append(path)
    lines = [left_out(inside)]
    if outside:
        number = counted(len(outside), "image")
        lines += [f"Left out, since they lie in no class folder: {number} ({named(outside)})"]
    if with_images := [f"{name} ({number})" for name, number in unused.items() if number]:
        lines += [
            f"Left out, since they lie beside {' and '.join(sorted(map(os.path.basename, used)))}: images in "
            f"{first_few(with_images)}"
        ]
    notes = [line for line in lines if line]
    for note in notes:
        log.warning("%s", note)
    return notes
