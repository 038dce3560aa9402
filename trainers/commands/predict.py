"""Labels images with a trained run; uncertain ones can be flagged instead of guessed.

    cdc-predict --run output/my_run photo.jpg folder "more/*.png"
    find . -name "*.jpg" | cdc-predict --run output/my_run - --max-error 0.05 --csv labels.csv

The result goes to standard output, one line per image, as JSON with --json, or to a file with --csv.
Images that can't be read are named on standard error and left out of it; then the exit code is 1.
Input that can't work ends with one line there and exit code 2, and nothing is written.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from ..classifier.labels import as_csv, as_text, find_images, rows
from ..common.console import counted
from ..common.environment import first_line, start_command
from ..common.errors import UserError, run_tool
from ..common.files import check_output, write_text
from ..common.image_files import transparent_parts, with_alpha
from ..evaluation.doubts import Judge, are_own
from .arguments import add_run_arguments

log = logging.getLogger("predict")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image files, folders (with all folders below) or patterns; - reads a list from standard input",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names to choose from instead: the run's in another order, some of them, or others",
    )
    parser.add_argument(
        "--topk",
        type=int,
        default=5,
        help="how many classes are listed for each image (default: 5)",
    )
    doubt = parser.add_mutually_exclusive_group()
    doubt.add_argument(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="give no label to the most uncertain images, so that at most this share of the labels "
        "given is wrong on pictures like the run's validation images; 0.05 for 5 %%",
    )
    doubt.add_argument(
        "--min-certainty",
        type=float,
        metavar="C",
        help="give no label where the largest probability is below this",
    )
    parser.add_argument(
        "--least-certain-first",
        action="store_true",
        help="begin with the most uncertain images: those to look at, or to label, first",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--csv", metavar="FILE", help="write a table to this file")
    output.add_argument("--json", action="store_true", help="print a JSON list")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Labels what is asked for and writes the result, all of it or nothing.

    Returns:
        the exit code: 0, or 1 where images can't be read, which are named and left out.

    Raises:
        UserError: the input can't work.
    """
    certainty = args.min_certainty
    if certainty is not None and not 0 <= certainty <= 1:
        raise UserError(f"--min-certainty is {certainty}, it must be between 0 and 1")
    is_own = not args.classes or are_own(args.run, args.classes)
    if args.max_error is not None and not is_own:
        raise UserError(
            "--max-error is measured on all of the run's own classes, it says nothing of other --classes, or of some: give --min-certainty"
        )
    is_judged = is_own and certainty is None
    judge = Judge(args.run, args.max_error, args.confidence) if is_judged else None
    paths = find_images(args.paths, sys.stdin or ())
    if args.csv:
        check_output("--csv", args.csv, "\\A(\ufeff)?image,label,doubtful,uncertainty", paths)
    # here, since it takes seconds: wrong arguments are answered at once
    from tqdm import tqdm

    from ..classifier.prompted import PromptedClassifier

    classifier = PromptedClassifier.load(args.run, args.backbone)
    if args.classes:
        classifier = classifier.with_classes(args.classes)
    if number := with_alpha(paths):
        parts = transparent_parts(classifier.background)
        log.info("%d of %d images can have transparent parts, %s", number, len(paths), parts)
    broken: list[UserError] = []
    with tqdm(total=len(paths), unit="image", mininterval=1, dynamic_ncols=True) as progress:
        answers = classifier.predict(paths, broken, progress.update)
    doubtful: list[bool | None] = [None] * len(answers.labels)  # nothing says what that would be
    if judge is not None:
        doubtful = list(map(judge.doubtful, answers.uncertainty.tolist()))
    elif certainty is not None:
        doubtful = (answers.uncertainty > 1 - certainty).tolist()
    labelled = rows(answers, doubtful, args.topk)
    if args.least_certain_first:
        labelled.sort(key=lambda row: -row["uncertainty"])
    if args.csv:
        write_text(os.path.abspath(args.csv), as_csv(labelled))
    elif args.json:  # in ASCII, which every output takes
        sys.stdout.write(json.dumps(labelled, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write(as_text(labelled))
    if answers.note:
        log.info("%s", answers.note)
    if judge is not None:
        log.info("%s", judge.rule())
        if judge.points and judge.point is None and judge.offers():
            log.info("To have such a promise: --max-error SHARE")
    count = f", {doubtful.count(True)} of them too uncertain for a label"
    log.info("%s%s", counted(len(labelled), "image"), "" if doubtful[0] is None else count)
    if broken:
        without = counted(len(broken), "image")
        log.warning("No answer for %s: %s", without, "; ".join(map(str, broken)))
    return 1 if broken else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where images can't be read, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


def command() -> int:
    """The same as an entry point."""
    start_command()
    return main()
