"""One's own images: a folder of class folders, without renaming anything, or a file that names images
and labels, see ``label_files``, which are read where they are and divided as class folders are.

The folder holds either ``train``, ``test`` and, if there is one, ``val``, or what others call these,
see ``class_folders.PART_OF``, each with the same class folders, or the class folders; those are
divided, class by class, into 50 % train, 20 % val and 30 % test. Where there is no ``test``, ``val``
is tested on, and a fifth of ``train`` validates. The division follows from the file names and from
which images look alike, which stay together, and not from the run's seed, so that all seeds, and
tests of their prompts, have the same test images. Images may lie in folders below a class folder.
Class names are the folders' names, or those of a file ``classnames.txt`` beside them: ``folder name``,
a line per class.

What is fitted in seconds is tested in folds and then fitted to all images, unless the user has divided
them: then the test part stays out. No answer of a test comes from a classifier that has seen the image.
"""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from yacs.config import CfgNode

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.fingerprints import LISTED, image_name
from trainers.common.image_files import (
    Seen,
    files_below,
    is_image,
    left_out,
    look_through,
    named,
    needs_heic,
    transparent_parts,
)
from trainers.data.class_folders import (
    LEAST,
    Files,
    check_each,
    divide,
    image_files,
    labelled,
    names_of_folders,
    small_classes,
)
from trainers.data.fewshot import FOLDER, Parts, choose
from trainers.data.images import Images
from trainers.data.kept import Kept
from trainers.data.lists import PARTS, Image, Lists, classnames_of
from trainers.texts.classnames import alike

from .groups import Groups, check_groups, in_stretches, named_by, note_on_partial, numbered
from .label_files import read_labels
from .layouts import WITHOUT_TEST, Layout, deeper, layout_of, parts_taken
from .look_alikes import look_alikes, share_partial

log = logging.getLogger(__name__)
FEW = 100  # images, below which a part of them tells too little
FOLDS = 5  # in which many images answer each other
MANY_FOLDS = 10  # in which few do
CHEAP = 2000  # images, up to which ten fits take seconds
NAME = "ImageFolder"  # as a data set
WHOLE = "whole"  # class folders that are to be divided
SeenOf = Mapping[str, Seen]  # path → what was seen of the picture


class Listing(NamedTuple):
    """The images of a folder, or of a file that names them, before they are divided.

    Attributes:
        place: path of the folder or the file.
        layout: of the folder; a file's is one whole.
        files: those of each part, or of the ``WHOLE``.
        notes: what a reader of the run's numbers has to know of them.
        groups: path → the name of its group, of those of which a file says it.
    """

    place: str
    layout: Layout
    files: dict[str, Files]
    notes: list[str]
    groups: Mapping[str, str]


def own_images(folder: str, cfg: CfgNode, can_fold: bool, kept: Kept | None = None) -> Images:
    """What a run takes of one's own images; labels follow the sorted names of the class folders.

    Images that can't be read are reported before training.

    Args:
        folder: absolute path, of a folder or of a file that names images; cfg: the run's config.
        can_fold: whether training images may be tested in folds, so that all are trained on.
        kept: is given each image as it is decoded, and ends with those of the run.

    Raises:
        UserError: there are images that can't be read and they are not to be skipped, or nothing is
            left of a class or of the test.
    """
    listing = listed(folder)
    layout = listing.layout
    named_groups = listing.groups
    notes = [*listing.notes]
    for note in notes:
        log.info("%s", note)
    every = sum(divided(listing), [])
    notes += check_small(listing, cfg.DATASET.SKIP_SMALL)
    warn_of_names(every)
    notes += warned([deeper(every)])
    notes += warned(files_left_out(listing))
    if rule := cfg.DATASET.GROUP_BY:
        if named_groups:
            raise UserError(f"{folder} has a column group: leave out --group-by, or that column")
        named_groups = named_by(rule, every)
    seen = seen_of(every, kept)
    found_in_part = 0.0
    if named_groups:
        groups = numbered(every, named_groups)
        check_groups(folder, every, groups)
    else:
        groups, partial = grouped(every, seen)
        if layout.whole:
            found = groups
            groups, film = in_stretches(every, found)
            notes += warned([film])
            partial = [path for path in partial if groups[path] == found[path]]
        found_in_part = share_partial(len(partial), len(every))
        notes += warned([note_on_partial(found_in_part, "by a column group or by --group-by")])
    lists = divided(listing, groups)
    train, val, test = lists
    is_whole = bool(layout.whole) and cfg.DATASET.NUM_SHOTS < 1
    if can_fold and is_whole:
        train = test = in_classes(sum(lists, []))
        val = []
    elif can_fold and cfg.DATASET.NUM_SHOTS < 1 and val is not test:
        train = in_classes(train + val)
        val = []
    chosen = choose(cfg, folder, train, val, test)
    classnames = classnames_of(chosen.train)
    parts: Parts = {"train": chosen.train, "val": chosen.val, "test": chosen.test}
    paths = [*dict.fromkeys(image.impath for images in parts.values() for image in images)]
    of_run = {path: seen[path] for path in paths}
    if kept is not None:
        kept.keep_only([image.impath for image in chosen.train], paths)
    folds = number_of_folds(chosen.train) if can_fold else 0
    if layout.whole and not folds and len(every) < FEW:
        notes.append(note_on_few(len(chosen.test)))
    left = readable(folder, parts, of_run, cfg.DATALOADER.BROKEN_IMAGES == "skip")
    made = Images(
        left["train"],
        left["val"],
        left["test"],
        classnames,
        whole_val=left["val"],
        fewshot_sample=chosen.sample,
        content=content_of(paths, of_run, named_groups),
        digests={path: of_run[path].digest for path in paths},
        broken=lost(parts, left, folds > 0 and is_whole),
        folds=folds,
        groups=groups,
        found_in_part=found_in_part,
        kept=kept,
    )
    notes += warned(copies_of_trained(folder, made, bool(named_groups)))
    if layout.whole:
        notes += notes_on_groups(left, groups, bool(named_groups))
    notes += warned(files_in_two_classes(folder, left, of_run))
    say_transparent(of_run, cfg.INPUT.BACKGROUND)
    return replace(made, notes=notes)


def number_of_folds(trained: Iterable[Image]) -> int:
    """In how many folds the training images answer each other: in ten where these are cheap or a class
    is small, since what is fitted to nine tenths is nearly as good as what is kept; 0 where a class
    has one image, of which nothing can be held out."""
    sizes = Counter(image.label for image in trained)
    smallest = min(sizes.values())
    if smallest < 2:
        return 0
    return MANY_FOLDS if sizes.total() <= CHEAP or smallest < MANY_FOLDS else FOLDS


def in_classes(images: Iterable[Image]) -> list[Image]:
    """The images class by class, each class in its order."""
    return sorted(images, key=lambda image: image.label)


# ---- a look at each picture ----


def seen_of(images: Iterable[Image], kept: Kept | None) -> SeenOf:
    """Looks at each file of the images once."""
    paths = [*dict.fromkeys(image.impath for image in images)]
    return dict(zip(paths, look_through(paths, kept)))


def grouped(images: Sequence[Image], seen: SeenOf) -> tuple[Groups, list[str]]:
    """The groups of images of a class that look alike, and the paths of those that don't look like all of
    their group."""
    coarse = [seen[image.impath].coarse for image in images]
    found = look_alikes(coarse, [image.label for image in images])
    groups = {image.impath: number for image, number in zip(images, found.groups)}
    partial = [image.impath for image, is_partial in zip(images, found.is_partial) if is_partial]
    return groups, partial


def content_of(paths: Iterable[str], seen: SeenOf, named_groups: Mapping[str, str]) -> str:
    """A hash of the bytes of images, and of which a file says that they belong together."""
    content = hashlib.sha256(b"".join(seen[path].digest for path in paths))
    if named_groups:
        names = [named_groups.get(path, "") for path in paths]
        content.update(repr(names).encode())
    return content.hexdigest()


def say_transparent(seen: SeenOf, background: str) -> None:
    """Says what becomes of transparent parts, if there are any; background: see ``read_picture``."""
    if transparent := sum(picture.is_transparent for picture in seen.values()):
        log.info(
            "Transparent parts, in %d of %d images, are %s (INPUT.BACKGROUND)",
            transparent,
            len(seen),
            transparent_parts(background),
        )


# ---- images that can't be read ----


def readable(folder: str, parts: Parts, seen: SeenOf, skips: bool) -> Parts:
    """The images without the unreadable ones.

    Raises:
        UserError: there are such images, and they are not to be skipped, or a class or the test
            has no other.
    """
    reasons = {path: picture.reason for path, picture in seen.items() if picture.reason}
    if not reasons:
        return parts
    left = {}
    for part, items in parts.items():
        left[part] = [item for item in items if item.impath not in reasons]
    named_reasons = [f"{shown(path, folder)} ({reason})" for path, reason in reasons.items()]
    some = ". ".join(filter(None, [first_few(named_reasons), needs_heic(reasons)]))
    classes = {image.label for image in parts["train"]}
    if not skips or classes != {image.label for image in left["train"]} or not left["test"]:
        raise UserError(
            f"{len(reasons)} of the images in {folder} can't be read: {some}: replace them, take them out, or go "
            "on without them with DATALOADER.BROKEN_IMAGES skip, if each class and the test have others"
        )
    number = counted(len(reasons), "image")
    log.warning("Left out, since they can't be read: %s (%s)", number, some)
    return left


def lost(parts: Parts, left: Parts, in_folds: bool) -> dict[str, list[str]]:
    """Part → names of the images that were left out of it; in folds the images of the training are
    those of the test, which alone is named."""
    names = {}
    for part, items in parts.items():
        kept = {item.impath for item in left[part]}
        missing = [image_name(item.impath) for item in items if item.impath not in kept]
        if missing and not (in_folds and part == "train"):
            names[part] = sorted(missing)
    return names


# ---- what a reader has to know ----


def shown(path: str, folder: str) -> str:
    """An image's path for a message: below the folder, or as a file names it."""
    return image_name(path) if LISTED in path else os.path.relpath(path, folder)


def warn_of_names(images: Iterable[Image]) -> None:
    """Warns of class names that nearly are the same."""
    for names in alike(dict.fromkeys(image.classname for image in images)):
        log.warning(
            "Class names that differ in case or Unicode form only: %s", " ".join(map(ascii, names))
        )


def note_on_few(tested: int) -> str:
    """What the accuracy of few images rests on; tested: how many are held out."""
    note = (
        f"The accuracy is of {counted(tested, 'image')}, held out. Of so few images a trainer of image features, "
        "such as GDA, is tested on all by cross-validation, and trained on all"
    )
    log.info("%s", note)
    return note


def copies_of_trained(folder: str, images: Images, are_named: bool) -> Iterator[str]:
    """Which images look like training images of their class or, where groups are named, are of their groups. Images that look like another class's
    show fine differences, which make a test no easier."""
    groups = images.groups
    in_folds = images.is_tested_in_folds
    first = {groups[str(item.impath)]: str(item.impath) for item in reversed(images.train_x)}
    seen = images.seen_groups(out_of_fold=in_folds)
    for items, noun, why in (
        (images.test, "test", "an accuracy on these is not a test"),
        (images.val, "validation", "no promise (--max-error) rests on these"),
    ):
        copies = [str(item.impath) for item in items if groups[str(item.impath)] in seen]
        if copies:
            path = copies[-1 if in_folds else 0]  # in folds the first is a training image
            known = shown(first[groups[path]], folder)
            like = ("are of one group with", "and") if are_named else ("look like", "like")
            yield (
                f"Training images {like[0]} {counted(len(copies), f'{noun} image')}, such as {known} {like[1]} "
                f"{shown(path, folder)}: {why}"
            )


def notes_on_groups(parts: Parts, groups: Groups, are_named: bool) -> list[str]:
    """Says how many images look like others or, where groups are named, belong together."""
    images = {*parts["train"], *parts["val"], *parts["test"]}
    sizes = Counter(groups[image.impath] for image in images)
    large = [size for size in sizes.values() if size > 1]
    if not large:
        return []
    alike = "belong together" if are_named else "look like others"
    note = (
        f"{counted(sum(large), 'image')} {alike}, in {counted(len(large), 'group')}: where a class has "
        "groups enough, each is trained on, validated or tested as a whole"
    )
    log.info("%s", note)
    return [note]


def files_in_two_classes(folder: str, parts: Parts, seen: SeenOf) -> Iterator[str]:
    """Which files are in two classes at once."""
    by_digest: dict[bytes, dict[int, str]] = defaultdict(dict)
    for image in (*parts["train"], *parts["val"], *parts["test"]):
        by_digest[seen[image.impath].digest].setdefault(image.label, image.impath)
    several = [[*paths.values()] for paths in by_digest.values() if len(paths) > 1]
    if several:
        names = [shown(path, folder) for path in several[0]]
        number = counted(len(several), "image")
        yield f"{number} in two classes at once, such as {' and '.join(names)}: one of them is wrong"


def warned(sentences: Iterable[str]) -> list[str]:
    """The sentences that say anything, each of which is logged as a warning."""
    notes = [sentence for sentence in sentences if sentence]
    for note in notes:
        log.warning("%s", note)
    return notes


# ---- how a folder is listed and divided ----


def list_images(folder: str) -> Lists:
    """All images of a folder, see the head of this file: train, val and test; images that look alike
    may be divided.

    Raises:
        UserError: it is laid out otherwise.
    """
    return divided(listed(folder))


def listed(root: str) -> Listing:
    """The files of a folder, or those that a file names.

    Raises:
        UserError: there are none, or of one class only; see also ``layout_of``, ``read_labels``.
    """
    if os.path.isfile(root):
        return listed_by_file(root)
    layout = layout_of(root)
    if layout.whole:
        places = {WHOLE: layout.whole}
    else:
        # in this order they are looked for
        known = [part for part in PARTS if part == "train" or part in layout.parts]
        places = {part: layout.parts.get(part, f"{root}/{part}") for part in known}
    files = {part: image_files(place, may_be_empty=True) for part, place in places.items()}
    classes = dict.fromkeys(name for of_part in files.values() for name in of_part)
    empty = [name for name in classes if not any(part.get(name) for part in files.values())]
    notes = [*filter(None, [parts_taken(root, layout)])]
    if empty and len(classes) - len(empty) > 1:
        for name in empty:
            for of_part in files.values():
                of_part.pop(name, None)
        notes.append(f"Left out, since it holds no image: {first_few(empty)}")
    for part, place in places.items():
        if part != WHOLE:
            check_each(place, files[part])
    return Listing(root, layout, files, notes, {})


def listed_by_file(path: str) -> Listing:
    """The files that a file names, sorted, by the names of their classes, which are sorted, too."""
    known = read_labels(path)
    files: Files = {name: [] for name in sorted({*known.labels})}
    if len(files) < 2:
        raise UserError(
            f"{path} has labels of one class only, {known.labels[0]}: label images of another one, too"
        )
    for place, label in sorted(zip(known.paths, known.labels)):
        files[label].append(place)
    moving = left_out(filter(is_image, known.paths))
    notes = [*known.notes, *filter(None, [moving])]
    return Listing(path, Layout(path, {}, []), {WHOLE: files}, notes, known.groups)


def divided(listing: Listing, groups: Mapping[str, Hashable] | None = None) -> Lists:
    """Train, val and test of what is listed.

    groups: path → its group of images that look alike, which are not divided; without, each image is
        alone.
    """
    folder = listing.place
    files = listing.files
    parts = {**files}
    if WHOLE in files:
        # the others: see ``check_small``
        large = {name: paths for name, paths in files[WHOLE].items() if len(paths) >= LEAST}
        parts = divide(folder, large, groups)
    elif "test" not in files:
        parts = divide(folder, files["train"], groups, WITHOUT_TEST)
        parts["test"] = files["val"]
    return labelled(folder, parts, names_of_folders(folder, parts["train"]))


def check_small(listing: Listing, skips: bool) -> list[str]:
    """Warns of classes that are left out, since they have too few images to divide, and returns
    the warnings.

    Raises:
        UserError: there are such classes, and they are not to be skipped, or no two others.
    """
    files = listing.files.get(WHOLE, {})
    small = small_classes(files)
    if not small:
        return []
    if not skips or sum(len(paths) >= LEAST for paths in files.values()) < 2:
        raise UserError(
            f"{listing.place} has {small}, which are too few to divide into train, val and test: add some, or, if there are "
            "two other classes, leave these out with --skip-small (in Python and with run.py: DATASET.SKIP_SMALL True)"
        )
    return warned([f"Left out: {small}"])


def labelled_in(folder: str) -> tuple[list[str], list[str]]:
    """Paths of all images of a folder of class folders, or of its ``test``, and the names of their
    classes; of a file those that it names, see ``label_files``.

    Raises:
        UserError: there are no class folders.
    """
    if os.path.isfile(folder):
        known = read_labels(folder)
        for note in known.notes:
            log.info("%s", note)
        return [os.path.abspath(path) for path in known.paths], known.labels
    layout = layout_of(folder)
    place = layout.whole or layout.parts.get("test") or layout.parts["val"]
    files = {name: paths for name, paths in image_files(place, may_be_empty=True).items() if paths}
    names = names_of_folders(folder, files)
    paths = [path for of_class in files.values() for path in of_class]
    labels = [names[name] for name, of_class in files.items() for _ in of_class]
    return paths, labels


def files_left_out(listing: Listing) -> Iterator[str]:
    """What is left out of class folders, and images that lie outside of them, in a line each; the first
    may be empty."""
    folder = listing.place
    layout = listing.layout
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
