"""A training on one's own images: which CLIP and trainer it takes, and what follows it, the same CLIP
without training, for comparison, and a report."""

import argparse
import contextlib
import io
import logging
import os
import shlex
from collections.abc import Callable

from yacs.config import CfgNode

from trainers.classifier.choice import completed
from trainers.classifier.own_run import OwnRun, folds_for
from trainers.common.console import log_to_stdout, show_messages
from trainers.common.errors import UserError
from trainers.common.recipes import choose_recipe, recipe_path

log = logging.getLogger("train")
ZERO_SHOT = "ZeroshotCLIP"
OTHERS = "To choose another: --backbone NAME (tiny, ViT-B/16, RN50 …)"


def choose_what_is_left(args: argparse.Namespace) -> None:
    """Completes arguments with a trainer, a CLIP and a recipe, where they are not given, see
    ``choice.completed``; ``args.why`` says why this CLIP, ``args.choice`` why this trainer.

    Raises:
        UserError: the trainer has no recipe, or a recipe no trainer.
    """
    if not args.images:
        return
    if not (args.trainer and args.config_file):
        choose_trainer_and_clip(args)
    if not args.eval_only:
        args.opts = ["DATASET.FOLDS", str(folds_for(args.trainer)), *args.opts]


def choose_trainer_and_clip(args: argparse.Namespace) -> None:
    """The same, where not both of trainer and recipe are given."""
    if args.config_file:
        raise UserError(f"{args.config_file} is of one trainer: name it with --trainer")
    if args.minutes:
        show_messages()  # of a training that may be made here
    asked = OwnRun(
        images=args.root,
        trainer=args.trainer,
        backbone=args.backbone,
        folder=args.output_dir,
        seed=args.seed,
        minutes=args.minutes,
        settings=dict(zip(args.opts[::2], args.opts[1::2])),
    )
    folders = filter(None, (args.model_dir, args.resume, args.output_dir))
    run, why, args.choice = completed(asked, folders)
    args.trainer = run.trainer
    args.backbone = run.backbone
    args.config_file = run.recipe
    if why:
        args.why = f"{why} {OTHERS}"


def report(
    cfg: CfgNode, args: argparse.Namespace, run: Callable[[argparse.Namespace], object]
) -> None:
    """Writes ``report.html`` into the folder of the run, and says how to go on.

    First the run's CLIP is tested untrained, on the same images: a run of its own in the run's
    folder, which the report finds.

    Args:
        cfg, args: the run's; run: ``protocols.training.run``.
    """
    untrained = {
        "images": "",
        "trainer": ZERO_SHOT,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "output_dir": os.path.join(cfg.OUTPUT_DIR, ZERO_SHOT),
        "config_file": recipe_path(ZERO_SHOT, choose_recipe(ZERO_SHOT, cfg.MODEL.BACKBONE.NAME)),
        "resume": "",
        "run": {},
        "opts": [*args.opts, "INPUT.SIZE", str(tuple(cfg.INPUT.SIZE))],
    }
    if cfg.TRAINER.NAME != ZERO_SHOT and not cfg.TEST.NO_TEST:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # its log.txt has it
                run(argparse.Namespace(**{**vars(args), **untrained}))
        except UserError as error:
            log.warning("the report has nothing to compare with: %s", error)
        finally:
            log_to_stdout()
    # here, since every other run can do without what draws
    from analysis.occlusion import occlusion_figures
    from results.report.page import make_report

    page = os.path.join(cfg.OUTPUT_DIR, "report.html")
    heads = make_report([cfg.OUTPUT_DIR], page, occlusion_figures, cfg.DATASET.ROOT)
    own = [head for head in heads if head["trainer"] == cfg.TRAINER.NAME]
    for head in own[:1]:
        others = zip(
            ("chance", "zero-shot", "always the commonest class"),
            (head["chance"], head["zero_shot"], head["commonest"]),
        )
        log.info(
            "Accuracy: %.1f %% of %s (95 %% interval %.1f to %.1f %%); for comparison: %s",
            head["accuracy"],
            head["of"],
            head["low"],
            head["high"],
            ", ".join(f"{name} {value:.1f} %" for name, value in others if value is not None),
        )
        if head["votes"]:
            log.info("%s", head["votes"])
        if head["warning"]:
            log.warning("%s", head["warning"])
    log.info("Look at the run: %s", page)
    log.info("Label images with: python predict.py --run %s PATH …", shlex.quote(cfg.OUTPUT_DIR))
