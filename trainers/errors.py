"""The error that a user can mend."""
import difflib
import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Something in the user's input is wrong. The message is one line: what is wrong, where, and what to do next.

    ``train.py`` prints it without a traceback and exits with code 2; used as a library, it is a plain ``ValueError``.
    """


def nearest(name: object, known: Iterable[object]) -> str:
    """`` (did you mean X?)`` for the known name most like ``name``, or nothing where none is like it."""
    lower = {str(candidate).lower(): candidate for candidate in known}
    match = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    return f" (did you mean {lower[match[0]]}?)" if match else ""


def exit_code(command: Callable[..., object], *arguments: object) -> int:
    """Calls a command line tool's function; returns 0, or 2 after a ``UserError``, whose line goes to standard error."""
    try:
        command(*arguments)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def run_tool(command: Callable[[Namespace], object], arguments: Namespace, log: logging.Logger) -> int:
    """Runs a command line tool that says how it gets on; returns its ``exit_code``.

    Args:
        command: the tool's function; arguments: its only argument.
        log: its logger, whose messages from INFO on go to standard error as they are; of others only warnings do.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    return exit_code(command, arguments)
