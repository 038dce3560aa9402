"""Class folders as rows: a folder of class folders, or one that holds ``train``, ``test`` and, if there is
one, ``val``, or what others call these, each with the same class folders.

Images may lie in folders below a class folder. Class names are the folders' names, or those of a file
``classnames.txt`` beside them: ``folder name``, a line per class.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.files import file_hash
from trainers.common.fingerprints import BELOW_MARK, folder_and_level
from trainers.common.image_files import files_below, first_names, is_image, left_out
from trainers.data.class_folders import (
    CLASSNAMES,
    Files,
    check_any,
    check_each,
    class_folders,
    image_files,
    images_of_class,
    names_of_folders,
)
from trainers.data.fewshot import SAMPLES_FOLDER
from trainers.data.lists import PARTS

from .rows import WHOLE, Row, Source

# what folders of parts are called, by whom: torchvision and Kaggle, Roboflow, and others
PART_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# words beside these that say nothing of a class
PLAIN = {"set", "sets", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos"}


class Layout(NamedTuple):
    """The layout of a folder of images.

    Attributes:
        whole: the folder whose class folders are to be divided; "" where there are parts.
        parts: part → its folder; without ``whole`` it has ``train`` and ``test``, or ``val``, which is
            tested on then.
        beside: names of the folders beside the parts, which are not classes.
    """

    whole: str
    parts: dict[str, str]
    beside: list[str]


def read_class_folders(root: str, multi_label: bool) -> tuple[Source, dict[str, str]]:
    """Return the pictures of class folders, and class folder → class name.

    Args:
        root: as in ``folder_and_level``.
        multi_label: whether a picture has the label of each folder that holds a file of its bytes.

    Raises:
        UserError: there are no class folders, or no image of a part's class (``layout_of``).
    """
    root, level = folder_and_level(root)
    layout = layout_of(root) if level == 1 else layout_of_levels(root)
    files = files_of_parts(root, layout, level)
    classes = dict.fromkeys(name for of_part in files.values() for name in of_part)
    notes = [*filter(None, [parts_taken(root, layout), in_several_places(root, layout, level)])]
    filled = {name for part in files.values() for name, own in part.items() if own}
    empty = [name for name in classes if name not in filled]
    if empty and len(classes) - len(empty) > 1:
        for name in empty:
            for of_part in files.values():
                of_part.pop(name, None)
        notes.append(f"Left out, since it holds no image: {first_few(empty)}")
    for part, of_part in files.items():
        if part != WHOLE:
            check_each(places_of(root, layout)[part], of_part)
    rows = [*rows_of(files)]
    if multi_label:
        rows = [*as_first_file(rows)]
    warnings = [*filter(None, [deeper(files), *files_left_out(root, layout, level)])]
    source = Source(rows, notes=notes, warnings=warnings, is_row_per_label=True)
    there = {name for of_part in files.values() for name in of_part}
    folders = [name for name in classes if name in there]
    return source, names_of_folders(root, folders)


def places_of(root: str, layout: Layout) -> dict[str, str]:
    """Return part → the folder of its class folders, in the order in which they are looked for."""
    if layout.whole:
        return {WHOLE: layout.whole}
    known = [part for part in PARTS if part == "train" or part in layout.parts]
    return {part: layout.parts.get(part, f"{root}/{part}") for part in known}


def files_of_parts(root: str, layout: Layout, level: int) -> dict[str, Files]:
    """Return part → class folder → paths of its images."""
    places = places_of(root, layout)
    if level > 1:
        return {part: files_at(place, level) for part, place in places.items()}
    return {part: image_files(place, may_be_empty=True) for part, place in places.items()}


def folders_at(folder: str, level: int) -> list[str]:
    """Return the folders that lie some levels below a folder, from 1: its own folders."""
    places = [folder]
    for _ in range(level):
        places = [f"{place}/{name}" for place in places for name in class_folders(place)]
    return places


def files_at(folder: str, level: int) -> Files:
    """Return class folder → paths of its images, of class folders some levels below a folder; those of one
    name are one class.

    Raises:
        UserError: there are fewer than two names, or no image at all.
    """
    files: Files = defaultdict(list)
    for place in folders_at(folder, level):
        files[os.path.basename(place)] += images_of_class(place)
    if len(files) < 2:
        raise UserError(
            f"{folder} has {counted(len(files), 'class folder')} at level {level} ({first_few([*files]) or 'none'}): say "
            "with --classes-at at which level the class folders lie"
        )
    check_any(folder, files)
    return {name: files[name] for name in sorted(files)}


def in_several_places(root: str, layout: Layout, level: int) -> str:
    """Return which classes have folders in several places, in a sentence; "" where none has."""
    several: set[str] = set()
    for place in places_of(root, layout).values():
        counts = Counter(map(os.path.basename, folders_at(place, level)))
        several.update(name for name, number in counts.items() if number > 1)
    if not several:
        return ""
    return f"Taken as one class each, since several folders are called so: {first_few(sorted(several))}"


def rows_of(files: Mapping[str, Files]) -> Iterator[Row]:
    """Yield a row for each file of each part."""
    for part, of_part in files.items():
        for name, paths in of_part.items():
            for path in paths:
                yield Row(path, path, (name,), part=part)


def as_first_file(rows: list[Row]) -> Iterator[Row]:
    """Yield the rows, those of a part's files of the same bytes with the path of the first."""
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        same = first.setdefault((row.part, file_hash(row.image)), row.image)
        yield row._replace(image=same)


def files_left_out(folder: str, layout: Layout, level: int) -> Iterator[str]:
    """Yield what is left out of class folders, and images that lie outside of them, in a line each; the first
    may be empty."""
    used = [layout.whole] if layout.whole else [*layout.parts.values()]
    places = {folder, *used}
    for above in range(1, level):
        places.update(*(folders_at(place, above) for place in used))
    beside = tuple(os.path.join(folder, name, "") for name in layout.beside)
    samples = os.path.join(folder, SAMPLES_FOLDER, "")
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
        yield f"Left out, since they lie in no class folder: {number} ({first_names(outside)})"
    if with_images := [f"{name} ({number})" for name, number in unused.items() if number]:
        beside_what = " and ".join(sorted(map(os.path.basename, used)))
        yield f"Left out, since they lie beside {beside_what}: images in {first_few(with_images)}"


# ---- which folders are parts, and which are classes ----


def layout_of(folder: str) -> Layout:
    """Return the layout of a folder, decided by its folders: a part holds class folders, at once or in its
    only folder, so that a class may be called train, too. A single part is one only where no other
    class lies beside it. Folders that all hold the same class folders are parts, whatever they are
    called.

    Raises:
        UserError: there is nothing but folders that are called by parts, and they hold no class
            folders; or it is not clear whether folders are parts.
    """
    names = class_folders(folder)
    named = parts_named(names)
    places = {}  # name of a folder that holds class folders → where these are
    for name in names:
        place = f"{folder}/{name}"
        inner = class_folders(place)
        if len(inner) == 1 and class_folders(f"{place}/{inner[0]}"):
            place = f"{place}/{inner[0]}"
        if inner:
            places[name] = place
    parts: dict[str, str] = {}
    beside = [*names]
    for name in sorted(named, key=lambda name: (not is_exact(name), name)):
        if name in places and named[name] not in parts:
            parts[named[name]] = places[name]
            beside.remove(name)
    classes = [name for name in beside if name not in named]
    if ("train" in parts and len(parts) > 1) or ("test" in parts and not classes):
        return Layout("", parts, beside)
    if "train" in parts and not classes:
        return Layout(parts["train"], {}, beside)
    if are_alike(folder, names, places) and not os.path.isfile(f"{folder}/{CLASSNAMES}"):
        return Layout("", parts_alike(folder, places), [])
    if len({*named.values()}) > 1 and not classes:
        raise UserError(
            f"{folder} has {first_few(names)}, which hold no class folders: put the images of each class into a "
            "folder of their own in each of them, or, if these are the classes, call them otherwise"
        )
    return Layout(folder, {}, [])


def layout_of_levels(folder: str) -> Layout:
    """Return how a folder is laid out whose classes lie deeper: parts are called so exactly."""
    parts: dict[str, str] = {}
    for name in filter(is_exact, class_folders(folder)):
        parts.setdefault(PART_OF[name.lower()], f"{folder}/{name}")
    if "train" not in parts or len(parts) == 1:
        return Layout(folder, {}, [])
    used = {*map(os.path.basename, parts.values())}
    return Layout("", parts, [name for name in class_folders(folder) if name not in used])


# ---- by their names ----


def words_of(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_\d]+", name.lower()) if word]


def is_exact(name: str) -> bool:
    """Whether a folder is called by a part and nothing else."""
    return name.lower() in PART_OF


def parts_named(names: Sequence[str]) -> dict[str, str]:
    """Return the folders that are called by a part → the part, as in ``valid``, ``seg_train`` or
    ``test1``. Phrases, such as ``test tube``, are classes, and so are ``train_station`` and
    ``test_tube`` where no other folder is surely called by a part."""
    named = {}
    sure = []
    for name in names:
        words = words_of(name)
        others = [word for word in words if word not in PART_OF and word not in PLAIN]
        known = [word for word in (*words[-1:], *words[:1]) if word in PART_OF]
        if known and not (others and " " in name):
            named[name] = PART_OF[known[0]]
            if not others or words[-1] in PART_OF:
                sure.append(name)
    return named if sure else {}


# ---- by what they hold ----


def are_alike(folder: str, names: Sequence[str], places: Mapping[str, str]) -> bool:
    """Whether all folders hold the same class folders and nothing else, and may be parts by their
    names, which are not phrases.

    places: folder's name → where its class folders are.
    """
    held = [class_folders(place) for place in places.values()]
    return (
        len(names) == len(places) > 1
        and len(held[0]) > 1
        and all(inner == held[0] for inner in held)
        and not any(" " in name for name in names)
        and not any(is_image(file) for name in names for file in os.listdir(f"{folder}/{name}"))
    )


def parts_alike(folder: str, places: Mapping[str, str]) -> dict[str, str]:
    """Part → its folder, of folders that all hold the same class folders. One that is called by no part
    is the test beside a single other one.

    Raises:
        UserError: it is not clear which is which.
    """
    parts: dict[str, str] = {}
    unknown = []
    for name, place in places.items():
        part = next((PART_OF[word] for word in PART_OF if name.lower().startswith(word)), "")
        if part and part not in parts:
            parts[part] = place
        else:
            unknown.append(place)
    if [*parts] == ["train"] and len(unknown) == 1:
        parts["test"] = unknown.pop()
    if "train" in parts and len(parts) > 1 and not unknown:
        return parts
    inner = class_folders(next(iter(places.values())))
    raise UserError(
        f"{folder} has {first_few([*places])}, which all hold the same folders ({first_few(inner)}): if {inner[0]} … are "
        f"the classes, call the others train and test, or say --classes-at 2; if {next(iter(places))} … are, name them in "
        f"{folder}/{CLASSNAMES}, a line for each: its folder, a space and its name"
    )


def parts_taken(folder: str, layout: Layout) -> str:
    """Name the folder of each part, in a sentence; "" where their names say it."""
    names = {part: os.path.relpath(place, folder) for part, place in layout.parts.items()}
    if all(is_exact(name.split(os.sep)[0]) for name in names.values()):
        return ""
    return f"Taken as parts: {', '.join(f'{name} as {part}' for part, name in names.items())}"


def deeper(parts: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Return a warning where class folders hold nothing but folders with names, which may be the classes that
    are meant; "" where one holds an image, each holds one folder or the same ones, or a folder has a number, as
    those of films and patients have.

    parts: part → class folder → paths of its images.
    """
    below = defaultdict(set)
    for files in parts.values():
        for name, paths in files.items():
            for path in paths:
                _, is_below, rest = path.partition(BELOW_MARK)
                below[name].add(rest.split(os.sep)[0] if is_below else "")
    inner = sorted(set().union(*below.values()))
    are_same = len({frozenset(folders) for folders in below.values()}) == 1
    if are_same or len(inner) <= len(below) or not all(map(is_name, inner)):
        return ""
    return (
        f"The classes are {first_few(sorted(below))}, whose folders hold nothing but folders "
        f"({first_few(inner)}): if these are the classes, say --classes-at 2"
    )


def is_name(folder: str) -> bool:
    """Return whether a folder is called by words alone."""
    return bool(folder) and not any(letter.isdigit() for letter in folder)
