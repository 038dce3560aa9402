"""What follows a training on one's own images: the same CLIP without training, for comparison, and a report."""

import argparse
import contextlib
import io
import logging
import os
import shlex
from collections.abc import Callable

from yacs.config import CfgNode

from trainers.common.console import log_to_stdout
from trainers.common.errors import UserError

log = logging.getLogger("train")
ZERO_SHOT = "ZeroshotCLIP"
REPORT = "report.html"


def report(
    cfg: CfgNode, args: argparse.Namespace, run: Callable[[argparse.Namespace], object]
) -> None:
    """Writes ``report.html`` into the folder of the run, and says how to go on.

    Args:
        cfg, args: the run's; run: ``protocols.training.run``.
    """
    if cfg.TRAINER.NAME != ZERO_SHOT and not cfg.TEST.NO_TEST:
        test_zero_shot(cfg, args, run)
    # here, since every other run can do without what draws
    from analysis.occlusion import occlusion_figures
    from results.report.page import make_report

    page = os.path.join(cfg.OUTPUT_DIR, REPORT)
    make_report([cfg.OUTPUT_DIR], page, occlusion_figures, cfg.DATASET.ROOT)
    log.info("Look at the run: %s", page)
    log.info("Label images with: python predict.py --run %s PATH …", shlex.quote(cfg.OUTPUT_DIR))


def test_zero_shot(
    cfg: CfgNode, args: argparse.Namespace, run: Callable[[argparse.Namespace], object]
) -> None:
    """Tests the run's CLIP untrained, on the same images: a run of its own in the run's folder, which the report finds."""
    folder = os.path.join(cfg.OUTPUT_DIR, ZERO_SHOT)
    given = {
        **vars(args),
        "trainer": ZERO_SHOT,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "output_dir": folder,
        "root": "",
        "dataset_config_file": "",
        "config_file": "",
        "resume": "",
        "run": {},
        "opts": [
            *args.opts,
            "INPUT.SIZE",
            str(tuple(cfg.INPUT.SIZE)),
            "TRAINER.NAME",
            ZERO_SHOT,
            "OUTPUT_DIR",
            folder,
        ],
    }
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its log.txt has it
            run(argparse.Namespace(**given))
    except UserError as error:
        log.warning("the report has nothing to compare with: %s", error)
    finally:
        log_to_stdout()
