"""Atomic writing of files: written under a temporary name, flushed to disk, renamed."""

import contextlib
import hashlib
import io
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import numpy

from .errors import UserError

UNFINISHED = ".unfinished"  # ends the name of a file that is being written
START = 2**16  # bytes that are read of a file to recognise its owner
OWNED = "CDC for prompt learning writes into this folder, and replaces its own files there.\n"


def check_output(
    option: str, path: str, mark: str, inputs: Iterable[str] = (), at: int = 0
) -> None:
    """Check that a file to be written is missing, empty, or was written by the same command before.

    Args:
        option: that names it, for the message.
        mark: the beginning of every file that the command has written; white space does not count,
            since tables are padded.
        inputs: paths of files that the command reads.
        at: where in the file, in bytes, the mark stands.

    Raises:
        UserError: it is somebody's, or as ``is_there``.
    """
    if not is_there(option, path):
        return
    if any(os.path.exists(source) and os.path.samefile(source, path) for source in inputs):
        raise UserError(f"{option} {path} is one of the files to read: give another name")
    with open(path, "rb") as file:
        file.seek(at)
        start = file.read(START)
    is_ours = b"".join(start.split()).startswith(b"".join(mark.encode().split()))
    if not is_ours:
        refuse_somebodys(option, path)


def check_folder(option: str, folder: str, owner: str, names: Iterable[str]) -> None:
    """Check that a folder to be written into is marked as the command's own (``mark_folder``), or has none
    of the names that the command writes.

    Args:
        option: that names the folder, for the message.
        owner: name of the file that marks such a folder.
        names: of the files that the command may write; an empty file is nobody's.

    Raises:
        UserError: one of them is somebody's, or as ``is_there``, for the folder and the files.
    """
    if not is_there(option, folder, is_folder=True):
        return
    is_ours = is_there(option, f"{folder}/{owner}")
    for name in names:
        path = f"{folder}/{name}"
        if is_there(option, path) and os.path.getsize(path) and not is_ours:
            refuse_somebodys(option, path)


def mark_folder(folder: str, owner: str) -> None:
    """Marks a folder that was checked: from now on files of the command's names are its own.

    Args:
        owner: name of the file that marks it, as in ``check_folder``.
    """
    write_text(f"{folder}/{owner}", OWNED)


def refuse_somebodys(option: str, path: str) -> NoReturn:
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


def write_atomically(path: str, write: Callable[[str], object]) -> None:
    """Calls ``write(temporary path)`` and renames: the file at ``path`` is always whole, old or
    new, even if the power fails.

    Raises:
        UserError: a folder, a pipe or a device is at ``path``.
    """
    is_there("the file", path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # no two writers share it, on any machines; ``remove_leftovers`` knows its ending
    temporary = f"{path}.{socket.gethostname()}-{os.getpid()}{UNFINISHED}"
    try:
        Path(temporary).unlink(missing_ok=True)  # of a process of that number that was killed
        # a file of our own: writing to a link would write to its target
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None:  # it is the system's, not of a library that ``write`` calls
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
        while block := file.read(2**17):
            digest.update(block)
    return digest.hexdigest()


def remove_leftovers(folder: str) -> None:
    """Delete the unfinished files of a killed process in a folder, which is locked."""
    for path in Path(folder).glob(f"*{UNFINISHED}"):
        path.unlink()
