"""What ``train.py`` asks for with ``--images``; without torch, so that a wrong argument is answered at once."""

import argparse

from protocols.command_line import KEYS, OWN, value_of
from trainers.common.config_files import settings_in
from trainers.common.errors import UserError

from ..request import OwnRun, ask_by


def asked_of_images(args: argparse.Namespace) -> OwnRun:
    """Return what ``--images`` and the flags beside it ask for.

    Raises:
        UserError: no such folder, another data set is given as well, the test would take a
            training's place, or see ``ask_by``.
    """
    if args.root or args.dataset_config_file:
        raise UserError(
            "--images is a data set of its own: leave out --root and --dataset-config-file"
        )
    if args.eval_only and not args.output_dir:
        raise UserError(
            "--images with --eval-only needs --output-dir: without it the test would take the place of the training"
        )
    options = settings_in(args.opts, "options after the flags")
    settings: dict[str, object] = {}
    for flag, key in KEYS.items():
        if flag not in OWN and (value := value_of(args, flag)):
            settings[key] = value
    settings.update(options)
    return ask_by(args, args.config_file, 1 if args.seed < 0 else args.seed, settings)
