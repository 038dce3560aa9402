"""Ending a run from outside: Ctrl-C, SIGTERM, and SIGUSR1, Slurm's warning of a time limit.

Under ``interruptible`` such a signal ends the run at once, wherever it is: the end of the last
epoch is on the disk. The command then prints one line and exits with ``REQUEUE``.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

REQUEUE = 75  # exit code of a run that is to be started again: EX_TEMPFAIL of sysexits.h
# Windows has not all
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class Interrupted(KeyboardInterrupt):
    """A run was ended by a signal; the text names it and says how to go on.

    Attributes:
        number: of the signal; 0 where another process had it.
    """

    number = 0


def interrupt(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    interrupted = Interrupted(
        f"{name}: ended; the same command resumes from the last epoch's end (exit code {REQUEUE})"
    )
    interrupted.number = number
    raise interrupted


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal raise ``Interrupted`` inside the context; only the main thread can be interrupted.

    Signals that are ignored when it begins, as under nohup, stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def take_interrupts_back() -> None:
    """Lets Ctrl-C raise ``KeyboardInterrupt`` again: from here on there is something to tidy up."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_with_input() -> None:
    """Ends this process when standard input does, since the one that holds its other end has ended,
    however: else it and the next command would write to one folder. For a thread of its own."""
    os.read(0, 1)
    os._exit(1)
