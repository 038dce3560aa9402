"""Steps after a training on one's own pictures: the same CLIP without training, for comparison, a report
where its packages are there, and how to go on."""

import importlib.util
import logging
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from trainers.common.console import without_handlers
from trainers.common.errors import UserError
from trainers.common.record_file import RECORD_FILE, ZERO_SHOT, Record, read_record, remove_record
from trainers.engine.run import Run

from .fit import open_run
from .own_run import for_trainer
from .request import OwnRun
from .rounds import progress_said
from .task import task_of

if TYPE_CHECKING:
    from report.headlines import Headline

log = logging.getLogger(__name__)
DRAWING = ("jinja2", "matplotlib", "pandas")  # packages that a report needs


def finish(run: Run, asked: OwnRun, folder: str, predict: str) -> None:
    """Say how good a run is that is made, write ``report.html`` into its folder, and say how to go on.

    Args:
        folder: of the run that labels images; predict: the command for it.
    """
    cfg = run.cfg
    record = read_record(f"{cfg.OUTPUT_DIR}/{RECORD_FILE}")
    task = task_of(asked.multi_label)
    untrained = None
    why_alone = why_not_compared(run)
    if not why_alone:
        untrained = untrained_record(run, asked)
        why_alone = "" if untrained else "the test of it failed (log.txt says why)"
    if sentence := task.said(record):
        known = task.compared(untrained, run.loaders.images)
        others = ", ".join(f"{name} {value:.1f} %" for name, value in known.items())
        log.info("%s; for comparison: %s", sentence, others)
    if sentence := progress_said(cfg.OUTPUT_DIR):
        log.info("%s", sentence)
    if has_report():
        page, heads = write_report(run, asked, why_alone)
        for head in [head for head in heads if head.trainer == run.name][:1]:
            if head.votes:
                log.info("%s", head.votes)
            if head.warning:
                log.warning("%s", head.warning)
        log.info("Look at the run: %s", page)
    log.info("Label images with: %s --run %s PATH …", predict, shlex.quote(folder))


def why_not_compared(run: Run) -> str:
    """Return why a run is not compared with its CLIP untrained; "" where it is."""
    if run.name == ZERO_SHOT:
        return "this is it"
    if not run.method.backbone.has_texts:
        return "this backbone has no text encoder, so it answers nothing without training"
    return "nothing was tested (TEST.NO_TEST)" if run.cfg.TEST.NO_TEST else ""


def untrained_record(run: Run, asked: OwnRun) -> Record | None:
    """Return the record of a run's CLIP untrained, tested on the same images in a folder of the run, where
    the report finds it; None, with a warning, where that fails."""
    try:
        with without_handlers(logging.getLogger()):  # its log.txt has it
            return make_untrained(run, asked)
    except UserError as error:
        log.warning("there is nothing to compare with: %s", error)
        return None


def make_untrained(run: Run, asked: OwnRun) -> Record:
    """Test a run's CLIP untrained on the same images."""
    cfg = run.cfg
    given = {key: value for key, value in asked.settings.items() if not key.startswith("TRAINER.")}
    same = {"INPUT.SIZE": str(tuple(cfg.INPUT.SIZE)), "RESUME": ""}
    untrained = replace(
        asked,
        backbone=cfg.MODEL.BACKBONE.NAME,
        folder=os.path.join(cfg.OUTPUT_DIR, ZERO_SHOT),
        settings={**given, **same},
    )
    images = run.loaders.images
    towers = run.method.towers
    backbone = None if towers.precision == "fp16" else towers.backbone  # whose maps are float16
    with open_run(for_trainer(untrained, ZERO_SHOT), images=images, backbone=backbone) as other:
        if not other.is_done():
            remove_record(other.cfg.OUTPUT_DIR)  # of a run that was made again, on other images
            other.make()
        return read_record(f"{other.cfg.OUTPUT_DIR}/{RECORD_FILE}")


def has_report() -> bool:
    """Return whether this is a checkout, which has the package ``report``, with what that needs."""
    in_checkout = __name__.startswith("labelling.")
    return in_checkout and all(importlib.util.find_spec(name) for name in DRAWING)


def write_report(run: Run, asked: OwnRun, why_alone: str) -> "tuple[str, list[Headline]]":
    """Write the report of a run into its folder; return the page and the headlines.

    why_alone: why the untrained CLIP was not tested, "" where it was.
    """
    # here, since every other run can do without what draws, and without Dassl's data sets
    from report import own
    from report.of_models import model_figures
    from report.page import make_report

    from .checkout import image_folder  # noqa: F401  (registers ImageFolder)
    from .checkout.offers import multi_label_offer, offer_of

    folder = run.cfg.OUTPUT_DIR
    offer = None
    if not run.cfg.TEST.NO_TEST:
        offer = multi_label_offer(folder) if asked.multi_label else offer_of(folder)
    page = os.path.join(folder, "report.html")
    kept = run.loaders.images.kept
    root = run.cfg.DATASET.ROOT
    figures = model_figures(str(run.method.device))
    heads = make_report([folder], page, figures, root, own.OwnTraining(offer, why_alone), kept)
    return page, heads
