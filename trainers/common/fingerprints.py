"""Names of images and data sets, and hashes of data that don't depend on where they are stored."""

import hashlib
import os
from collections.abc import Iterable
from typing import Protocol

BELOW_MARK = f"{os.sep}.{os.sep}"  # in the path of an image in a folder below its class folder, after the class folder
# in the path of an image that a file names, before the name that it has there
LISTED_MARK = f"{os.sep}.{os.sep}.{os.sep}"
DEEPER = f"{os.sep}*"  # at the end of a folder whose class folders lie a level deeper
LABEL_FILES = (".csv", ".tsv", ".txt", ".json")  # endings of files that name images


def listed_path(folder: str, name: str) -> str:
    """Return the path of an image that a file names, below a folder unless it is absolute;
    ``image_name`` turns it into the name again."""
    name = os.path.normpath(name)
    if os.path.isabs(name):
        return LISTED_MARK + name.lstrip(os.sep)
    return os.path.abspath(folder) + LISTED_MARK + name


def image_name(path: str) -> str:
    """Return an image's name: the one in the file that lists it (``listed_path``), else its folder
    and file name, the same wherever the data lie; of a path with ``/./`` the name starts with the
    folder before it."""
    folder, is_listed, name = path.partition(LISTED_MARK)
    if is_listed:
        return (name if folder else os.sep + name).replace(os.sep, "/")
    folder, below, name = path.partition(BELOW_MARK)
    if below:
        return "/".join([os.path.basename(folder), *os.path.normpath(name).split(os.sep)])
    return "/".join(os.path.normpath(path).split(os.sep)[-2:])


def joined_roots(roots: Iterable[str]) -> str:
    """Return several folders and files as one root; each is an absolute path."""
    return os.pathsep.join(roots)


def roots_in(root: str) -> list[str]:
    """Return the folders and files that a root of one's own images consists of (``joined_roots``)."""
    return root.replace(os.pathsep + os.sep, "\0" + os.sep).split("\0")


def folder_and_level(root: str) -> tuple[str, int]:
    """Return a folder and how many levels below it the class folders lie, from 1; of a file 1."""
    folder = root
    while folder.endswith(DEEPER):
        folder = folder.removesuffix(DEEPER)
    return folder, 1 + (len(root) - len(folder)) // len(DEEPER)


def places_in(root: str) -> list[str]:
    """Return the folders and files of a root, as they can be looked for."""
    return [folder_and_level(one)[0] for one in roots_in(root)]


def data_name(name: str, root: str) -> str:
    """Return a data set's name: one's own images use their folder (``root``), or the file that lists
    them, without its ending; of several the first."""
    if name != "ImageFolder":
        return name
    own = os.path.basename(os.path.abspath(os.path.expanduser(places_in(root)[0])))
    stem, ending = os.path.splitext(own)
    return stem if ending.lower() in LABEL_FILES else own


def start_of(digest: bytes) -> int:
    """The first 8 bytes of a file's hash as a number of 64 bits: enough to know the file again."""
    return int.from_bytes(digest[:8], "little", signed=True)


class Named(Protocol):
    """An image of a list."""

    @property
    def impath(self) -> str: ...

    @property
    def label(self) -> int: ...

    @property
    def classname(self) -> str: ...


def split_hash(
    train: Iterable[Named], val: Iterable[Named], test: Iterable[Named], content: str = ""
) -> str:
    """Return the fingerprint (16 hex digits) of the images that a run trains and tests on.

    It covers, for train, val and test in their order: file name, folder name, label and class name
    of every image, and the bytes of one's own images, by their hash ``content``; not where the data
    folder lies, so that the same sample on two machines has the same hash.
    """
    digest = hashlib.sha256(content.encode())
    for part, items in (("train_x", train), ("val", val), ("test", test)):
        for item in items:
            line = f"{part}|{image_name(item.impath)}|{item.label}|{item.classname}\n"
            digest.update(line.encode())
    return digest.hexdigest()[:16]
