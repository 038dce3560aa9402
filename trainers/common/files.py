"""Atomic writing of files: written under a temporary name, flushed to disk, renamed."""

import contextlib
import hashlib
import io
import os
import re
import socket
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy

from .console import first_few
from .errors import UserError

UNFINISHED = ".unfinished"  # ends the name of a file that is being written


def check_output(option: str, path: str, mark: str, inputs: Iterable[str] = ()) -> None:
    """A file that a command shall write must not be there, or be one that the command has written
    before.

    Args:
        option: that names it, for the message.
        mark: a regular expression for what is in the first 4096 bytes of a file that the command
            has written.
        inputs: paths of files that the command reads.

    Raises:
        UserError: it is somebody's, or see ``is_there``.
    """
    if not is_there(option, path):
        return
    if any(os.path.exists(source) and os.path.samefile(source, path) for source in inputs):
        raise UserError(f"{option} {path} is one of the files to read: give another name")
    with open(path, "rb") as file:
        start = file.read(4096)
    if not re.search(mark.encode(), start):
        raise UserError(
            f"{option} {path} exists already, and was not written by this command: give another name, or delete it first"
        )


def is_there(what: str, path: str, is_folder: bool = False) -> bool:
    """Whether there is a file, or a folder, at a path.

    Raises:
        UserError: something else is there, such as a pipe, or nothing can be: the path is too long,
            below a file, or of a character that no path has. The message starts with ``what``.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {path!a} can't be written: {error}") from error
    if not (stat.S_ISDIR if is_folder else stat.S_ISREG)(mode):
        noun = "folder" if is_folder else "file"
        raise UserError(f"{what} {path} is no {noun}: move it away, or give another")
    return True


def check_folder(
    option: str,
    folder: str,
    marks: Mapping[str, str | None],
    others: Collection[str] | None = None,
) -> None:
    """A folder that a command shall write into holds none of its files, or those that it has written
    before.

    Args:
        option: that names the folder, for the message.
        marks: file name → what ``check_output`` looks for in it; an empty file is nobody's. None: the
            command only adds to it.
        others: names of all else that may be there, besides what a process that was killed has left;
            None: anything.

    Raises:
        UserError: one of them is somebody's, or see ``is_there``, of the folder and of the files; or
            something else is there.
    """
    if not is_there(option, folder, is_folder=True):
        return
    if others is not None:
        known = {*marks, *others}
        names = [name for name in sorted(os.listdir(folder)) if not name.endswith(UNFINISHED)]
        if foreign := [name for name in names if name not in known]:
            raise UserError(
                f"{option} {folder} holds {first_few(foreign)}, which was not written by this command, or "
                "can't be read: move it away, or give another"
            )
    for name, mark in marks.items():
        path = f"{folder}/{name}"
        if is_there(option, path) and mark is not None and os.path.getsize(path):
            check_output(option, path, mark)


def write_atomically(path: str, write: Callable[[str], object]) -> None:
    """Calls ``write(temporary path)`` and renames: the file at ``path`` is always whole, old or
    new, even if the power fails.

    Raises:
        UserError: a folder, a pipe or a device is at ``path``.
    """
    is_there("the file", path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # no two writers share it, on any machines; see ``remove_leftovers``
    temporary = f"{path}.{socket.gethostname()}-{os.getpid()}{UNFINISHED}"
    try:
        Path(temporary).unlink(missing_ok=True)  # of a process of that number that was killed
        # a file of our own: what is written would go where a link leads
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = path  # a full disk names no file
        raise
    finally:
        with contextlib.suppress(OSError):  # it has its name, or was never made
            os.remove(temporary)


def write_bytes(path: str, content: bytes | memoryview) -> None:
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode())


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Writes a text of any length, whose lines have their ends."""

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.writelines(lines)

    write_atomically(path, write)


def write_arrays(path: str, arrays: Mapping[str, numpy.ndarray]) -> None:
    """Writes arrays by name as a compressed ``.npz`` file."""
    content = io.BytesIO()
    numpy.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    write_bytes(path, content.getbuffer())


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def remove_leftovers(folder: str) -> None:
    """Deletes what a process that was killed while writing has left in a folder, which is locked."""
    for path in Path(folder).glob(f"*{UNFINISHED}"):
        path.unlink()
