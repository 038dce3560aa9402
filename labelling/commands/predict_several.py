"""``predict.py`` where the run gives several labels per picture."""

import argparse
import logging
import sys
from contextlib import closing

import numpy
from torch import Tensor
from tqdm import tqdm

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.files import file_hash
from trainers.common.record_file import FILE_NAME

from ..answers.answering import Rows, fill, here
from ..answers.label_sets import SetLabelStudioWriter, SetTextWriter, columns_of, rows_of
from ..answers.parquet import ParquetWriter
from ..answers.part_file import part_file
from ..answers.writers import CsvWriter, JsonWriter, Writer
from ..several.classifier import NAME, SeveralClassifier, with_rule
from .arguments import images_at

log = logging.getLogger("predict")
NAMED = 20  # of those that can't be read


def run(args: argparse.Namespace) -> int:
    """Labels what is asked for and writes the result, all of it or nothing.

    args: of ``commands.predict``.

    Returns:
        the exit code: 0, or 1 where images can't be read, which are named and left out.

    Raises:
        UserError: the input can't work.
    """
    for flag in ("classes", "ray"):
        if getattr(args, flag):
            raise UserError(f"--{flag} is of runs of one label per picture: leave it out")
    certainty = args.min_certainty
    if certainty is not None and not 0 <= certainty <= 1:
        raise UserError(f"--min-certainty is {certainty}, it must be between 0 and 1")
    writer = writer_for(args)
    writer.check()
    images = writer.checked(images_at(args.paths, sys.stdin or ()))
    classifier = SeveralClassifier.load(
        args.run,
        args.backbone,
        max_error=args.max_error,
        max_missed=args.max_missed,
        confidence=args.confidence,
    )
    if certainty is not None:
        classifier = with_rule(classifier, certainty)

    def compute(shown: Tensor) -> numpy.ndarray:
        return classifier.probability(classifier.features_of(shown))

    def rows(probability: numpy.ndarray, names: list[str | None]) -> Rows:
        answers = classifier.answers(probability, names)
        if args.csv or args.parquet:
            return columns_of(answers, args.topk, args.probabilities)
        return rows_of(answers, args.topk)

    with part_file(writer.path, command_of(args), images) as part:
        number, answered, unread = part.counts()
        missing = part.missing(classifier.cfg.DATALOADER.TEST.BATCH_SIZE)
        answers = here(classifier.read_batch, missing, compute, rows)
        with (
            tqdm(
                total=number,
                initial=answered + unread,
                unit="image",
                mininterval=1,
                dynamic_ncols=True,
            ) as progress,
            closing(fill(part, answers)) as filled,
        ):
            for some in filled:
                progress.update(some)
        _, answered, unread = part.counts()
        if not answered:
            raise UserError(
                f"there is no image to look at: not one can be read; the first: {part.errors(1)[0]}"
            )
        version = classifier.record["prompts_hash"][:8]
        writer.write(part.rows(args.least_certain_first), f"{NAME} {version}")
        errors = part.errors(NAMED)
    if classifier.rule is not None:
        log.info("%s", classifier.rule.says)
    log.info("%s", counted(answered, "image"))
    if unread:
        more = [f"and {unread - NAMED} more"] if unread > NAMED else []
        log.warning("No answer for %s: %s", counted(unread, "image"), "; ".join(errors + more))
    return 1 if unread else 0


def writer_for(args: argparse.Namespace) -> Writer:
    """What writes the answers.

    Raises:
        UserError: probabilities are asked for of what is no table.
    """
    if args.probabilities and not (args.csv or args.parquet):
        raise UserError(
            "--probabilities adds columns to a table: give --csv FILE or --parquet FILE"
        )
    if args.csv:
        return CsvWriter(args.csv)
    if args.parquet:
        return ParquetWriter(args.parquet)
    if args.label_studio:
        return SetLabelStudioWriter(args.label_studio)
    return JsonWriter() if args.json else SetTextWriter()


def command_of(args: argparse.Namespace) -> dict[str, object]:
    """What the part file depends on besides the images: option → value, and the hash of the run's record."""
    return {
        "--topk": args.topk,
        "--probabilities": args.probabilities,
        "--max-error": args.max_error,
        "--max-missed": args.max_missed,
        "--min-certainty": args.min_certainty,
        "--confidence": args.confidence,
        "--least-certain-first": args.least_certain_first,
        "--label-studio": bool(args.label_studio),  # which keeps other fields than a table
        "--run": file_hash(f"{args.run}/{FILE_NAME}"),
    }
