"""Locks on folders: of several processes started on one folder, one works; the others wait, or fail and name the holder.

The lock is the kernel's, on a file ``.lock`` in the folder, which names the holder. It ends with its process, however that ends, and is not
inherited by a data loader's workers. The file is deleted when the work is done; one without a lock on it was left by a killed process. On a
file system without locks the work goes on with a warning.
"""

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from filelock import FileLock, Timeout

from .errors import UserError
from .interruption import Interrupted, asked_by
from .readers import parse_json

log = logging.getLogger(__name__)

FILE_NAME = ".lock"
PATIENCE = (
    5  # seconds for which a run waits for its folder: a process that is being ended needs a moment
)
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextlib.contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Makes a folder and locks it: meanwhile no other process may write there.

    Raises:
        UserError: one is, on this machine or another (the message says which), or the folder can't be written to.
    """
    try:
        lock = acquired(folder, PATIENCE)
    except Timeout:
        path, holder = os.path.join(folder, FILE_NAME), holder_of(folder)
        elsewhere = holder.get("host", socket.gethostname()) != socket.gethostname()
        raise UserError(
            f"{folder} is being written to by {described(holder)}: wait for that run, end it, or give another --output-dir"
            + (f"; if that machine is no more, delete {path}" if elsewhere else "")
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): give another --output-dir"
        ) from error
    with released(lock):
        yield


@contextlib.contextmanager
def turn(work: str, *folders: str) -> Iterator[bool]:
    """Waits until no other process has its turn in the first of the folders that can be written to; without any there is no waiting.

    Yields whether there is a lock, so that no other process can be at work there.

    Args:
        work: what is done there, for the log.

    Raises:
        Interrupted: a signal has ended the waiting.
    """
    lock = None
    for folder in folders:
        with contextlib.suppress(OSError):
            lock = waited_for(work, folder)
            break
    with released(lock):
        yield lock is not None


def waited_for(work: str, folder: str) -> FileLock | None:
    """The lock of a folder, whenever it is free; None where there are no locks."""
    is_said = False
    while True:
        try:
            return acquired(folder, patience=1)
        except Timeout:
            if asked_by():
                raise Interrupted(
                    f"{asked_by()}: nothing to save, this run was waiting for {described(holder_of(folder))}"
                ) from None
            if not is_said:
                log.info("Waiting for %s: %s in %s", described(holder_of(folder)), work, folder)
            is_said = True


def acquired(folder: str, patience: float) -> FileLock | None:
    """The lock of a folder, which is made; None where there are no locks.

    Raises:
        Timeout: another process has it for ``patience`` seconds; OSError: the folder can't be written to.
    """
    os.makedirs(folder, exist_ok=True)
    lock = FileLock(os.path.join(folder, FILE_NAME), on_acquired=sign)
    try:
        lock.acquire(timeout=patience)
    except Timeout:  # which is an OSError
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning(
            "%s lies on a file system without locks: see to it that no other process writes there",
            folder,
        )
        return None
    return lock


@contextlib.contextmanager
def released(lock: FileLock | None) -> Iterator[None]:
    """Releases the lock at the end and deletes its file; a waiting process then makes a new one."""
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(
                OSError
            ):  # gone already, or on Windows, which deletes no open file
                os.remove(lock.lock_file)
            lock.release()


def sign(descriptor: int) -> None:
    """Writes into a lock's file whose it is now."""
    left = os.read(descriptor, 4096)
    if left:
        log.info("A lock was left by %s, which was killed: taking it over", described(parse(left)))
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(mine).encode())


def holder_of(folder: str) -> dict[str, Any]:
    """What a folder's lock says of its holder: a dict of pid, host and since, or of nothing."""
    try:
        with open(os.path.join(folder, FILE_NAME), "rb") as file:
            return parse(file.read(4096))
    except OSError:
        return {}


def parse(content: bytes) -> dict[str, Any]:
    try:
        holder = parse_json(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host", "since"} <= set(holder) else {}


def described(holder: dict[str, Any]) -> str:
    return (
        "process {pid} on {host}, since {since}".format(**holder) if holder else "another process"
    )
