"""Trains on your own images, in class folders or named by a CSV or Label Studio file, and tests on them.

    cdc-train my_folder
    cdc-train labels.csv
    cdc-train my_folder corrected.csv export.json
    cdc-train my_folder --trainer CoOp --backbone RN50 --shots 4 --settings OPTIM.MAX_EPOCH 10

A run that is stopped goes on by the same command; ``cdc-predict`` labels images with it. Input that
can't work ends with one line on standard error and exit code 2, a run that is asked to stop with 75.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections.abc import Sequence

from trainers.common import device_names
from trainers.common.config_files import settings_in
from trainers.common.errors import UserError, run_tool
from trainers.common.imports import importing
from trainers.common.interruption import interruptible

from ..request import LOGGERS, OwnRun, add_arguments, ask_by
from .lists import add_list_and_version


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_list_and_version(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="a folder of class folders, or of train and test; or a file that names images and labels: a CSV file with "
        "the columns image and label, Label Studio's JSON export, or COCO's instances JSON; or several of these: files "
        "correct folders, and later files earlier ones",
    )
    parser.add_argument(
        "--trainer", help="a method: CDC, CoOp, MaPLe … (default: LinearProbe, beside the texts)"
    )
    parser.add_argument(
        "--backbone",
        help="a CLIP: ViT-B/16, RN50, tiny, a file, open_clip:<model>/<weights> … (default: ViT-B/16 on "
        "a GPU, else ViT-B/32; tiny where their weights can't be had)",
    )
    parser.add_argument(
        "--recipe",
        help="name of one of the trainer's recipes, or a file (default: that for the CLIP)",
    )
    parser.add_argument(
        "--output-dir",
        metavar="FOLDER",
        help="where the run goes (default: output/<images>/<trainer>/seed<seed>, without a trainer output/<images>/seed<seed>, <images> being the name of the folder or of the file)",
    )
    add_arguments(parser)
    parser.add_argument("--device", help=device_names.HELP)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--eval-only", action="store_true", help="test what --model-dir has trained")
    mode.add_argument("--no-train", action="store_true", help="build the model without training it")
    parser.add_argument(
        "--model-dir", default="", help="with --eval-only: folder of the training run"
    )
    parser.add_argument(
        "--load-epoch",
        type=int,
        help="with --model-dir: which checkpoint (default: best or newest)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the sample and the training (default: 1)"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        default=[],
        metavar="KEY VALUE",
        help="pairs that override the recipe's settings, such as OPTIM.MAX_EPOCH 5",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    """Train on the images that the arguments name, or test on them.

    Raises:
        UserError: the input can't work.
    """
    if args.eval_only and not args.output_dir:
        raise UserError(
            "--eval-only needs --output-dir: without it the test would take the place of the training"
        )
    settings = settings_in(args.settings, "--settings")
    if args.device:
        settings["DEVICE"] = args.device
    asked = ask_by(args, args.recipe, args.seed, settings)
    make(asked, args, "cdc-predict", LOGGERS)


def make(
    asked: OwnRun,
    args: argparse.Namespace,
    predict: str,
    loggers: Sequence[logging.Logger],
    others: Sequence[str] = (),
) -> None:
    """Make the run that is asked for, or test with it.

    Args:
        args: ``eval_only``, with prompts of ``model_dir`` and ``load_epoch``, or ``no_train``.
        predict: the command that labels images; loggers: as in ``open_run``.
        others: folders of runs whose trainer and CLIP are taken where none is given.

    Raises:
        UserError: the input can't work.
    """
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        from trainers.engine.checkpoint import check_test_folder

        from ..after import finish
        from ..fit import make_asked, open_run

    if args.eval_only:
        check_test_folder(args.model_dir, asked.folder)
    known = (args.model_dir, *others)
    with open_run(asked, known, loggers, can_fold=not args.eval_only) as made:
        if args.eval_only:
            made.test_prompts(args.model_dir, args.load_epoch)
        elif not args.no_train:
            finish(made, asked, make_asked(made, asked), predict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    args = parse_arguments(arguments)
    with interruptible():
        return run_tool(run, args, *LOGGERS)


if __name__ == "__main__":
    sys.exit(main())
