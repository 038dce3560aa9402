"""From a table of one's own pictures to the images of a run: looked at, grouped, divided and sampled.

What is fitted in seconds is tested in folds and then fitted to all images, unless the user has divided
them: then the test part stays out. No answer of a test comes from a classifier that has seen the image.
"""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy
from yacs.config import CfgNode

from trainers.common.boxes import box_of
from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.fingerprints import LISTED_MARK, image_name
from trainers.common.image_files import PictureFacts, look_through, needs_heic, transparent_parts
from trainers.common.trained_on import thumbnail
from trainers.data.images import Images, Item, paths_of
from trainers.data.kept import PictureCache
from trainers.data.lists import Image, Lists
from trainers.texts.classnames import alike

from .families import grouped
from .groups import (
    NONE,
    NOTHING_LOOKED_FOR,
    Groups,
    check_groups,
    in_stretches,
    named_by,
    note_on_partial,
    note_on_rule,
    numbered,
    pairs_in_part,
    said_by,
)
from .look_alikes import share_partial
from .table import Table
from .task import Task

log = logging.getLogger(__name__)
FEWEST_TO_DIVIDE = 100  # images, below which a part of them tells too little
FactsOf = Mapping[str, PictureFacts]  # path → what was seen of the picture
Parts = Mapping[str, Sequence[Item]]


def own_images(
    table: Table, task: Task, cfg: CfgNode, can_fold: bool, kept: PictureCache | None = None
) -> Images:
    """Choose the images of a run from one's own images.

    Images that can't be read are reported before training.

    Args:
        cfg: the run's config.
        can_fold: whether training images may be tested in folds, so that all are trained on.
        kept: is given each image as it is decoded, and ends with those of the run.

    Raises:
        UserError: boxes are asked for and there are none; images can't be read and they are not to be
            skipped; nothing is left of a class or of the test; or as ``Task.checked``, ``Task.check_images``.
    """
    if cfg.DATASET.BOXES and not any(map(box_of, table.paths)):
        raise UserError(f"{table.place} has no boxes: leave out --boxes")
    for note in table.notes:
        log.info("%s", note)
    table, notes = task.checked(table, cfg.DATASET.SKIP_SMALL)
    notes = [*table.notes, *log_warnings([*notes, *table.warnings, *names_alike(table.classnames)])]
    every = task.items(table)
    seen = seen_of(every, kept)
    grouping = group_images(table, task, every, seen, cfg.DATASET.GROUP_BY)
    notes += grouping.notes
    lists = task.divide(table, grouping.groups)
    if can_fold and cfg.DATASET.NUM_SHOTS < 1:
        lists = all_trained(lists, table.is_divided)
    truth = task.truth(table)
    chosen = task.chosen(cfg, table, lists, truth)
    folds = task.number_of_folds(chosen.train) if can_fold else 0
    if (
        not task.multi_label
        and not table.is_divided
        and not folds
        and len(every) < FEWEST_TO_DIVIDE
    ):
        notes.append(note_on_few(len(chosen.test)))
    made = Images(
        chosen.train,
        chosen.val,
        chosen.test,
        task.classnames(table, chosen.train),
        fewshot_sample=chosen.sample,
        folds=folds,
        groups=grouping.groups,
        found_in_part=grouping.found_in_part,
        is_chosen=table.is_chosen,
        kept=kept,
        truth=truth,
    )
    made = seen_images(made, table.place, seen, cfg.DATALOADER.BROKEN_IMAGES == "skip")
    made = replace(made, content=content_of(made, grouping.names))
    task.check_images(table.place, made)
    notes += log_warnings(copies_of_trained(table.place, made, grouping.are_named))
    if not table.is_divided:
        notes += notes_on_groups(made, grouping.are_named)
    notes += log_warnings(files_in_two_classes(table.place, made))
    say_transparent(seen, made, cfg.INPUT.BACKGROUND)
    return replace(made, notes=notes)


def all_trained(lists: Lists, is_divided: bool) -> Lists:
    """Return lists that train on all images and test them in folds; if the user has divided them, all but
    the test images are trained on."""
    train, val, test = lists
    if not is_divided:
        every = by_class([*train, *val, *test])
        return every, [], every
    if val is test:
        return lists
    return by_class([*train, *val]), [], test


def by_class(images: Iterable[Image]) -> list[Image]:
    """Return the images class by class, each class in its order."""
    return sorted(images, key=lambda image: image.label)


# ---- a look at each picture ----


def seen_of(images: Iterable[Image], kept: PictureCache | None) -> FactsOf:
    """Return what is seen of each file of the images, which is looked at once."""
    paths = [*dict.fromkeys(image.impath for image in images)]
    facts = look_through(paths, kept)
    if kept is not None:
        kept.add_facts(facts)
    return dict(zip(paths, facts))


@dataclass(frozen=True)
class Grouping:
    """The groups of images that belong together.

    Attributes:
        groups: path → number.
        names: path → the name of its group, where groups are named, by a file or a rule.
        found_in_part: as in ``Images``.
        notes: remarks on it for a reader.
    """

    groups: Groups
    names: Mapping[str, str]
    found_in_part: Sequence[tuple[str, str]]
    notes: Sequence[str]

    @property
    def are_named(self) -> bool:
        return bool(self.names)


def by_look(
    images: Sequence[Image], task: Task, seen: FactsOf, is_divided: bool
) -> tuple[dict[str, str], list[str], list[str]]:
    """Group images of a class that look alike, and families of names that these confirm.

    Args:
        is_divided: whether the user has divided the images into parts; else a film is divided into stretches.

    Returns:
        path → name of its group; paths of the images that look like some of their group and unlike the rest,
        without those of a family; remarks on families and films, "" for none.
    """
    classes = task.searched_classes(images)
    paths = [image.impath for image in images]
    evidence = grouped(paths, [seen[path] for path in paths], classes)
    looked = evidence.looked
    families = evidence.families
    found: Groups = dict(zip(paths, evidence.groups))
    named = {place for family in families.members for place in family}
    partial = [
        path for place, path in enumerate(paths) if looked.is_partial[place] and place not in named
    ]
    alike = found
    film = ""
    if not is_divided:
        alike, film = in_stretches(images, found)
        partial = [path for path in partial if alike[path] == found[path]]
    groups = {path: f"image {number}" for path, number in alike.items()}
    return groups, partial, [families.note, film]


def group_images(
    table: Table, task: Task, every: Sequence[Image], seen: FactsOf, rule: str
) -> Grouping:
    """Return which images belong together: by a rule for their names or a file's column, and of those without
    such a name by how alike they look; all are alone where the rule is ``NONE``.

    Raises:
        UserError: there is a rule and a column, or as ``named_by``, ``check_groups``.
    """
    paths = [image.impath for image in every]
    names = table.groups
    if rule and names:
        raise UserError(
            f"{table.place} says which images belong together, by {said_by(names)}: leave out --group-by"
        )
    if rule == NONE:
        return Grouping(numbered(paths, {}), {}, [], log_warnings([NOTHING_LOOKED_FOR]))
    if rule:
        names = named_by(rule, every, across=task.multi_label)
    notes = []
    if names:
        notes.append(note_on_rule(rule, task.multi_label, names, {*paths}))
        log.info("%s", notes[0])
    unnamed = [image for image in every if image.impath not in names]
    alike, partial, remarks = by_look(unnamed, task, seen, table.is_divided)
    share = share_partial(len(partial), len(every))
    pairs = [
        (image_name(one), image_name(other))
        for one, other in pairs_in_part(partial if share else [], alike)
    ]
    advice = "by a column group or by --group-by"
    notes += log_warnings([*remarks, note_on_partial(share, pairs, advice)])
    by_name = {path: f"name {name}" for path, name in names.items()}
    groups = numbered(paths, {**alike, **by_name})
    if names:
        check_groups(table, groups)
    return Grouping(groups, names, pairs, notes)


def content_of(images: Images, named_groups: Mapping[str, str]) -> str:
    """Return a hash of the bytes of images, and of which is said that they belong together."""
    content = hashlib.sha256(b"".join(images.digests.values()))
    if images.truth:
        content.update(repr(images.classnames).encode())
    if named_groups:
        names = [named_groups.get(path, "") for path in images.digests]
        content.update(repr(names).encode())
    return content.hexdigest()


def say_transparent(seen: FactsOf, images: Images, background: str) -> None:
    """Say how transparent parts are treated, if there are any; background: as in ``read_picture``."""
    number = len(images.digests)
    if transparent := sum(seen[path].is_transparent for path in images.digests):
        log.info(
            "Transparent parts, in %d of %d images, are %s (INPUT.BACKGROUND)",
            transparent,
            number,
            transparent_parts(background),
        )


# ---- images that can't be read ----


def seen_images(images: Images, folder: str, seen: FactsOf, skips: bool) -> Images:
    """Return the images with their digests and without the unreadable ones, which are ``broken``; what a
    look has kept of others is forgotten.

    Raises:
        UserError: there are such images, and they are not to be skipped, or a class or the test
            has no other.
    """
    parts: Parts = {"train": images.train_x, "val": images.val, "test": images.test}
    paths = [*dict.fromkeys(item.impath for items in parts.values() for item in items)]
    if images.kept is not None:
        images.kept.keep_only([item.impath for item in images.train_x], paths)
    reasons = {path: seen[path].reason for path in paths if seen[path].reason}
    left = {}
    for part, items in parts.items():
        left[part] = [item for item in items if item.impath not in reasons]
    made = replace(
        images,
        train_x=left["train"],
        val=left["val"],
        test=left["test"],
        whole_val=left["val"],
        digests={path: seen[path].digest for path in paths},
        thumbnails={
            path: thumbnail(coarse) for path in paths if (coarse := seen[path].coarse) is not None
        },
        broken=lost_images(parts, left, images.is_tested_in_folds),
    )
    if not reasons:
        return made
    named_reasons = [
        f"{name_for_message(path, folder)} ({reason})" for path, reason in reasons.items()
    ]
    some = ". ".join(filter(None, [first_few(named_reasons), needs_heic(reasons)]))
    if not skips or labels_of(images) != labels_of(made) or not left["test"]:
        raise UserError(
            f"{len(reasons)} of the images in {folder} can't be read: {some}: replace them, take them out, or go "
            "on without them with DATALOADER.BROKEN_IMAGES skip, if each class and the test have others"
        )
    number = counted(len(reasons), "image")
    log.warning("Left out, since they can't be read: %s (%s)", number, some)
    return made


def labels_of(images: Images) -> set[int]:
    """Return the labels that the training images have."""
    if not images.truth:
        return {item.label for item in images.train_x}
    has = images.truth_of(paths_of(images.train_x)).any(axis=0)
    return {*numpy.flatnonzero(has).tolist()}


def lost_images(parts: Parts, left: Parts, in_folds: bool) -> dict[str, list[str]]:
    """Return part → names of the images that were left out of it; with folds the two lists of trained and of
    tested images are equal, so only the test is listed."""
    names = {}
    for part, items in parts.items():
        kept = {item.impath for item in left[part]}
        missing = [image_name(item.impath) for item in items if item.impath not in kept]
        if missing and not (in_folds and part == "train"):
            names[part] = sorted(missing)
    return names


# ---- remarks for a reader ----


def name_for_message(path: str, folder: str) -> str:
    """Return an image's path for a message: below the folder, or as a file names it."""
    return image_name(path) if LISTED_MARK in path else os.path.relpath(path, folder)


def note_on_few(tested: int) -> str:
    """Return a remark on the accuracy of few images; tested: number of held-out ones."""
    note = (
        f"The accuracy is of {counted(tested, 'image')}, held out. Of so few images a trainer of image features, "
        "such as GDA, is tested on all by cross-validation, and trained on all"
    )
    log.info("%s", note)
    return note


def copies_of_trained(folder: str, images: Images, are_named: bool) -> Iterator[str]:
    """Yield which images look like training images of their class or, where groups are named, are of their
    groups. Images that look like another class's show fine differences, which make a test no easier."""
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
            known = name_for_message(first[groups[path]], folder)
            like = ("are of one group with", "and") if are_named else ("look like", "like")
            yield (
                f"Training images {like[0]} {counted(len(copies), f'{noun} image')}, such as {known} {like[1]} "
                f"{name_for_message(path, folder)}: {why}"
            )


def notes_on_groups(images: Images, are_named: bool) -> list[str]:
    """Say how many images look like others or, where groups are named, belong together."""
    every = {*images.train_x, *images.val, *images.test}
    sizes = Counter(images.groups[str(image.impath)] for image in every)
    large = [size for size in sizes.values() if size > 1]
    if not large:
        return []
    alike = "belong together" if are_named else "look like others"
    note = (
        f"{counted(sum(large), 'image')} {alike}, in {counted(len(large), 'group')}: each "
        "group stays in one part or fold, where its class has enough groups"
    )
    log.info("%s", note)
    return [note]


def files_in_two_classes(folder: str, images: Images) -> Iterator[str]:
    """Yield which files are in two classes at once."""
    by_digest: dict[bytes, dict[int, str]] = defaultdict(dict)
    for image in (*images.train_x, *images.val, *images.test):
        path = str(image.impath)
        by_digest[images.digests[path]].setdefault(image.label, path)
    twice = [[*paths.values()] for paths in by_digest.values() if len(paths) > 1]
    if twice:
        names = [name_for_message(path, folder) for path in twice[0]]
        number = counted(len(twice), "image")
        yield f"{number} in two classes at once, such as {' and '.join(names)}: one of them is wrong"


def names_alike(classnames: Sequence[str]) -> list[str]:
    """Return warnings of names that nearly are the same, as ``circle`` and ``Circle``."""
    return [
        f"Class names that differ in case or Unicode form only: {' '.join(map(ascii, names))}"
        for names in alike(dict.fromkeys(classnames))
    ]


def log_warnings(sentences: Iterable[str]) -> list[str]:
    """Return the sentences that say anything, each of which is logged as a warning."""
    notes = [sentence for sentence in sentences if sentence]
    for note in notes:
        log.warning("%s", note)
    return notes
