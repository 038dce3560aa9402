"""What ``train.py --images`` and ``cdc-train`` do where pictures have several labels; without torch, so
that a wrong argument is answered at once."""

import argparse
import logging
import shlex
from collections.abc import Mapping, Sequence

from trainers.common.errors import UserError
from trainers.common.imports import importing
from trainers.common.record_file import FILE_NAME, read_record

from ..request import LOGGERS, OwnRun, ask_with

log = logging.getLogger(__name__)


def ask_several(
    args: argparse.Namespace, recipe: str | None, seed: int, settings: Mapping[str, object]
) -> OwnRun:
    """What a command's arguments ask for; the pictures are there.

    Raises:
        UserError: an argument can't work.
    """
    if args.skip_small:
        raise UserError("--skip-small is of one label per picture: leave it out, or say --one")
    return ask_with(args, recipe, seed, settings)


def train_several(asked: OwnRun, predict: str, loggers: Sequence[logging.Logger] = LOGGERS) -> None:
    """Makes a run, and says how good it is and how to go on.

    Args:
        predict: the command that labels with it; loggers: see ``fit_several``.

    Raises:
        UserError: the input can't work.
    """
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        from .fit import fit_several, said_measures

    fit_several(asked, loggers)
    log.info("%s", said_measures(read_record(f"{asked.folder}/{FILE_NAME}")))
    log.info("Label images with: %s --run %s PATH …", predict, shlex.quote(asked.folder))
