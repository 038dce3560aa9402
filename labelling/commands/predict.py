"""Labels images with a trained run; uncertain ones can be flagged instead of guessed.

    cdc-predict --run output/my_run photo.jpg folder "more/*.png"
    find . -name "*.jpg" | cdc-predict --run output/my_run - --max-error 0.05 --csv labels.csv

The result goes to standard output, one line per image, as JSON with --json, or to a file with --csv
or --parquet. Images that can't be read are named on standard error and left out of it; then the exit
code is 1. Input that can't work ends with one line there and exit code 2, and nothing is written.

Answers are kept beside the table that will be, in a file that ends in .part: after a crash the same
command goes on where it was. The table appears when it is whole.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from trainers.common.console import counted
from trainers.common.errors import UserError, run_tool
from trainers.common.files import file_hash
from trainers.common.image_files import transparent_parts, with_alpha
from trainers.common.imports import importing
from trainers.common.record_file import RECORD_FILE, is_multi_label, read_record

from ..answers.coco import CocoWriter
from ..answers.label_studio import LabelStudioWriter
from ..answers.parquet import ParquetWriter
from ..answers.part_file import PartFile, part_file
from ..answers.writers import CsvWriter, JsonWriter, TextWriter, Writer, version_of
from ..familiar import WITHHELD
from ..readers.rows import Source
from ..rules import LabelRule, Wanted, rule_of, says, says_in_full
from ..shift import lines_after
from ..table import boxes_in
from ..threshold import Threshold
from .arguments import add_run_arguments, images_at, places_at, share_or_best
from .lists import add_version

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.evaluation.prediction import Prediction

    from ..answers.answering import Rows
    from ..classifier import PromptedClassifier

log = logging.getLogger("predict")
NAMED = 20  # of those that can't be read
BAR: dict[str, Any] = {"unit": "image", "mininterval": 1, "dynamic_ncols": True}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_version(parser)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image files, folders (with all folders below) or patterns; - reads a list from standard input",
    )
    sources = parser.add_mutually_exclusive_group()
    add_run_arguments(parser, sources)
    sources.add_argument(
        "--prompts",
        metavar="FILE",
        help="checkpoint that a method's authors released; needs --trainer and --classes",
    )
    parser.add_argument("--trainer", help="that trained the --prompts, such as CoOp")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names to choose from instead: the run's in another order, some of them, or others; without "
        "--run and --prompts the CLIP as it is tells them apart",
    )
    parser.add_argument(
        "--boxes",
        action="store_true",
        help="each PATH is COCO's or Label Studio's file: label its boxes, which may have labels or none",
    )
    parser.add_argument(
        "--topk",
        type=int,
        default=5,
        help="how many classes are listed for each image (default: 5)",
    )
    rejection = parser.add_mutually_exclusive_group()
    rejection.add_argument(
        "--max-error",
        type=share_or_best,
        metavar="SHARE",
        help="give no label to the most uncertain images, so that at most this share of the labels "
        "given is wrong on pictures like the run's validation images; 0.05 for 5 %%, best for the "
        "smallest that this run can promise",
    )
    rejection.add_argument(
        "--max-missed",
        type=float,
        metavar="SHARE",
        help="of a multi-label run: give so many that at most this share of those that pictures "
        "like the run's have is missed",
    )
    rejection.add_argument(
        "--min-certainty",
        type=float,
        metavar="C",
        help="give no label where the largest probability is below this; of a multi-label run the labels from it on",
    )
    parser.add_argument(
        "--label-unfamiliar",
        action="store_true",
        help="with --max-error: give a label to images unlike the run's, too, for which its promise says nothing",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say all about the promise: on which images it was measured, its cost, and when it is broken",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="a column per class in the place of --topk's, in a table",
    )
    parser.add_argument(
        "--least-certain-first",
        action="store_true",
        help="begin with the most uncertain images: those to look at, or to label, first",
    )
    parser.add_argument(
        "--label-next",
        type=int,
        metavar="N",
        help="write the N images to label next, none that the run has labels of: different ones while few are labelled, "
        "later the most uncertain, of near-duplicates one",
    )
    parser.add_argument(
        "--at-random",
        action="store_true",
        help="with --label-next: draw a tenth of them at random, and add a column asked_with, the probability with which "
        "each image was asked for, so that answers to these can be counted for all",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--csv", metavar="FILE", help="write a table to this file")
    output.add_argument(
        "--parquet", metavar="FILE", help="write a table to this file, for millions of images"
    )
    output.add_argument("--json", action="store_true", help="print a JSON list")
    output.add_argument(
        "--label-studio",
        metavar="FILE",
        help="write tasks with predictions, which Label Studio imports, to this file, in a folder that "
        "holds all images",
    )
    output.add_argument(
        "--coco",
        metavar="FILE",
        help="write the COCO file of --boxes again, with the category of each annotation's label, to this file",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="label on a Ray cluster, whose machines find the run and the images under the same paths; "
        "auto for the one that runs here",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> int:
    """Labels the given images and writes the result, all of it or nothing.

    Returns:
        the exit code: 0, or 1 where images can't be read, which are named and left out.

    Raises:
        UserError: the input can't work.
    """
    check_arguments(args)
    shares = args.max_error, args.max_missed, args.min_certainty, args.confidence
    wanted = Wanted(*shares, label_unfamiliar=args.label_unfamiliar)
    rule = rule_of(args.run or "", wanted, args.classes)
    files = places_at(args.paths, sys.stdin or ()) if args.boxes else ()
    boxes = {file: boxes_in(file) for file in files}
    writer = writer_for(args, boxes)
    writer.check()
    images = paths_of(boxes) if boxes else images_at(args.paths, sys.stdin or ())
    with part_file(writer.path, command_of(args), writer.checked(images)) as part:
        classifier = label(part, args, writer, wanted, rule)
        part.check_whole()
        _, answered, unread = part.counts()
        if not answered:
            first = part.errors(1)[0]
            raise UserError(
                f"there is no image to look at: not one can be read; the first: {first}"
            )
        rows: Iterator[Mapping[str, object]] = part.rows(args.least_certain_first)
        if args.label_next is not None:
            from ..answers.to_label import to_label

            rows, way = to_label(part, classifier, args.run, args.label_next, args.at_random)
            log.info("%s", way)
        writer.write(rows, version_of(classifier.method))
        log_promise(classifier, args.explain)
        tell(part, classifier, args.run)
    return 1 if unread else 0


def paths_of(boxes: Mapping[str, Source]) -> list[str]:
    """Return the paths of boxes, each once, and say which are left out; boxes: file → its boxes."""
    for source in boxes.values():
        for note in source.notes:
            log.info("%s", note)
    return [*dict.fromkeys(row.image for source in boxes.values() for row in source.rows)]


def log_promise(classifier: "PromptedClassifier", is_explained: bool) -> None:
    """Log the promise of the labels: in one sentence, or with its cost and limits and the images that get none."""
    rule = classifier.rule
    said = says_in_full if is_explained else says
    if sentence := said(rule, classifier.record):
        log.info("%s", sentence)
    if is_explained and classifier.withholds:
        log.info("%s", WITHHELD)
    if isinstance(rule, Threshold) and rule.alternatives():
        log.info("To have such a promise: --max-error best")


def tell(part: PartFile, classifier: "PromptedClassifier", folder: str | None) -> None:
    """Say how many images have an answer, and where these do not come as the run's came.

    folder: of the run; None: there is none.
    """
    _, answered, unread = part.counts()
    rejected = part.rejected()
    why = "too uncertain or too unfamiliar" if classifier.withholds else "too uncertain"
    count = "" if rejected is None else f", {rejected} of them {why} for a label"
    log.info("%s%s", counted(answered, "image"), count)
    if folder:
        for line in lines_after(classifier, folder, *part.numbers()):
            log.warning("%s", line)
    if unread:
        errors = part.errors(NAMED)
        more = [f"and {unread - NAMED} more"] if unread > NAMED else []
        log.warning("No answer for %s: %s", counted(unread, "image"), "; ".join(errors + more))


def writer_for(args: argparse.Namespace, boxes: Mapping[str, Source]) -> Writer:
    """The writer of the answers; boxes: file → its boxes.

    Raises:
        UserError: a Ray cluster is asked for a form that it does not make, or a form without columns for columns.
    """
    if args.ray and not (args.run and (args.csv or args.parquet)):
        raise UserError("--ray writes a table of a --run: give --csv FILE or --parquet FILE")
    if args.ray and args.device != "auto":
        raise UserError(
            f"--device is {args.device}, and --ray labels on what the cluster gives: leave out --device"
        )
    if args.probabilities and not (args.csv or args.parquet):
        raise UserError(
            "--probabilities adds columns to a table: give --csv FILE or --parquet FILE"
        )
    if args.csv:
        return CsvWriter(args.csv, args.probabilities)
    if args.parquet:
        return ParquetWriter(args.parquet, args.probabilities)
    if args.label_studio:
        return LabelStudioWriter(args.label_studio, boxes)
    if args.coco:
        return CocoWriter(args.coco, boxes)
    return JsonWriter() if args.json else TextWriter()


def command_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the options that the part file depends on besides the images: option → value; for a run the hash of its
    record, for ``--prompts`` the hash of the file."""
    source = args.prompts or f"{args.run or ''}/{RECORD_FILE}"
    return {
        "--trainer": args.trainer,
        "--classes": args.classes,
        "--topk": args.topk,
        "--probabilities": args.probabilities,
        "--max-error": args.max_error,
        "--max-missed": args.max_missed,
        "--min-certainty": args.min_certainty,
        "--confidence": args.confidence,
        "--label-unfamiliar": args.label_unfamiliar,
        "--least-certain-first": args.least_certain_first,
        "--label-next": args.label_next is not None,  # keeps features
        # the forms keep other fields of an answer
        "--csv": bool(args.csv),
        "--parquet": bool(args.parquet),
        "--label-studio": bool(args.label_studio),
        "--coco": bool(args.coco),
        "--run": file_hash(source) if os.path.isfile(source) else "",
        # a run's CLIP is that of its record wherever it lies
        "--backbone": args.backbone if not args.run else None,
    }


def label(
    part: PartFile,
    args: argparse.Namespace,
    writer: Writer,
    wanted: Wanted,
    rule: LabelRule | None,
) -> "PromptedClassifier":
    """Answer the images that have no answer yet; return what answers."""
    # here, since it takes seconds: wrong arguments are answered at once
    with importing():
        from tqdm import tqdm

        from ..answers.answering import fill, here
        from ..answers.to_label import with_features

    classifier = classifier_of(args, rule, wanted.withholds)
    if classifier.method.note:
        log.info("%s", classifier.method.note)
    images, answered, unread = part.counts()
    missing = part.missing(classifier.cfg.DATALOADER.TEST.BATCH_SIZE)
    if args.ray:
        from ..answers.on_ray import on_ray

        answers = on_ray(args.ray, missing, labeller_of(args, wanted))
    else:
        if not answered + unread:  # a command that goes on has said it
            paths = tqdm(part.images(), "looking for transparent parts", images, **BAR, delay=2)
            if number := with_alpha(paths):
                parts = transparent_parts(classifier.background)
                log.info("%d of %d images can have transparent parts, %s", number, images, parts)

        def rows(prediction: "Prediction", names: list[str | None]) -> "Rows":
            return writer.rows(classifier.answers(prediction, names), args.topk)

        def rows_with(computed: "tuple[Prediction, Tensor]", names: list[str | None]) -> "Rows":
            prediction, features = computed
            return [*map(with_features, rows(prediction, names), features.numpy(), map(str, names))]

        if args.label_next is None:
            answers = here(classifier.read_batch, missing, classifier.predicted, rows)
        else:
            answers = here(
                classifier.read_batch, missing, classifier.predicted_with_features, rows_with
            )
    with (
        tqdm(total=images, initial=answered + unread, **BAR) as progress,
        closing(fill(part, answers)) as filled,
    ):
        for number in filled:
            progress.update(number)
    return classifier


def labeller_of(args: argparse.Namespace, wanted: Wanted) -> dict[str, object]:
    """The arguments of ``on_ray.Labeller``, for processes that have another working folder."""
    backbone = args.backbone
    if backbone is not None and os.path.exists(backbone):
        backbone = os.path.abspath(backbone)
    return {
        "run": os.path.abspath(args.run),
        "backbone": backbone,
        "classes": args.classes,
        "topk": args.topk,
        "probabilities": args.probabilities,
        "wanted": vars(wanted),
    }


def check_arguments(args: argparse.Namespace) -> None:
    """Check arguments against each other.

    Raises:
        UserError: a checkpoint needs an argument, or a run is given one that its record has; or
            the list of classes is empty.
    """
    if not (args.run or args.prompts or args.classes):
        raise UserError(
            "nothing says what the classes are: give --run, the folder of a training, or --classes cat dog"
        )
    if args.topk < 1:
        raise UserError(f"--topk is {args.topk}, it must be at least 1")
    if args.at_random and args.label_next is None:
        raise UserError("--at-random is for --label-next: give that number too, or leave it out")
    if args.boxes and args.at_random and (args.label_studio or args.coco):
        raise UserError(
            "of the forms of answers only tables have a place for the probability of each box: give --csv FILE, or leave out "
            "--at-random"
        )
    if args.coco and args.run and is_multi_label(read_record(f"{args.run}/{RECORD_FILE}")):
        raise UserError(
            "--coco has one category per annotation, and this run gives a box several labels: give --csv FILE or "
            "--label-studio FILE"
        )
    if args.label_next is not None:
        check_label_next(args)
    if args.prompts and not (args.trainer and args.classes):
        raise UserError(
            "--prompts says neither the trainer nor the classes: give --trainer and --classes too"
        )
    if args.trainer and not args.prompts:
        raise UserError("--trainer is that of --prompts, a run knows its own: leave it out")


def check_label_next(args: argparse.Namespace) -> None:
    """Check that the images to label next can be chosen.

    Raises:
        UserError: there is no run whose pictures are known, it is on other machines, or none is asked for.
    """
    if not args.run or args.classes:
        raise UserError(
            "--label-next chooses what teaches a run most: give --run, and no --classes"
        )
    if args.ray:
        raise UserError("--label-next compares all images in one process: leave out --ray")
    if args.least_certain_first:
        raise UserError("--label-next has an order of its own: leave out --least-certain-first")
    if args.label_next < 1:
        raise UserError(f"--label-next is {args.label_next}, it must be at least 1")


def classifier_of(
    args: argparse.Namespace, rule: LabelRule | None, withholds: bool
) -> "PromptedClassifier":
    """The classifier that is asked for, of a run, of a checkpoint or of names alone, with its classes.

    rule, withholds: as in ``PromptedClassifier``.

    Raises:
        UserError: as ``PromptedClassifier.load``, ``from_official`` and ``zero_shot``.
    """
    from ..classifier import PromptedClassifier
    from ..official_prompts import BACKBONE

    if args.prompts:
        backbone = args.backbone or BACKBONE
        classifier = PromptedClassifier.from_official(
            args.prompts, args.trainer, args.classes, backbone, {"DEVICE": args.device}
        )
        classifier.rule = rule
        return classifier
    if not args.run:
        classifier = PromptedClassifier.zero_shot(args.classes, args.backbone, device=args.device)
        classifier.rule = rule
        return classifier
    classifier = PromptedClassifier.of_run(args.run, args.backbone, rule, withholds, args.device)
    return classifier.with_classes(args.classes) if args.classes else classifier


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where images can't be read, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
