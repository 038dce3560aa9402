"""One's own images: a folder of class folders, without renaming anything.

The folder holds either ``train``, ``test`` and, if there is one, ``val``, or what others call these,
see ``class_folders.PART_OF``, each with the same class folders, or the class folders; those are
divided, class by class, into 50 % train, 20 % val and 30 % test. Where there is no ``test``, ``val``
is tested on, and a fifth of ``train`` validates. The division follows from the file names and from
which images look alike, which stay together, and not from the run's seed, so that all seeds, and
tests of their prompts, have the same test images. Images may lie in folders below a class folder. Class names are the folders' names, or those of a file ``classnames.txt`` beside them:
``folder name``, a line per class.

Fewer than ``FEW`` images that are not divided already can serve as training and test images all,
see ``OwnImages``: then no answer of the test may come from a classifier that has seen the image.
"""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence

import numpy
from yacs.config import CfgNode

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.common.image_files import (
    Seen,
    files_below,
    is_image,
    left_out,
    look_through,
    named,
    transparent_parts,
)
from trainers.data.class_folders import (
    LEAST,
    Files,
    divide,
    image_files,
    labelled,
    read_classnames,
    small_classes,
)
from trainers.data.fewshot import FOLDER, Parts, choose
from trainers.data.lists import PARTS, Image, Lists
from trainers.texts.classnames import alike

from .label_files import read_labels
from .layouts import WITHOUT_TEST, Layout, deeper, layout_of
from .look_alikes import are_new, groups_of

log = logging.getLogger(__name__)
FEW = 100  # images, below which a part of them tells too little
NAME = "ImageFolder"  # as a data set
WHOLE = "whole"  # class folders that are to be divided


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
        self.choice = choice_of(cfg)
        self.layout = layout_of(folder)
        files = files_of(folder, self.layout)
        lists = divided(folder, files)
        every = [image for images in lists for image in images]
        notes = check_small(folder, files.get(WHOLE, {}), cfg)
        for names in alike(dict.fromkeys(image.classname for image in every)):
            log.warning(
                "Class names that differ in case or Unicode form only: %s",
                " ".join(map(ascii, names)),
            )
        notes += warned([deeper(every)])
        notes += warned(files_left_out(folder, self.layout))
        paths = [*dict.fromkeys(image.impath for image in every)]
        seen = dict(zip(paths, look_through(paths)))
        coarse = [seen[image.impath].coarse for image in every]
        group = groups_of(coarse, [image.label for image in every])
        self.groups = {image.impath: number for image, number in zip(every, group)}
        if len({*group}) < len(every):
            lists = divided(folder, files, self.groups)
        is_few = bool(self.layout.whole) and sum(map(len, lists)) < FEW
        # another toolbox's config may not have the key
        is_all = is_few and cfg.DATASET.get("FOLDS", 0) > 0 and cfg.DATASET.NUM_SHOTS < 1
        self.folds = cfg.DATASET.FOLDS if is_all else 0
        if is_all:
            every = sorted(sum(lists, []), key=lambda image: image.label)
            lists = every, [], every
        chosen = choose(cfg, folder, *lists)
        self.fewshot_sample = chosen.sample
        if is_few and not is_all:
            held_out = counted(len(chosen.test), "image")
            notes.append(
                f"The accuracy is of {held_out}, held out. Of so few images a trainer of image features, "
                "such as GDA, is tested on all by cross-validation, and trained on all"
            )
            log.info("%s", notes[-1])
        parts: Parts = {"train": chosen.train, "val": chosen.val, "test": chosen.test}
        paths = [*dict.fromkeys(image.impath for images in parts.values() for image in images)]
        seen = {path: seen[path] for path in paths}
        digests = [seen[path].digest for path in paths]
        self.content = hashlib.sha256(b"".join(digests)).hexdigest()
        self.broken: dict[str, list[str]] = {}
        parts = self.readable(parts, seen, skips_broken(cfg))
        self.train_x = parts["train"]
        self.val = parts["val"]
        self.test = parts["test"]
        self.classnames = classnames_of(self.train_x)
        self.seen_groups = groups_seen(self.train_x, self.groups, is_all)
        notes += warned(self.copies_of_trained()) + self.notes_on_groups()
        self.notes = notes + warned(self.files_in_two_classes(seen))
        if transparent := sum(picture.is_transparent for picture in seen.values()):
            log.info(
                "Transparent parts, in %d of %d images, are %s (INPUT.BACKGROUND)",
                transparent,
                len(paths),
                transparent_parts(cfg.INPUT.BACKGROUND),
            )

    def serve(self, cfg: CfgNode) -> bool:
        """Whether a run of another config takes the images of this one."""
        return choice_of(cfg) == self.choice

    def whole_val(self) -> list[Image]:
        """Validation images, all of which were looked through."""
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
        left = {}
        broken_in = {}
        for part, items in parts.items():
            left[part] = [item for item in items if item.impath not in reasons]
            lost = [image_name(item.impath) for item in items if item.impath in reasons]
            # in folds the images of the training are those of the test
            if lost and (part != "train" or not self.folds):
                broken_in[part] = sorted(lost)
        classes = classnames_of(parts["train"])
        if not skips or classnames_of(left["train"]) != classes or not left["test"]:
            raise UserError(
                f"{len(reasons)} of the images in {self.dataset_dir} can't be read: {broken}: replace them, take them out, or go "
                "on without them with DATALOADER.BROKEN_IMAGES skip, if each class and the test have others"
            )
        lost_images = counted(len(reasons), "image")
        log.warning("Left out, since they can't be read: %s (%s)", lost_images, broken)
        self.broken = broken_in
        return left

    def are_new(self, paths: Sequence[str]) -> numpy.ndarray:
        """Which of the images (N,) count where a promise is made, see ``look_alikes``."""
        return are_new([self.groups[path] for path in paths], self.seen_groups)

    def copies_of_trained(self) -> Iterator[str]:
        """Which images look like training images of their class. Images that look like another class's
        show fine differences, which make a test no easier."""
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
                known = os.path.relpath(first[self.groups[path]], self.dataset_dir)
                shown = os.path.relpath(path, self.dataset_dir)
                yield (
                    f"Training images look like {counted(len(copies), f'{part} image')}, such as {known} like "
                    f"{shown}: {why}"
                )

    def notes_on_groups(self) -> list[str]:
        """Says how many images look like others, where these are divided."""
        images = {*self.train_x, *self.val, *self.test}
        sizes = Counter(self.groups[image.impath] for image in images)
        large = [size for size in sizes.values() if size > 1]
        if not large or not self.layout.whole:
            return []
        note = (
            f"{counted(sum(large), 'image')} look like others, in {counted(len(large), 'group')}: where a class has "
            "groups enough, each is trained on, validated or tested as a whole"
        )
        log.info("%s", note)
        return [note]

    def files_in_two_classes(self, seen: Mapping[str, Seen]) -> Iterator[str]:
        """Which files are in two classes at once."""
        by_digest: dict[bytes, dict[int, str]] = defaultdict(dict)
        for image in (*self.train_x, *self.val, *self.test):
            by_digest[seen[image.impath].digest].setdefault(image.label, image.impath)
        several = [[*paths.values()] for paths in by_digest.values() if len(paths) > 1]
        if several:
            names = [os.path.relpath(path, self.dataset_dir) for path in several[0]]
            number = counted(len(several), "image")
            yield (
                f"{number} in two classes at once, such as {' and '.join(names)}: one of them is wrong"
            )


def warned(sentences: Iterable[str]) -> list[str]:
    """The sentences that say anything, each of which is logged as a warning."""
    notes = [sentence for sentence in sentences if sentence]
    for note in notes:
        log.warning("%s", note)
    return notes


def skips_broken(cfg: CfgNode) -> bool:
    """Whether images that can't be read are left out."""
    # another toolbox's config may not have the key
    skips: bool = cfg.DATALOADER.get("BROKEN_IMAGES", "error") == "skip"
    return skips


def choice_of(cfg: CfgNode) -> tuple[CfgNode, int, bool]:
    """What of a config says which images a run takes."""
    return cfg.DATASET.clone(), cfg.SEED, skips_broken(cfg)


def groups_seen(
    trained: Iterable[Image], groups: Mapping[str, Hashable], in_folds: bool
) -> set[Hashable]:
    """The groups of which an answer to an image may have seen another one: those that were trained on
    or, where folds answer each other, those of classes that have no other, see ``folds``."""
    by_class: dict[int, set[Hashable]] = defaultdict(set)
    for image in trained:
        by_class[image.label].add(groups[image.impath])
    return set().union(*(own for own in by_class.values() if not in_folds or len(own) == 1))


def list_images(folder: str) -> Lists:
    """All images of a folder, see the head of this file: train, val and test; images that look alike
    may be divided.

    Raises:
        UserError: it is laid out otherwise.
    """
    return divided(folder, files_of(folder, layout_of(folder)))


def files_of(folder: str, layout: Layout) -> dict[str, Files]:
    """The files of each part, or of the ``WHOLE``, before they are divided.

    Raises:
        UserError: see ``image_files``.
    """
    if layout.whole:
        return {WHOLE: image_files(layout.whole, may_be_empty=True)}
    places = layout.parts
    # in this order they are looked for
    known = [part for part in PARTS if part == "train" or part in places]
    return {part: image_files(places.get(part, f"{folder}/{part}")) for part in known}


def divided(
    folder: str, files: Mapping[str, Files], groups: Mapping[str, Hashable] | None = None
) -> Lists:
    """Train, val and test of a folder's files, see ``files_of``.

    Args:
        groups: path → its group of images that look alike, which are not divided; without, each
            image is alone.
    """
    parts = {**files}
    if WHOLE in files:
        # the others: see ``check_small``
        large = {name: paths for name, paths in files[WHOLE].items() if len(paths) >= LEAST}
        parts = divide(folder, large, groups)
    elif "test" not in files:
        parts = divide(folder, files["train"], groups, WITHOUT_TEST)
        parts["test"] = files["val"]
    return labelled(folder, parts, names_of(folder, parts["train"]))


def names_of(folder: str, classes: Collection[str]) -> dict[str, str]:
    """Class folder → class name: its own, or that of a folder's ``classnames.txt``."""
    path = f"{folder}/classnames.txt"
    return read_classnames(path, classes) if os.path.isfile(path) else dict(zip(classes, classes))


def check_small(folder: str, files: Files, cfg: CfgNode) -> list[str]:
    """Warns of classes that are left out, since they have too few images to divide, and returns
    the warnings.

    Args:
        folder: of the images; files: of the classes that are to be divided.

    Raises:
        UserError: there are such classes, and they are not to be skipped, or no two others.
    """
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
    return warned([f"Left out: {small}"])


def classnames_of(images: Sequence[Image]) -> list[str]:
    """The names of the classes in the order of their labels."""
    names = {image.label: image.classname for image in images}
    return [names[label] for label in sorted(names)]


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
    names = names_of(folder, files)
    paths = [path for of_class in files.values() for path in of_class]
    labels = [names[name] for name, of_class in files.items() for _ in of_class]
    return paths, labels


def files_left_out(folder: str, layout: Layout) -> Iterator[str]:
    """What is left out of class folders, and images that lie outside of them, in a line each; the first
    may be empty."""
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
    yield left_out(inside)
    if outside:
        number = counted(len(outside), "image")
        yield f"Left out, since they lie in no class folder: {number} ({named(outside)})"
    if with_images := [f"{name} ({number})" for name, number in unused.items() if number]:
        beside_what = " and ".join(sorted(map(os.path.basename, used)))
        yield f"Left out, since they lie beside {beside_what}: images in {first_few(with_images)}"
