"""Class folders as rows: a folder of class folders, or one that holds ``train``, ``test`` and, if there is
one, ``val``, or what others call these, each with the same class folders.

Images may lie in folders below a class folder. Class names are the folders' names, or those of a file
``classnames.txt`` beside them: ``folder name``, a line per class.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping

from trainers.common.console import counted, first_few
from trainers.common.files import file_hash
from trainers.common.image_files import files_below, is_image, left_out, named
from trainers.data.class_folders import Files, check_each, image_files, names_of_folders
from trainers.data.fewshot import FOLDER
from trainers.data.lists import PARTS

from .layouts import Layout, deeper, layout_of, parts_taken
from .rows import WHOLE, Row, Source


def read_class_folders(root: str, multi_label: bool) -> tuple[Source, dict[str, str]]:
    """Return the pictures of class folders, and class folder → class name.

    multi_label: whether a picture has the label of each folder that holds a file of its bytes.

    Raises:
        UserError: there are no class folders, or no image of a part's class; see also ``layout_of``.
    """
    layout = layout_of(root)
    files = files_of_parts(root, layout)
    classes = dict.fromkeys(name for of_part in files.values() for name in of_part)
    notes = [*filter(None, [parts_taken(root, layout)])]
    empty = [name for name in classes if not any(part.get(name) for part in files.values())]
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
    warnings = [*filter(None, [deeper(files), *files_left_out(root, layout)])]
    source = Source(rows, notes=notes, warnings=warnings, is_row_per_label=True)
    folders = [name for name in classes if any(name in of_part for of_part in files.values())]
    return source, names_of_folders(root, folders)


def places_of(root: str, layout: Layout) -> dict[str, str]:
    """Return part → the folder of its class folders, in the order in which they are looked for."""
    if layout.whole:
        return {WHOLE: layout.whole}
    known = [part for part in PARTS if part == "train" or part in layout.parts]
    return {part: layout.parts.get(part, f"{root}/{part}") for part in known}


def files_of_parts(root: str, layout: Layout) -> dict[str, Files]:
    """Return part → class folder → paths of its images."""
    places = places_of(root, layout)
    return {part: image_files(place, may_be_empty=True) for part, place in places.items()}


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


def files_left_out(folder: str, layout: Layout) -> Iterator[str]:
    """Yield what is left out of class folders, and images that lie outside of them, in a line each; the first
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
