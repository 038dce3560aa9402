"""Locks on folders, by ``filelock``: of several processes started on one folder, one works; the others wait,
or fail. A lock ends with its process, however that ends."""

import contextlib
import logging
import os
from collections.abc import Iterator

from filelock import BaseFileLock, FileLock, Timeout

from .errors import UserError

log = logging.getLogger(__name__)

FILE_NAME = ".lock"
PATIENCE = (
    5  # seconds that a run waits for its folder: a process that is being ended needs a moment
)


@contextlib.contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Makes a folder and locks it: meanwhile no other process may write there.

    Raises:
        UserError: one is, or the folder can't be written to.
    """
    try:
        lock = held(folder, PATIENCE)
    except Timeout:
        raise UserError(
            f"{folder} is being written to by another process: wait for that run, end it, or give another "
            "--output-dir"
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): give another --output-dir"
        ) from error
    with released(lock):
        yield


@contextlib.contextmanager
def turn(work: str, *folders: str) -> Iterator[bool]:
    """Waits for the lock of the first of the folders that can be written to.

    Yields whether there is a lock; without any such folder there is none.

    Args:
        work: what is done there, for the log.
    """
    for folder in folders:
        try:
            lock = held(folder, 1)
        except Timeout:
            log.info("Waiting for another process: %s in %s", work, folder)
            lock = held(folder, -1)
        except OSError:
            continue
        with released(lock):
            yield True
        return
    yield False


def held(folder: str, patience: float) -> BaseFileLock:
    """The lock of a folder, which is made.

    Raises:
        Timeout: another process has it for ``patience`` seconds; OSError: it can't be written to.
    """
    os.makedirs(folder, exist_ok=True)
    lock = FileLock(os.path.join(folder, FILE_NAME))
    lock.acquire(timeout=patience)
    return lock


@contextlib.contextmanager
def released(lock: BaseFileLock) -> Iterator[None]:
    """Releases the lock at the end and deletes its file; a waiting process then makes a new one."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no open file
            os.remove(lock.lock_file)
        lock.release()
