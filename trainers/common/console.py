"""Text that leaves the program: logs, to the console and log.txt or to log.txt only, and names in
lines and tables."""

import contextlib
import csv
import io
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TextIO

# characters that move the cursor, end a line, colour, or turn the direction of writing; and bytes that are
# no text
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, kept: str = "") -> str:
    """Return a text, such as a file's name, with its control characters as Python writes them,
    except for the characters of ``kept``."""
    return CONTROL.sub(
        lambda match: match[0] if match[0] in kept else match[0].encode("unicode_escape").decode(),
        text,
    )


def shorten(text: str) -> str:
    """Shorten a text to 2,000 characters, and each word above 300, such as a path, to its two
    ends."""
    text = re.sub(r"\S{300,}", lambda match: f"{match[0][:150]}…{match[0][-100:]}", text)
    return text if len(text) <= 2000 else f"{text[:1300]} … {text[-600:]}"


def markdown(text: str) -> str:
    """A text that Markdown shows as it is: no markup, no link, no HTML, one line."""
    return re.sub(r"^[-'+]|[!-&(-+./:-@\[-`{-~]", r"\\\g<0>", printable(text))


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is given in the singular: "1 image", "3 classes"."""
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number} {noun}"


def first_few(words: Sequence[str]) -> str:
    """The first five words of a list, and how many more there are."""
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


def table_cell(value: object) -> object:
    """A value for a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe
    before it, and control characters are shown as Python writes them."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_lines(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """The lines, with their ends, of a CSV file that a spreadsheet opens as it is meant: it starts with
    a byte order mark, without which Excel does not take it for UTF-8, and numbers have six
    significant digits."""
    yield "\ufeff"
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    for row in chain([columns], rows):
        writer.writerow(
            f"{value:.6g}" if isinstance(value, float) else table_cell(value) for value in row
        )
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a CSV file as one text, with the lines of ``csv_lines``."""
    return "".join(csv_lines(columns, rows))


class Lines(logging.Formatter):
    """Messages without control characters but their own ends of line and tabs."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple) and record.msg != "%s":
            arguments = tuple(
                printable(value) if isinstance(value, str) else value for value in record.args
            )
            record = logging.makeLogRecord({**record.__dict__, "args": arguments})
        return printable(super().format(record), "\n\t")


class LogHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler that raises where a message can't be written, as on a full disk; logging ignores that."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            error.filename = error.filename or getattr(self.stream, "name", None)
            raise  # what ``emit`` has caught
        super().handleError(record)


def log_to_stdout(logger: logging.Logger | None = None) -> None:
    """Messages go where Dassl's go: to the console and, through Dassl's tee, to log.txt.

    logger: whose; None: the root's, so everybody's.
    """
    handler = LogHandler(sys.stdout)
    handler.setFormatter(Lines())
    logger = logger or logging.getLogger()
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def show_messages(*loggers: logging.Logger) -> None:
    """Prints the messages of loggers, without any this package's, unless the program has set up logging
    itself."""
    for logger in loggers or (package_logger(),):
        if not logging.getLogger().handlers and not logger.handlers:
            log_to_stdout(logger)


def package_logger() -> logging.Logger:
    """Return the logger of this package, the parent of its modules' loggers."""
    return logging.getLogger(__name__.partition(".")[0])


class FileOnly(io.TextIOBase):
    """The file that Dassl's tee writes to, without the console: for texts too long to read before
    the first progress bar.

    Args:
        tee: Dassl's replacement of standard output; any other stream is written to directly.
    """

    def __init__(self, tee: TextIO) -> None:
        self.file = getattr(tee, "file", None) or tee

    def write(self, text: str) -> int:
        try:
            return int(self.file.write(text))
        except OSError as error:  # a full disk names no file
            error.filename = self.file.name
            raise

    def flush(self) -> None:
        if not self.file.closed:  # by its block; Python flushes this one whenever it is collected
            self.file.flush()


@contextlib.contextmanager
def logged_to(path: str, *loggers: logging.Logger) -> Iterator[FileOnly]:
    """Append the messages of loggers to a file as well, to the end of the block;
    yields the file."""
    with open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        handler = LogHandler(file)
        handler.setFormatter(Lines())
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield FileOnly(file)
        finally:
            for logger in loggers:
                logger.removeHandler(handler)


@contextlib.contextmanager
def without_handlers(logger: logging.Logger) -> Iterator[None]:
    """Takes a logger's handlers away, to the end of the block."""
    handlers = logger.handlers[:]
    logger.handlers[:] = [logging.NullHandler()]  # without any Python would print warnings
    try:
        yield
    finally:
        logger.handlers[:] = handlers
