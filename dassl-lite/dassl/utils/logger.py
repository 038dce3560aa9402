"""Standard output, copied to a log file."""

import os
import sys
from typing import TextIO


class Logger:
    """A text stream that writes to the console and to a file; everything else is left to the
    console."""

    def __init__(self, fpath: str | os.PathLike[str] | None = None) -> None:
        console: TextIO | Logger = sys.stdout
        if isinstance(console, Logger):  # a second log in one process: end the first
            console.close()
            console = console.console
        self.console: TextIO = console
        if fpath:
            os.makedirs(os.path.dirname(os.path.abspath(fpath)), exist_ok=True)
        self.file = open(fpath or os.devnull, "a", encoding="utf-8", buffering=1)

    def write(self, message: str) -> int:
        written = self.console.write(message)
        if not self.file.closed:
            try:
                self.file.write(message)
            except OSError as err:  # a full disk names no file
                err.filename = self.file.name
                raise
        return written

    def flush(self) -> None:
        self.console.flush()
        if not self.file.closed:
            self.file.flush()

    def close(self) -> None:
        """Close the file; the console stays open for writing."""
        self.file.close()

    def __getattr__(self, name: str) -> object:  # isatty, fileno, encoding, ...
        return getattr(self.console, name)


def setup_logger(output: str | os.PathLike[str] | None = None) -> None:
    """Copy standard output to `output` (a .txt or .log file) or `output/log.txt`, appending; does
    nothing if empty."""
    if output:
        path = os.fspath(output)
        sys.stdout = Logger(
            path if path.endswith((".txt", ".log")) else os.path.join(path, "log.txt")
        )
