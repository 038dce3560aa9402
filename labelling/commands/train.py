"""Trains on your own images, in class folders or named by a CSV or Label Studio file, and tests on them.

    cdc-train my_folder
    cdc-train labels.csv
    cdc-train my_folder --trainer CoOp --backbone RN50 --shots 4 --settings OPTIM.MAX_EPOCH 10

A run that is stopped goes on by the same command; ``cdc-predict`` labels images with it. Input that
can't work ends with one line on standard error and exit code 2, a run that is asked to stop with 75.
"""

import argparse
import logging
import shlex
from collections.abc import Sequence

from trainers.common.config_files import settings_in
from trainers.common.environment import first_line
from trainers.common.errors import run_tool
from trainers.common.imports import importing
from trainers.common.interruption import interruptible
from trainers.common.record_file import FILE_NAME, read_record

from ..folders.label_sets import means_several
from ..request import LOGGERS, add_arguments, ask_by
from ..several.command import ask_several, train_several

log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder of class folders, or of train and test; or a file that names images and labels: a CSV file with "
        "the columns image and label, Label Studio's JSON export, or COCO's instances JSON",
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
    """
    Raises:
        UserError: the input can't work.
    """
    settings = settings_in(args.settings, "--settings")
    if means_several(args.images, args.several):
        train_several(ask_several(args, args.recipe, args.seed, settings), "cdc-predict")
        return
    asked = ask_by(args, args.recipe, args.seed, settings)
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        from ..fit import make_asked, opened, said_accuracy

    with opened(asked) as made:
        folder = make_asked(made, asked)
        if sentence := said_accuracy(read_record(f"{made.cfg.OUTPUT_DIR}/{FILE_NAME}")):
            log.info("%s", sentence)
        log.info("Label images with: cdc-predict --run %s PATH …", shlex.quote(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    args = parse_arguments(arguments)
    with interruptible():
        return run_tool(run, args, *LOGGERS)
