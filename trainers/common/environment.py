"""What every command does first, and no library: a package that is not installed, a closed output or
a locale without our letters is no traceback."""

import io
import os
import sys
from types import TracebackType


def say_what_is_missing(
    type_: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A ``sys.excepthook``: a package that is not installed ends the command with one line and exit
    code 2."""
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(type_, error, traceback)
        return
    sys.stderr.write(
        f"error: {sys.executable} has no package {str(error.name).partition('.')[0]}: start the command in the environment "
        "that was made for it (source .venv/bin/activate), or install what is missing (docs/tutorials/install.md)\n"
    )
    sys.exit(2)


def start_command() -> None:
    """Prepares this process for a command; called before anything is imported that may not be
    installed."""
    sys.excepthook = say_what_is_missing
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stderr.write(
            "error: standard output is closed: leave it open, or send it to /dev/null\n"
        )
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the locale lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
