"""``train.py --images``: the run of ``cdc-train``, and what follows it, the same CLIP without training,
for comparison, and a report."""

import argparse
import logging
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from results.runs import ZERO_SHOT
from trainers.common.console import log_to_stdout, without_handlers
from trainers.common.errors import UserError
from trainers.common.record_file import FILE_NAME, read_record, remove_record
from trainers.engine.checkpoint import check_test_folder
from trainers.engine.run import Run

from ..explain import offered
from ..fit import make_asked, opened, said_accuracy
from ..own_run import for_trainer
from ..request import OwnRun
from ..several.command import train_several
from ..threshold import validation_if_any

if TYPE_CHECKING:
    from report.headlines import Headline
    from trainers.data.kept import Kept

log = logging.getLogger("train")


def run(asked: OwnRun, args: argparse.Namespace, several: bool = False) -> Run | None:
    """The run that is asked for; None where pictures have several labels.

    args: what is to be done with it: ``eval_only``, with prompts of which folder and epoch, or
        ``no_train``.

    Raises:
        UserError: the input can't work.
    """
    log_to_stdout()
    if several:
        if args.eval_only or args.no_train:
            raise UserError(
                "--eval-only and --no-train are of one label per picture: leave them out, or say --one"
            )
        train_several(asked, "python predict.py", [logging.getLogger()])
        page, _ = write_report(asked.folder, asked.images)
        log.info("Look at the run: %s", page)
        return None
    if args.eval_only:
        check_test_folder(args.model_dir, asked.folder)
    others = (args.model_dir, args.resume)
    with opened(asked, others, [logging.getLogger()], can_fold=not args.eval_only) as run:
        if args.eval_only:
            run.test_prompts(args.model_dir, args.load_epoch)
        elif not args.no_train:
            report(run, asked, make_asked(run, asked))
    return run


def report(run: Run, asked: OwnRun, folder: str) -> None:
    """Writes ``report.html`` into the folder of a run that is made, and says how to go on; folder: of
    what labels images."""
    cfg = run.cfg
    if run.name != ZERO_SHOT and not cfg.TEST.NO_TEST:
        try:
            with without_handlers(logging.getLogger()):  # its log.txt has it
                make_untrained(run, asked)
        except UserError as error:
            log.warning("the report has nothing to compare with: %s", error)
    promise = offered(validation_if_any(cfg.OUTPUT_DIR))
    kept = run.loaders.images.kept
    page, heads = write_report(cfg.OUTPUT_DIR, cfg.DATASET.ROOT, promise, kept)
    own = [head for head in heads if head.trainer == run.name]
    for head in own[:1]:
        known = {
            "chance": head.chance,
            "zero-shot": head.zero_shot,
            "always the commonest class": head.commonest,
        }
        log.info(
            "%s; for comparison: %s",
            said_accuracy(read_record(f"{cfg.OUTPUT_DIR}/{FILE_NAME}")),
            ", ".join(
                f"{name} {value:.1f} %" for name, value in known.items() if value is not None
            ),
        )
        if head.votes:
            log.info("%s", head.votes)
        if head.warning:
            log.warning("%s", head.warning)
    log.info("Look at the run: %s", page)
    log.info("Label images with: python predict.py --run %s PATH …", shlex.quote(folder))


def write_report(
    folder: str, root: str, promise: str = "", kept: "Kept | None" = None
) -> tuple[str, "list[Headline]"]:
    """Writes the report of a run into its folder; returns the page and the headlines.

    Args:
        root: the folder of the images, or the file that names them.
        promise, kept: see ``make_report``.
    """
    # here, since every other run can do without what draws, and without Dassl's data sets
    from report.of_models import MODEL_FIGURES
    from report.page import make_report

    from . import image_folder  # noqa: F401  (registers ImageFolder)

    page = os.path.join(folder, "report.html")
    return page, make_report([folder], page, MODEL_FIGURES, root, promise, kept)


def make_untrained(run: Run, asked: OwnRun) -> None:
    """Tests a run's CLIP untrained on the same images: a run in the run's folder, where the report
    finds it."""
    cfg = run.cfg
    given = {key: value for key, value in asked.settings.items() if not key.startswith("TRAINER.")}
    same = {
        "INPUT.SIZE": str(tuple(cfg.INPUT.SIZE)),
        "RESUME": "",
    }
    untrained = replace(
        asked,
        backbone=cfg.MODEL.BACKBONE.NAME,
        folder=os.path.join(cfg.OUTPUT_DIR, ZERO_SHOT),
        settings={**given, **same},
    )
    images = run.loaders.images
    towers = run.method.towers
    backbone = None if towers.precision == "fp16" else towers.backbone  # whose maps are float16
    with opened(for_trainer(untrained, ZERO_SHOT), images=images, backbone=backbone) as other:
        if not other.is_done():
            remove_record(other.cfg.OUTPUT_DIR)  # of a run that was made again, on other images
            other.make()
