"""This package's messages in a program that has set up no logging: printed, as Dassl prints its own."""

import logging
import sys
from typing import TextIO

from .console import Lines


class Stdout(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard output at that moment, into which Dassl's ``setup_logger`` puts its tee."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler would keep the stream of now
        self.setFormatter(Lines())

    @property
    def stream(self) -> TextIO:
        return sys.stdout


def show_messages() -> None:
    """Prints this package's log messages, unless the program has set up logging itself."""
    package = logging.getLogger(__name__.partition(".")[0])
    if not logging.getLogger().handlers and not package.handlers:
        package.addHandler(Stdout())
        package.setLevel(logging.INFO)
