"""Standard output, copied to a log file."""

import os
import sys
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Logger", "setup_logger"]


class Logger:
    """A text stream that writes to the console and to a file; everything but writing is left to the console."""

    def __init__(self, fpath: str | os.PathLike[str] | None = None) -> None:
        console: TextIO | Logger = sys.stdout
        if isinstance(
            console, Logger
        ):  # a second log in one process: end the first, do not write through it
            console.close()
            console = console.console
        self.console: TextIO = console
        self.file: TextIO | None = None
        if fpath:
            path = Path(fpath).absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            is_cut = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
            self.file = open(path, "a", encoding="utf-8", buffering=1)
            if is_cut:  # a run that was stopped in the middle of a line
                self.file.write("\n")

    def write(self, message: str) -> int:
        written = self.console.write(message)
        if self.file is not None:
            try:
                self.file.write(message)
            except OSError as err:  # a full disk names no file
                err.filename = self.file.name
                raise
        return written

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file; the console stays open for writing."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding, ...
        if name == "console":  # not there yet
            raise AttributeError(name)
        return getattr(self.console, name)


def setup_logger(output: str | os.PathLike[str] | None = None) -> None:
    """Copy standard output to `output` (a .txt or .log file) or `output/log.txt`, appending; does nothing if empty."""
    if not output:
        return
    output = os.fspath(output)
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    sys.stdout = Logger(fpath)
