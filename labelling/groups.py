"""Groups of one's own images: by name, or by a rule for their names, and the division of a
group that is most of its class."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import regex

from trainers.common.boxes import box_of, file_of
from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.fingerprints import BELOW_MARK, LISTED_MARK, image_name
from trainers.data.lists import Image

from .table import Table

NONE = "none"  # each image is independent: nothing is looked for
FOLDER = "folder"  # groups are the folders that hold the images
ACROSS = "across:"  # before a pattern: a group may have images of several classes
NOTHING_LOOKED_FOR = (
    "By --group-by none each image is independent, as you say: copies are not looked for"
)
SECONDS = 1.0  # a pattern's time for one name
FILM = 20  # images that look alike; smaller groups may be copies of one picture
SHOWN = 3  # pairs of images that a warning names
STRETCHES = 10  # parts that a film is divided into, as many as there are folds
Groups = Mapping[str, int]  # path → the number of the group of images that belong together


def named_by(rule: str, images: Iterable[Image], across: bool = False) -> dict[str, str]:
    """Return path → name of the image's group, of those that have one.

    Args:
        rule: ``FOLDER``: a group is the folder of the image, below its class folder or as a file names it.
            Or a regular expression that matches the beginning of the file's name, and whose one group
            matches the name; such groups are of one class each, unless the rule begins with ``ACROSS``.
        across: whether groups have images of several classes anyway, as those of multi-label images do.

    Raises:
        UserError: the rule is neither, no image has a group by it, or it takes too long.
    """
    pattern = None if rule == FOLDER else checked_pattern(rule)
    groups = {}
    for image in images:
        path = image.impath
        if pattern is None:
            inside = image_name(path) if LISTED_MARK in path else path.partition(BELOW_MARK)[2]
            name = os.path.dirname(inside)
        else:
            name = matched(pattern, rule, os.path.basename(path))
            if name and not across and not rule.startswith(ACROSS):
                name = f"{image.classname}/{name}"
        if name:
            groups[path] = name
    if not groups:
        where = "lies in a folder below its class folder" if pattern is None else "has such a name"
        raise UserError(f"no image has a group by --group-by {rule}: none {where}")
    return groups


def matched(pattern: "regex.Pattern[str]", rule: str, name: str) -> str:
    """Return the name of the group of a file by a rule's pattern, or "".

    Raises:
        UserError: the pattern takes too long.
    """
    try:
        found = pattern.match(name, timeout=SECONDS)
    except TimeoutError as error:
        raise UserError(
            f"--group-by {rule!r} takes more than {SECONDS:g} s for {name}: write it without a repetition inside a repetition"
        ) from error
    return (found[1] or "") if found else ""


def checked_pattern(rule: str) -> "regex.Pattern[str]":
    """Return a rule's pattern.

    Raises:
        UserError: the rule is not a regular expression with one group.
    """
    advice = f"give {NONE}, {FOLDER}, or a regular expression with one group, such as '(.+)_[0-9]+'"
    try:
        pattern = regex.compile(rule.removeprefix(ACROSS))
    except regex.error as error:
        raise UserError(f"--group-by is {rule!r} ({error}): {advice}") from error
    if pattern.groups != 1:
        raise UserError(f"--group-by is {rule!r}, with {pattern.groups} groups: {advice}")
    return pattern


def numbered(paths: Sequence[str], named_groups: Mapping[str, str]) -> Groups:
    """Return the number of each image's group: images without a name are alone."""
    numbers: dict[str, int] = {}
    groups = {}
    for path in paths:
        own = named_groups.get(path)
        name = f"image {path}" if own is None else f"group {own}"
        groups[path] = numbers.setdefault(name, len(numbers))
    return groups


def check_groups(table: Table, groups: Groups) -> None:
    """Refuse groups that leave nothing of a class to be held out.

    Raises:
        UserError: all images of a class belong together.
    """
    of_label: dict[int, set[int]] = defaultdict(set)
    for path, own in zip(table.paths, table.labels):
        for label in own:
            of_label[label].add(groups[path])
    if alone := [table.classnames[label] for label, own in of_label.items() if len(own) == 1]:
        raise UserError(
            f"{table.place} has one group only of {first_few(alone)}, of which nothing can be held out: add images of another "
            "group, or leave out the column group or --group-by, and the accuracy is of groups that were trained on"
        )


def in_stretches(images: Sequence[Image], groups: Groups) -> tuple[Groups, str]:
    """Return the groups of images that look alike, the largest divided.

    More than ``FILM`` images and half of a class are no burst: they may be frames of a camera over a belt,
    each of which looks like the next. Such a group is divided into blocks in the order of the names.

    Returns:
        the groups, and what a reader has to know of them; "" where nothing is divided.
    """
    classes = Counter(image.label for image in images)
    members: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        members[groups[image.impath]].append(image)
    films = [own for own in members.values() if len(own) > max(FILM, classes[own[0].label] / 2)]
    if not films:
        return groups, ""
    divided = {**groups}
    new = max(members) + 1
    for number, own in enumerate(films):
        in_order = sorted((image.impath for image in own), key=by_numbers)
        for place, path in enumerate(in_order):
            divided[path] = new + number * STRETCHES + place * STRETCHES // len(own)
    names = [image_class.classname for image_class, *_ in films]
    frames = sum(map(len, films))
    return divided, (
        f"More than half of the images of {first_few(names)} look like one another in a row, {counted(frames, 'image')}, "
        f"as frames of a film do: they are divided into {STRETCHES} stretches each in the order of their names, so "
        "that what is said is of other stretches of these films, and not of new ones"
    )


def said_by(names: Mapping[str, str]) -> str:
    """Return what a file says groups by; names: path → name of its group."""
    are_photographs = all(
        box_of(path) is not None and name == image_name(file_of(path))
        for path, name in names.items()
    )
    return "their photographs" if are_photographs else "the column group"


def note_on_rule(rule: str, across: bool, names: Mapping[str, str], paths: Collection[str]) -> str:
    """Return how many of the images have a group by a rule, or by their file where it is "", and of which classes.

    names: path → name of its group; paths: of all images, each once.
    """
    where = f"By --group-by {rule}" if rule else f"By {said_by(names)}"
    named = len(paths & names.keys())
    single = rule and rule != FOLDER and not across and not rule.startswith(ACROSS)
    classes = (
        f"of one class each ({ACROSS} before the pattern for groups of several)"
        if single
        else "of any classes"
    )
    groups = len({*names.values()})
    others = "" if named == len(paths) else "; among the others copies are looked for"
    return f"{where} {named} of {counted(len(paths), 'image')} have a group: {counted(groups, 'group')}, {classes}{others}"


def pairs_in_part(partial: Iterable[str], group_of: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return for each of up to three groups with partial images the first of these and another image of the group.

    Args:
        partial: paths of images that look like some of their group and unlike the rest; group_of: path → name.
    """
    first: dict[str, str] = {}
    for path in partial:
        first.setdefault(group_of[path], path)
    other: dict[str, str] = {}
    for path, group in group_of.items():
        if path != first.get(group):
            other.setdefault(group, path)
    return [(path, other[group]) for group, path in first.items()][:SHOWN]


def note_on_partial(share: float, pairs: Sequence[tuple[str, str]], advice: str) -> str:
    """Explain that a share of images looks like some of their group and unlike the rest; "" for 0.

    Args:
        pairs: names of two images of a group each; advice: how a run like this is told which images belong
            together.
    """
    if not share:
        return ""
    some = ", ".join(f"{one} and {other}" for one, other in pairs)
    return (
        f"{100 * share:.0f} % of the images look like some of their group and unlike the rest of it, as copies do that are "
        f"zoomed, covered or changed in several ways (look at {some}): others will not have been found, so that accuracies may be too high, and "
        f"--max-error promises nothing. Name what belongs together, {advice}"
    )


def by_numbers(path: str) -> list[tuple[int, str]]:
    """Return the sorting key of a path: frame 2 comes before frame 10."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
