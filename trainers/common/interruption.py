"""Stopping a run from outside: Ctrl-C, SIGTERM, SIGHUP of a closed terminal, and SIGUSR1, by which Slurm warns of a time limit.

Under ``noticed`` a signal does not end the process: after each step its trainer checks whether one has come (``asked_by``),
writes a checkpoint, and raises ``Interrupted``. Where there is nothing to save, a signal ends it at once (``at_once``).
The process then exits with ``REQUEUE``. A second Ctrl-C always ends it.
"""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO, cast

REQUEUE = 75  # exit code of a run that is to be started again: EX_TEMPFAIL of sysexits.h
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
]  # Windows has not all
LEFT_IGNORED = ("SIGINT", "SIGHUP")  # by who started the process, as nohup does: they stay ignored
_came: list[str] = []  # signals since ``noticed`` started
_is_noticed = _is_at_once = False


class Interrupted(BaseException):
    """A run was asked to stop and did, with everything saved; like ``KeyboardInterrupt`` it is no error."""


def _note(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if name == "SIGINT" and name in _came:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _came.append(name)
    if _is_at_once and len(_came) == 1:
        raise Interrupted(nothing_to_save())


class Terminal:
    """A stream to a terminal. When that is closed, what is written goes nowhere, instead of being an error before the checkpoint is written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.unless_closed(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self.unless_closed(self.stream.flush)

    def unless_closed(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


def nothing_to_save() -> str:
    return (
        f"{asked_by()}: nothing to save; the same command goes on from here (exit code {REQUEUE})"
    )


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Context in which signals are only noted. It works in the main thread; elsewhere nothing changes."""
    global _is_noticed
    _came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [
        number
        for number in SIGNALS
        if number.name not in LEFT_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
    ]
    before, streams = (
        {number: signal.signal(number, _note) for number in chosen},
        (sys.stdout, sys.stderr),
    )
    _is_noticed = True
    sys.stdout, sys.stderr = (
        cast(TextIO, Terminal(stream)) if stream.isatty() else stream for stream in streams
    )
    try:
        yield
    finally:
        _is_noticed = False
        sys.stdout, sys.stderr = streams
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_once(wanted: bool = True) -> Iterator[None]:
    """Context with nothing to save: a signal ends it at once; so does one noted before.

    Args:
        wanted: False: nothing changes, as where other processes would wait for this one.

    Raises:
        Interrupted: a signal has come.
    """
    global _is_at_once
    if wanted and _is_noticed and _came:
        raise Interrupted(nothing_to_save())
    before, _is_at_once = _is_at_once, wanted
    try:
        yield
    finally:
        _is_at_once = before


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Context in which signals are ignored, also by programs started in it, unless they handle them."""
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
    """Makes a loader's worker ignore signals to its whole process group or job: they are meant for the parent.

    A worker that ended would end the parent before its checkpoint is written; this one ends when the parent does.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            signal.signal(number, signal.SIG_IGN)
