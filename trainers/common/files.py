"""Atomic writing of files: written under a temporary name, flushed to disk, renamed."""

import hashlib
import io
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy

from .errors import UserError


def temporary_name(path: str, pid: int | str) -> str:
    """A name that no two writers share, on any machines, and that names its writer."""
    return f"{path}.{socket.gethostname()}-{pid}.tmp"


def check_output(option: str, path: str, mark: str, inputs: Iterable[str] = ()) -> None:
    """A file that a command shall write must not be there, or be one that the command has written before.

    Args:
        option: that names it, for the message.
        mark: a regular expression for what is in the first 4096 bytes of a file that the command has written.
        inputs: paths of files that the command reads.

    Raises:
        UserError: it is somebody's, a folder, a pipe or a device, or its path can't be one.
    """
    mode = mode_of(option, path)
    if mode is None:
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise UserError(f"{option} {path} is {what}, it must be a file: give another")
    if any(os.path.exists(source) and os.path.samefile(source, path) for source in inputs):
        raise UserError(f"{option} {path} is one of the files to read: give another name")
    with open(path, "rb") as file:
        if not re.search(mark.encode(), file.read(4096)):
            raise UserError(
                f"{option} {path} exists already, and was not written by this command: give another name, or delete it first"
            )


def mode_of(option: str, path: str) -> int | None:
    """What is at a path, see ``os.stat``; None where nothing is.

    Raises:
        UserError: it can be no path: too long, below a file, or of a character that no path has.
    """
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path!a} can't be written: {error}") from error


def check_folder(option: str, folder: str, names: Iterable[str]) -> None:
    """
    Args:
        option: that names the folder, for the message; names: of files that will be written in it.

    Raises:
        UserError: it can be no folder, or something other than a file has a file's name.
    """
    mode = mode_of(option, folder)
    if mode is not None and not stat.S_ISDIR(mode):
        raise UserError(f"{option} {folder} is a file, it must be a folder")
    for path in (f"{folder}/{name}" for name in names):
        if os.path.lexists(path) and not os.path.isfile(path):
            raise UserError(f"{path} is not a regular file: move it away, or give another {option}")


def write_atomically(path: str, write: Callable[[str], object]) -> None:
    """Calls ``write(temporary path)`` and renames: the file at ``path`` is always whole, old or new, even if the power fails.

    Raises:
        UserError: a folder, a pipe or a device is at ``path``.
    """
    folder = os.path.dirname(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(
            f"{path} is {'a folder' if os.path.isdir(path) else 'not a regular file'}, it must be a file: give another"
        )
    os.makedirs(folder, exist_ok=True)
    temporary = temporary_name(path, os.getpid())
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        bring_to_disk(folder)
    except OSError as error:
        error.filename = path  # a full disk names no file
        raise
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def bring_to_disk(folder: str) -> None:
    """Flushes a folder's new names to disk; systems that can't open folders need no flush."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str, content: bytes | memoryview) -> None:
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode())


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
    """Deletes temporary files that processes of this machine left in a folder when they were killed while writing."""
    of_here = re.compile(re.escape(temporary_name("", "PID")).replace("PID", r"(\d+)") + "$")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        written_by = of_here.search(name)
        if written_by and not is_running(int(written_by[1])):
            os.remove(f"{folder}/{name}")


def is_running(pid: int) -> bool:
    """Whether this machine has a process of that number; where that can't be asked without harm, it is taken to have one."""
    try:
        if os.name == "posix":
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
