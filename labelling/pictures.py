"""Images as programs hold them, paths, PIL images, arrays and tensors, as PIL images."""

import csv
import filecmp
import math
import operator
import os
import reprlib
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex, TypeGuard, TypeVar, cast, overload

import numpy
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from trainers.common.console import first_few, printable
from trainers.common.errors import UserError
from trainers.common.image_files import MAX_PIXELS, decoded

Picture = str | os.PathLike[str] | Image.Image | numpy.ndarray | Tensor
Pictures = Picture | Iterable[Picture]
Given = TypeVar("Given")
Result = TypeVar("Result")


class LabelledTable(Protocol):
    """A pandas ``DataFrame``, as far as it is used here."""

    columns: Iterable[str]

    @overload
    def __getitem__(self, name: Literal["path"]) -> Iterable[Picture]: ...

    @overload
    def __getitem__(self, name: Literal["label"]) -> Iterable[object]: ...


# images with their labels' names or numbers
LabelledDataSet = Dataset[tuple[Picture, str | SupportsIndex]]
# images without their labels, a table with the columns path and label, or a torch data set
Labelled = Pictures | LabelledTable | LabelledDataSet


def is_path(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, (str, os.PathLike))


def one_by_one(images: Pictures) -> Iterable[Picture]:
    """An iterable of images, of one image or of many."""
    if is_path(images) or not isinstance(images, Iterable):  # a PIL image is none
        return [images]
    if isinstance(images, numpy.ndarray) and images.dtype.kind in "UO":  # of paths, or of objects
        return cast(Iterable[Picture], images.ravel().tolist())
    if isinstance(images, (numpy.ndarray, Tensor)) and images.ndim < 4:
        return [images]
    return images


def ahead(
    items: Iterable[Given], work: Callable[[Given], Result], number: int
) -> Generator[Result, None, None]:
    """What ``work`` makes of each item, in a thread of its own: while the caller has one result the next
    ``number`` are made, and no more."""
    thread = ThreadPoolExecutor(max_workers=1)
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(thread.submit(work, item))
            if len(begun) > number:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def transformed(
    image: Picture, background: str, transform: Callable[[Image.Image], Tensor], least: int
) -> Tensor:
    """What a transform makes of an image of any kind: of a path or a PIL image of what a viewer
    shows, see ``as_seen``; least: see ``draft``.

    Raises:
        UserError: see ``PromptedClassifier.predict``.
    """
    if is_path(image):
        image = os.fspath(image)
    elif not isinstance(image, Image.Image):
        image = array_picture(image)
    with decoded(image, background, least) as picture:
        return transform(picture)


def array_picture(image: object) -> Image.Image:
    """A tensor or an array as a PIL image.

    Raises:
        UserError: it is no image.
    """
    pixels: Any = image  # asked for what an array has, whatever it is
    try:
        if math.prod(pixels.shape) > 3 * MAX_PIXELS:  # it may be a small one, expanded
            raise ValueError(f"its shape is {tuple(pixels.shape)}")
        if isinstance(pixels, Tensor):
            pixels = pixels.detach().movedim(0, -1).cpu()  # (H, W, 3)
            pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
        if pixels.dtype.kind == "f":
            if not 0 <= pixels.min() <= pixels.max() <= 1:
                raise ValueError(f"it has values from {pixels.min():.3g} to {pixels.max():.3g}")
            pixels = (pixels * 255).round().astype(numpy.uint8)
        if pixels.shape[2:] != (3,):
            raise ValueError(f"its shape is {pixels.shape}")
        return Image.fromarray(pixels)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"this {type(pixels).__name__} is not an image ({error}): give a path, a PIL image, an array (H, W, 3) or a "
            "tensor (3, H, W), of uint8 or in [0, 1] and not normalised"
        ) from error


def pictures_and_labels(
    images: Labelled, labels: Sequence[object] | None
) -> tuple[list[Picture], list[object]]:
    """N images and N labels, of whatever has both.

    Args:
        images: images in any form, with ``labels``; a ``DataFrame`` with the columns ``path`` and
            ``label``; or a torch data set, see ``of_data_set``.

    Raises:
        UserError: there are no labels, or see ``of_data_set``.
    """
    if labels is not None:
        return list(one_by_one(cast(Pictures, images))), list(labels)
    if {"path", "label"} <= {*getattr(images, "columns", ())}:
        table = cast(LabelledTable, images)
        return list(table["path"]), list(table["label"])
    if isinstance(images, Dataset):
        return of_data_set(images)
    raise UserError(
        "the images have no labels: give labels, a name for each, a DataFrame with the columns path and label, a torch "
        "data set of (image, label), or a folder of class folders"
    )


def of_data_set(images: LabelledDataSet) -> tuple[list[Picture], list[object]]:
    """N images and N labels of a torch data set of (image, label).

    A label is a name, or a whole number: a place among the data set's ``classes``, of a ``Subset``
    those of the whole, or where there are none itself the name.

    Raises:
        UserError: an item is no such pair, a label is neither, or two classes have one name.
    """
    whole: Any = images
    while isinstance(whole, Subset):
        whole = whole.dataset
    names: Sequence[object] | None = getattr(whole, "classes", None)
    if names is not None:
        taken = Counter(check_label(name) for name in names)
        if repeated := [name for name, count in taken.items() if count > 1]:
            raise UserError(
                f"the data set's classes have a name twice ({first_few(repeated)}): give each class "
                "a name of its own"
            )
    if isinstance(images, IterableDataset):
        items = list(images)
    else:
        items = [images[number] for number in range(len(cast(Sized, images)))]
    pictures: list[Picture] = []
    labels: list[object] = []
    for number, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise UserError(
                f"item {number} of the data set is {reprlib.repr(item)}: each must be a pair of image and label"
            )
        pictures.append(item[0])
        labels.append(name_of(item[1], names, number))
    return pictures, labels


def name_of(label: object, names: Sequence[object] | None, number: int) -> object:
    """The name of a label of the image of that number, see ``of_data_set``."""
    if isinstance(label, str):
        return label
    try:
        place = operator.index(cast(SupportsIndex, label))
    except TypeError:  # a fraction, nothing, or numbers of all classes
        place = None
    if place is None or place < 0 or (names is not None and place >= len(names)):
        known = (
            "a whole number, 0 or more" if names is None else f"a number from 0 to {len(names) - 1}"
        )
        raise UserError(
            f"the label of image {number} is {reprlib.repr(label)}: give a name or {known}; leave out "
            "images without a label, as by torch.utils.data.Subset"
        )
    return str(place) if names is None else names[place]


def write_table(images: Sequence[Picture], cells: Sequence[str], folder: str) -> str:
    """Makes a file that names images, and what each has in the column of labels, in a folder of its own,
    whose name it has; returns the file.

    Files are named where they are; all other images are written beside it, as PNG. The folder is whole
    or not there; one that holds just these is taken as it is.

    Raises:
        UserError: there are not as many labels as images, an image can't be read, or the folder exists already and holds something else.
    """
    if len(images) != len(cells) or not cells:
        raise UserError(
            f"there are {len(images)} images and {len(cells)} labels: give one for each"
        )
    parent, own = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".images-", dir=parent) as temporary:
        new = f"{temporary}/images"
        os.makedirs(new)
        rows = [("image", "label")]
        for number, (image, cell) in enumerate(zip(images, cells)):
            rows.append((place_of(image, f"{number:06d}.png", new), cell))
        with open(f"{new}/{own}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        if not os.path.lexists(folder):
            os.rename(new, folder)
        elif not are_equal(new, folder):
            raise UserError(
                f"{folder} exists already, where the images would go, and holds others: give fit that "
                "folder, or another one for the run"
            )
    return os.path.join(folder, f"{own}.csv")


def place_of(image: Picture, name: str, folder: str) -> str:
    """The path of an image that is a file; any other is written into a folder, under a name, which is
    returned.

    Raises:
        UserError: it can't be read, or its path can't be written.
    """
    if is_path(image):
        path = os.path.abspath(image)
        if not os.path.isfile(path):
            raise UserError(
                f"image {os.fspath(image)!r} is not a file: give another, or leave it out"
            )
        try:
            path.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that are no UTF-8
            raise UserError(f"the name {path!a} is not UTF-8: rename it") from None
        return path
    if not isinstance(image, Image.Image):
        image = array_picture(image)
    with decoded(image, background=None) as picture:
        picture.save(f"{folder}/{name}")
    return name


def are_equal(first: str, second: str) -> bool:
    """Whether two folders hold the same files, byte by byte, and no others."""
    files = []
    for folder in (first, second):
        paths = [path for path in Path(folder).rglob("*") if not path.is_dir()]
        files.append(sorted(path.relative_to(folder).as_posix() for path in paths))
    if files[0] != files[1]:
        return False
    _, *differences = filecmp.cmpfiles(first, second, files[0], shallow=False)
    return not any(differences)


def check_label(label: object) -> str:
    """A label without the space around it.

    Raises:
        UserError: it is not a text of one line.
    """
    if not isinstance(label, str) or not label.strip() or printable(label) != label:
        raise UserError(f"the label {reprlib.repr(label)} is not a name: give a text of one line")
    return label.strip()
