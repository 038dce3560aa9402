"""Commands that are started outside of their environment say so in one line."""

import sys
from types import TracebackType


def say_what_is_missing(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A ``sys.excepthook``: a package that is not installed ends the command with one line and exit code 2."""
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(
        f"error: {sys.executable} has no package {str(error.name).partition('.')[0]}: start the command in the environment "
        "that was made for it (source .venv/bin/activate), or install what is missing (docs/tutorials/install.md)\n"
    )
    sys.exit(2)


sys.excepthook = say_what_is_missing
