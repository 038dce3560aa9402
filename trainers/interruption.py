"""Stopping a run from outside: SIGTERM, and SIGUSR1, by which Slurm warns of a time limit.

A process that waits for them (``noticed``) is not ended by them: its trainer looks after each step whether one has come
(``asked_by``), writes a checkpoint, and raises ``Interrupted``. The process then exits with ``REQUEUE``.
"""
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

REQUEUE = 75  # exit code of a run that is to be started again: EX_TEMPFAIL of sysexits.h
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no SIGUSR1
_came: list[str] = []  # signals since ``noticed`` began


class Interrupted(BaseException):
    """A run was asked to stop and did, with everything saved; like ``KeyboardInterrupt`` it is no error."""


def _note(number: int, frame: FrameType | None) -> None:
    _came.append(signal.Signals(number).name)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """While it lasts the signals are noted and do nothing else. Only a main thread can have that; elsewhere nothing changes."""
    _came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """While it lasts the signals do nothing to this process, nor ever to a program that it starts, unless that asks for them."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_by() -> str | None:
    """Name of the signal that asks this process to stop, or None."""
    return _came[0] if _came else None


def leave_to_parent() -> None:
    """For a worker of a process that notes the signals: whoever signals a whole process group or job means the parent.

    A worker that ended would take the parent with it before its checkpoint is written; this one ends when the parent does.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            signal.signal(number, signal.SIG_IGN)
