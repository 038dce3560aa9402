"""The request of ``train.py --images``; without torch, so that a wrong argument is answered at once."""

import argparse
import os
import re

from protocols.command_line import FIRST_FLAGS, KEYS, value_of
from trainers.common.config_files import settings_in
from trainers.common.errors import UserError

from ..request import OwnRun, ask_by


def asked_of_images(args: argparse.Namespace) -> OwnRun:
    """Return what ``--images`` and the flags beside it ask for.

    Raises:
        UserError: no such folder, another data set is given as well, the test would take a
            training's place, or as ``ask_by``.
    """
    if args.root or args.dataset_config_file:
        raise UserError(
            "--images is a data set of its own: leave out --root and --dataset-config-file"
        )
    if args.eval_only and not args.output_dir:
        raise UserError(
            "--images with --eval-only needs --output-dir: without it the test would take the place of the training"
        )
    first_key = next((place for place, word in enumerate(args.images) if is_key(word)), None)
    words = []
    if first_key is not None:
        words = args.images[first_key:]
        args.images = args.images[:first_key]
    options = settings_in([*words, *args.opts], "options after the flags")
    settings: dict[str, object] = {"DEVICE": args.device} if args.device else {}
    for flag, key in KEYS.items():
        if flag not in FIRST_FLAGS and (value := value_of(args, flag)):
            settings[key] = value
    settings.update(options)
    return ask_by(args, args.config_file, 1 if args.seed < 0 else args.seed, settings)


def is_key(word: str) -> bool:
    """Return whether a word is a setting's name, as in DATASET.NUM_SHOTS, and no file's."""
    return bool(re.fullmatch(r"[A-Z]\w*(\.[A-Z]\w*)+", word)) and not os.path.exists(word)
