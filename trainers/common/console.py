"""Logging of a run: to the console and log.txt, or to log.txt only."""

import io
import logging
import sys
from typing import Any


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Raises where a message can't be written, as on a full disk; logging would ignore it."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            raise  # what ``emit`` has caught
        super().handleError(record)


def log_to_stdout() -> None:
    """Messages of this toolbox go where Dassl's go: to the console and, through Dassl's tee, to log.txt."""
    handler = LogHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class FileOnly(io.TextIOBase):
    """The file that Dassl's tee writes to, without the console: for what is too long to read before the first progress bar.

    Args:
        tee: Dassl's replacement of standard output; any other stream is written to directly.
    """

    def __init__(self, tee: Any) -> None:
        self.file = getattr(tee, "file", None) or tee

    def write(self, text: str) -> int:
        try:
            return int(self.file.write(text))
        except OSError as error:  # a full disk names no file
            error.filename = self.file.name
            raise

    def flush(self) -> None:
        self.file.flush()
