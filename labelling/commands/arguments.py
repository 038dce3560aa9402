"""Arguments of commands that answer with a run: the run, and the images."""

import argparse
import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from trainers.common import device_names
from trainers.common.console import first_few
from trainers.common.errors import UserError
from trainers.common.image_files import IMAGE_ENDINGS, files_below, is_image, left_out

from ..threshold import BEST_PROMISE, CONFIDENCE

log = logging.getLogger("predict")


def add_run_arguments(
    parser: argparse.ArgumentParser, sources: argparse._MutuallyExclusiveGroup | None = None
) -> None:
    """Adds ``--run``, ``--backbone`` and ``--confidence``, of the command's own ``--max-error``.

    sources: what answers can come from besides a run, one of which is required.
    """
    (sources or parser).add_argument(
        "--run", required=sources is None, help="folder of a finished training, with results.json"
    )
    parser.add_argument(
        "--backbone",
        help="name or file of the run's CLIP, if it is no longer where the training found it",
    )
    parser.add_argument("--device", default="auto", help=device_names.HELP)
    parser.add_argument(
        "--confidence",
        type=float,
        default=CONFIDENCE,
        metavar="SHARE",
        help=f"how sure the promise of --max-error is (default: {CONFIDENCE:g})",
    )


def share_or_best(text: str) -> float | str:
    """Reads the value of ``--max-error``: a share, or ``BEST_PROMISE``; anything else raises ValueError."""
    return text if text == BEST_PROMISE else float(text)


def paths_in(lines: Iterable[str]) -> Iterator[str]:
    """A list's lines without their ends, and without the mark of UTF-8 that some editors and shells
    put before the first."""
    mark = "\ufeff"
    for line in lines:
        yield line.strip("\r\n").removeprefix(mark)
        mark = ""


def places_at(given: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    """Yield the given files and folders one by one, in their order.

    Raises:
        UserError: a path is neither a file, a folder nor a pattern that matches a file.
    """
    words = chain.from_iterable(paths_in(stdin) if word == "-" else [word] for word in given)
    for place in filter(str.strip, words):
        matches = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
        if not matches:
            raise UserError(f"{place!a} is not a file, a folder or a pattern that matches any")
        yield from matches


def images_at(given: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    """Paths of the given images, one by one, in their order; those of a folder sorted.

    Raises:
        UserError: nothing is left, or as ``places_at``.
    """
    is_empty = True
    for place in places_at(given, stdin):
        if not os.path.isdir(place):
            is_empty = False
            yield place
            continue
        for path in filter(is_image, files_below(place)):
            is_empty = False
            yield path
        if line := left_out(files_below(place)):
            log.info(line)
    if is_empty:
        raise UserError(
            f"there is no image to label (they end in {first_few(IMAGE_ENDINGS)}): give files, folders, "
            "patterns, or - for a list on standard input, before --classes, which takes all words after it"
        )
