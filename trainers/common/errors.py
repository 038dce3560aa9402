"""Errors that a user can mend: mistakes in the input, and failures of the machine."""

import contextlib
import difflib
import errno
import logging
import os
import re
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator

from .console import Lines, printable, shorten
from .interruption import REQUEUE, Interrupted, take_interrupts_back

# modules that raise when a loader's worker is killed
LOADER = ("torch.utils.data.dataloader", "torch.utils.data._utils.signal_handling")
# the words of torch and of GPU drivers in their RuntimeErrors
NO_MEMORY = re.compile(
    "out of memory|(can.?not|can't) allocate|not enough memory|alloc_failed", re.I
)
# errors of the system that say nothing of the file that is read
MACHINES = {
    getattr(errno, name)
    for name in "EACCES EPERM EIO ENOMEM EMFILE ENFILE ENOSPC EDQUOT EROFS ESTALE ETIMEDOUT".split()
    if hasattr(errno, name)  # Windows has not all
}
# other devices' names don't fit in a message
ADVICE = {
    errno.EACCES: "make it readable and writable",
    errno.EPERM: "make it readable and writable",
    errno.EMFILE: "allow more open files (ulimit -n 4096)",
    errno.EIO: "look after the disk",
}


class UserError(ValueError):
    """Something in the user's input is wrong. The message is one line: the fault, its place, and
    the next step.

    ``train.py`` prints it without a traceback and exits with code 2; used as a library, it is a
    plain ``ValueError``. A name in it may hold anything: control characters are shown escaped, and
    of a long one its ends.
    """

    def __init__(self, message: str) -> None:
        # a loader's worker puts its traceback before it
        if message.startswith("Caught UserError in "):
            message = message.strip().splitlines()[-1].split("UserError: ")[-1]
        super().__init__(shorten(printable(message)))


def nearest(name: object, known: Iterable[object]) -> str:
    """`` (did you mean X?)`` for the known name most like ``name``, or nothing where none is like
    it."""
    lower = {str(candidate).lower(): candidate for candidate in known}
    match = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    return f" (did you mean {lower[match[0]]}?)" if match else ""


def line_for_user(error: Exception) -> str | None:
    """The one line for an error that the user can mend; None for any other, which is a fault of the
    code."""
    if isinstance(error, UserError):
        return str(error)
    if lacks_memory(error):
        place = "the GPU's memory" if re.search("CUDA|CUBLAS|HIP|MPS", str(error)) else "memory"
        return (
            f"{place} is used up: end other programs, or give another output folder and take less: "
            "TRAINER.<NAME>.TEXT_CHUNK 100, which changes no result, fewer DATALOADER.NUM_WORKERS, which change "
            "none of one's own pictures, TRAINER.<NAME>.PREC fp16 on a GPU, half of DATALOADER.TRAIN_X.BATCH_SIZE with half of OPTIM.LR, "
            "a smaller CLIP, or smaller pictures"
        )
    if is_of_killed_worker(error):
        what = str(error).splitlines()[0]
        if isinstance(error, ConnectionError):
            what = f"DataLoader worker has ended ({error.strerror})"
        return (
            f"{what}: give the same command again, a training resumes from its newest "
            "checkpoint; if it happens again, memory is short: lower DATALOADER.NUM_WORKERS, and unless the "
            "pictures are one's own give another output folder, since this number decides their random views"
        )
    if isinstance(error, OSError):
        path = shorten(printable(str(error.filename or "a file")))
        advice = ADVICE.get(error.errno or 0, "make room")
        # of one that comes from a loader's worker only the text is left
        why = error.strerror or printable(str(error).strip().rpartition("\n")[2])
        return f"{path}: {why}: {advice}, or give another place, and give the same command again"
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, this machine's or its GPU's."""
    is_torchs = isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or is_torchs


def raise_machines(error: Exception, path: object = None) -> None:
    """Raise an error again if it does not show a damaged file: memory is used up, as a MemoryError, a
    right is missing, or the disk fails. Call it where any error of a reader counts as damage.

    Args:
        path: of the file that is read, which the error shall name.
    """
    if isinstance(error, OSError) and error.errno in MACHINES:
        error.filename = error.filename or path
        raise error
    if isinstance(error, MemoryError):
        raise error
    if lacks_memory(error):  # which libraries tell by errors of their own
        raise MemoryError(str(error)) from error


def is_of_killed_worker(error: BaseException) -> bool:
    """Whether an error says that a loader's worker was killed: torch tells of it, or the connection to
    it ends, whichever is noticed first."""
    if isinstance(error, ConnectionError):
        return not {*modules_of(error)}.isdisjoint(LOADER)
    return isinstance(error, RuntimeError) and raised_in(error, *LOADER)


@contextlib.contextmanager
def blaming_config() -> Iterator[None]:
    """Blame a setting for all that Dassl, an optimiser or a transform refuses in this context.

    Raises:
        UserError: in place of their error.
    """
    try:
        yield
    except (ValueError, AssertionError) as error:
        modules = ("dassl", "torch.optim", "torchvision.transforms")
        if isinstance(error, UserError) or not raised_in(error, *modules):
            raise
        raise UserError(f"the config can't work: {' '.join(str(error).split())}") from error


def raised_in(error: BaseException, *modules: str) -> bool:
    """Whether an error was raised by the code of one of these modules or packages."""
    place = modules_of(error)[-1:]
    return any(f"{name}.".startswith(f"{module}.") for module in modules for name in place)


def modules_of(error: BaseException) -> list[str]:
    """Names of the modules that an error has passed through, the one that raised it last."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [str(frame.f_globals.get("__name__")) for frame in frames]


def exit_code(command: Callable[..., object], *arguments: object) -> int:
    """Calls a command line tool's function; returns the number that it gives, else 0.

    A line on standard error says why it is 2 (the user can mend it), 75 (it was asked to stop:
    start it again) or 130 (Ctrl-C).
    """
    take_interrupts_back()
    try:
        code = command(*arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of this tool's output, such as ``head``, has enough
        discard_output()
        return 141  # 128 and SIGPIPE's number, which Windows hasn't
    except Interrupted as stop:
        traceback.clear_frames(stop.__traceback__)
        sys.stderr.write(f"{stop}\n")
        return REQUEUE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted by Ctrl-C\n")
        return 130
    except Exception as first:
        error = first
        try:
            line = last_words(first)
        except RuntimeError as told:
            # torch tells of a killed worker once, at any moment: here the end of its connection was noticed before
            error = told
            line = last_words(told)
        if line is None:
            raise
        # torch tells of a killed worker at any moment, also while the line of a bar is being ended
        start = "\n" if is_of_killed_worker(error) else ""
        sys.stderr.write(f"{start}error: {line}\n")
        try:
            sys.stdout.flush()
        except OSError:
            discard_output()
        return 2
    return code if isinstance(code, int) else 0


def last_words(error: Exception) -> str | None:
    """Return the one line for an error that the user can mend, after which no loader's worker is left; None
    for any other."""
    line = line_for_user(error)
    if line is not None:
        # a loader ends its workers, which ignore signals, when its iterator goes, which the frames hold
        traceback.clear_frames(error.__traceback__)
    return line


def discard_output() -> None:
    """Drop the rest of standard output. It could not be written, and Python
    would try again at its end, and then give exit code 120."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def run_tool(
    command: Callable[[Namespace], object], arguments: Namespace, *loggers: logging.Logger
) -> int:
    """Runs a command line tool that says how it gets on; returns its ``exit_code``.

    Args:
        command: the tool's function; arguments: its only argument.
        loggers: its own, whose messages from INFO on go to standard error as they are; of others
            only warnings do.
    """
    logging.basicConfig(level=logging.WARNING, force=True)
    logging.getLogger().handlers[0].setFormatter(Lines())
    for logger in loggers:
        logger.setLevel(logging.INFO)
    return exit_code(command, arguments)
