"""Class folders: a folder for each class, whose images are listed, named, labelled and divided."""

import os
import random
import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path

from ..common.console import counted, first_few
from ..common.errors import UserError
from ..common.fingerprints import BELOW_MARK
from ..common.image_files import IMAGE_ENDINGS, files_below, is_image, needs_heic
from .fewshot import SAMPLES_FOLDER
from .lists import PARTS, Image, Lists, read_lines, reading

Files = dict[str, list[str]]  # class folder → paths of images
# train and val, as CoOp divides data sets that come undivided; the rest is for testing
PART_SHARES = 0.5, 0.2
CLASSNAMES = "classnames.txt"  # file beside class folders that names them
LEAST_IMAGES = 4  # images of a class: below that one of the three parts would be empty


def class_folders(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones; empty where it is not a folder."""
    names = [path.name for path in sorted(Path(folder).glob("[!.]*")) if path.is_dir()]
    return [name for name in names if name != SAMPLES_FOLDER]


def numbered_files(folder: str) -> Files:
    """Class folder → paths of the files in it, sorted, of folders called by a number or WordNet id;
    other folders are not classes."""
    return {
        name: list(files_below(f"{folder}/{name}"))
        for name in class_folders(folder)
        if re.fullmatch(r"n?\d+", name)
    }


def image_files(folder: str, may_be_empty: bool = False) -> Files:
    """Class folder → paths of the images in it and below, both sorted.

    Args:
        may_be_empty: whether a class may have no image.

    Raises:
        UserError: the folder is missing, has no class folders or only one, has no image, or none
            of a class, or a name is not UTF-8.
    """
    classes = class_folders(folder)
    files = {}
    if not classes:
        raise UserError(
            f"{folder} has no class folders to tell apart: put the images of each class into a folder of their own. "
            f"To label images without any labels: cdc-predict --classes cat dog -- {folder}"
        )
    if len(classes) == 1:
        raise UserError(
            f"{folder} has one class folder only, {classes[0]}: put the images of another class into a folder beside "
            f"it, or, if the classes are the folders in it, give {folder}/{classes[0]}"
        )
    for name in classes:
        files[name] = images_of_class(f"{folder}/{name}")
    check_any(folder, files)
    if not may_be_empty:
        check_each(folder, files)
    return files


def images_of_class(place: str) -> list[str]:
    """Return the paths of the images in a class folder and below, sorted (``BELOW_MARK``).

    Raises:
        UserError: a name is not UTF-8.
    """
    paths = [
        path
        if os.path.dirname(path) == place
        else place + BELOW_MARK + os.path.relpath(path, place)
        for path in filter(is_image, files_below(place))
    ]
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that are not UTF-8
            raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
    return paths


def check_any(folder: str, files: Files) -> None:
    """Check that a class has an image; folder: of the class folders.

    Raises:
        UserError: none has.
    """
    if not any(files.values()):
        raise UserError(
            f"there is no image in the class folders of {folder} ({endings_in(folder)}): put some there"
        )


def check_each(folder: str, files: Files) -> None:
    """Check that each class has images.

    Raises:
        UserError: a class has no image; folder: of the class folders.
    """
    if empty := [name for name, paths in files.items() if not paths]:
        raise UserError(
            f"{folder} has no image files of {', '.join(empty)} ({endings_in(folder)}): add some"
        )


def endings_in(folder: str) -> str:
    """Name the endings of images, and the packages that read a folder's other ones."""
    endings = f"they end in {first_few(IMAGE_ENDINGS)}"
    heic = needs_heic(files_below(folder))
    return f"{endings}. {heic}" if heic else endings


def read_classnames(path: str, folders: Collection[str] = ()) -> dict[str, str]:
    """Folder name → class name, from lines ``folder name`` (the folder's name ends at a tab, or
    else at the first space).

    Args:
        folders: that names are asked for; without them all names are given, in the order of the lines.

    Raises:
        UserError: the file is missing, a line has no name, or a folder has none.
    """
    advice = (
        "each class folder has a line there: its name, a space and the class name (CoOp's DATASETS.md says where "
        "to get ImageNet's)"
    )
    with reading(path, advice):
        names = {}
        for line in read_lines(path):
            folder, _, name = line.partition("\t" if "\t" in line else " ")
            if not name:
                raise ValueError(f"the line {line!r}")
            if folder in names:
                raise ValueError(f"{folder} is named twice")
            names[folder] = name.strip()
        return {folder: names[folder] for folder in folders or names}


def names_of_folders(folder: str, classes: Collection[str]) -> dict[str, str]:
    """Return class folder → class name: its own, or the one in the folder's ``CLASSNAMES``."""
    path = f"{folder}/{CLASSNAMES}"
    return read_classnames(path, classes) if os.path.isfile(path) else dict(zip(classes, classes))


def lists_with_labels(folder: str, parts: Mapping[str, Files], names: Mapping[str, str]) -> Lists:
    """The lists of a data set; labels follow the order of the classes' names.

    Args:
        parts: the ones that it has among ``train``, ``val`` and ``test``; names: class folder → class name.

    Raises:
        UserError: a part has other class folders than there are names.
    """
    for part, files in parts.items():
        if odd := sorted(files.keys() ^ names.keys()):
            raise UserError(
                f"{folder}: the class folder {odd[0]} is {'too many' if odd[0] in files else 'missing'} in {part}: "
                "all parts need the same ones, complete the data set"
            )
    lists: dict[str, list[Image]] = {part: [] for part in PARTS}
    for part, files in parts.items():
        for label, (name, classname) in enumerate(names.items()):
            lists[part] += [Image(path, label, classname) for path in files[name]]
    return tuple(lists.values())


def small_classes(files: Files) -> str:
    """The classes that have too few images to divide, with their numbers, in words; "" where there is
    none."""
    small = [f"{name} ({len(paths)})" for name, paths in files.items() if len(paths) < LEAST_IMAGES]
    if not small:
        return ""
    return (
        f"{counted(len(small), 'class')} with fewer than {LEAST_IMAGES} images: {', '.join(small)}"
    )


def divide(
    folder: str,
    files: Files,
    groups: Mapping[str, Hashable] | None = None,
    shares: tuple[float, float] = PART_SHARES,
) -> dict[str, Files]:
    """Class folder → images, divided class by class into train, val and test.

    Args:
        groups: path → its group, whose images go to one part, in other classes too; without,
            each image is alone.
        shares: of train and val; the rest is for testing.

    Raises:
        UserError: classes have so few images, less than ``LEAST_IMAGES``, that a part would be empty.
    """
    if small := small_classes(files):
        raise UserError(f"{folder}: {small} can't be divided into train, val and test")
    parts: dict[str, Files] = {part: {} for part in PARTS}
    classes_of: dict[Hashable, set[str]] = defaultdict(set)
    for name, paths in files.items():
        for path in paths:
            classes_of[(groups or {}).get(path, path)].add(name)
    known: dict[Hashable, int | None] = {
        group: None for group, names in classes_of.items() if len(names) > 1
    }
    for name, paths in files.items():
        # seeded by the class alone
        shuffled = random.Random(f"ImageFolder {name}").sample(paths, len(paths))
        sizes = [round(share * len(paths)) for share in shares]
        sizes.append(len(paths) - sum(sizes))
        for part, chosen in zip(PARTS, in_groups(shuffled, sizes, groups or {}, known)):
            parts[part][name] = chosen
    return parts


def in_groups(
    paths: Sequence[str],
    sizes: Sequence[int],
    groups: Mapping[str, Hashable],
    known: dict[Hashable, int | None],
) -> list[list[str]]:
    """Images in parts of these sizes or, with groups, which stay whole, about these: the largest group
    first, each goes to the part that has most of its room left with it. Where there are fewer groups
    than parts, or a part has none, each image is alone.

    known: of each group that other classes have, too, the place of its part, which is noted here; None:
        it has none yet.
    """
    members: dict[Hashable, list[str]] = defaultdict(list)
    for path in paths:
        members[groups.get(path, path)].append(path)
    wanted = [place for place, size in enumerate(sizes) if size]
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    single = [list(paths[end - size : end]) for size, end in zip(sizes, ends)]
    is_each_alone = len(members) == len(paths) and not members.keys() & known.keys()
    if is_each_alone or len(members) < len(wanted):
        return single
    parts: list[list[str]] = [[] for _ in sizes]
    for name in [*members]:
        place = known.get(name)
        if place is not None:
            parts[place] += members.pop(name)
    waiting = sorted(members.items(), key=lambda item: len(item[1]), reverse=True)
    for number, (name, group) in enumerate(waiting):
        empty = [place for place in wanted if not parts[place]]
        is_last_chance = len(waiting) - number <= len(empty)

        def room(place: int, size: int = len(group)) -> float:
            return (sizes[place] - len(parts[place]) - size) / sizes[place]

        place = max(empty if is_last_chance else wanted, key=room)
        parts[place] += group
        if name in known:
            known[name] = place
    return parts if all(parts[place] for place in wanted) else single
