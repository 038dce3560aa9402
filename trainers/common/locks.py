"""Locks on folders, by ``filelock``: of several processes started on one folder, one works; the
others wait, or fail. A lock ends with its process, however that ends."""

import contextlib
import logging
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from .errors import UserError

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
# seconds that a run waits for its folder: a process that is being ended needs a moment
PATIENCE = 5


@contextlib.contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Makes a folder and locks it: meanwhile no other process may write there.

    Raises:
        UserError: one is, or the folder can't be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder, PATIENCE))
        except Timeout:
            raise UserError(
                f"{folder} is being written to by another process: wait for that run, end it, or give another "
                "output folder"
            ) from None
        except OSError as error:
            raise UserError(
                f"{folder} can't be written to ({error.strerror}): give another output folder"
            ) from error
        yield


@contextlib.contextmanager
def turn(work: str, folder: str) -> Iterator[bool]:
    """Waits for the lock of a folder; yields whether it has it, as it never has of a folder that can't
    be written to.

    Args:
        work: the work there, for the log.
    """
    with contextlib.ExitStack() as stack:
        is_locked = True
        try:
            stack.enter_context(held(folder, 1))
        except Timeout:
            log.info("Waiting for another process: %s in %s", work, folder)
            stack.enter_context(held(folder, -1))
        except OSError:
            is_locked = False
        yield is_locked


@contextlib.contextmanager
def held(folder: str, patience: float) -> Iterator[None]:
    """Makes a folder and locks it to the end of the block.

    The lock's file is deleted then; a waiting process makes a new one.

    Raises:
        Timeout: another process has the lock for ``patience`` seconds; OSError: it can't be written to.
    """
    os.makedirs(folder, exist_ok=True)
    with FileLock(f"{folder}/{LOCK_FILE}").acquire(timeout=patience) as lock:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows deletes no open file
                os.remove(lock.lock_file)
