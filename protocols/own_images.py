"""A training on one's own images: which CLIP it takes, and what follows it, the same CLIP without
training, for comparison, and a report."""

import argparse
import contextlib
import io
import logging
import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable

import torch
from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

from trainers.common.console import counted, log_to_stdout
from trainers.common.errors import UserError
from trainers.common.record_file import FILE_NAME, read_record
from trainers.engine.checkpoint import MODEL_NAME, load, newest
from trainers.prompting.weights import openai
from trainers.trainer import MethodTrainer

from .plan import EMBEDDED, choose_recipe, recipe_path

log = logging.getLogger("train")
ZERO_SHOT = "ZeroshotCLIP"
FEW = 10  # images of a class
PROBES = 8  # images of the pass from which a training's time is estimated


def choose_recipe_and_clip(args: argparse.Namespace) -> None:
    """Completes arguments with a recipe where none is given, and a CLIP where neither is: that of the
    run in the folder, else ``choose_clip``'s; ``args.why`` says why.

    Raises:
        UserError: the trainer has no recipe.
    """
    if not args.images or args.config_file:
        return
    for folder in filter(None, (args.model_dir, args.resume, args.output_dir)):
        args.backbone = args.backbone or backbone_of(folder)
    if not args.backbone:
        args.backbone, args.why = choose_clip()
    args.config_file = recipe_path(args.trainer, choose_recipe(args.trainer, args.backbone))


def choose_clip(is_plan: bool = False) -> tuple[str, str]:
    """A CLIP that knows photographs, else, where its weights can't be had, the tiny one; and a sentence
    that says why.

    Args:
        is_plan: its weights are not looked for, nor downloaded.
    """
    name = "ViT-B/32"
    why = "which knows photographs; a small one, since there is no GPU"
    if torch.cuda.is_available():
        name = "ViT-B/16"
        why = "which knows photographs"
    if not is_plan:
        try:
            openai.find(name)
        except UserError as error:
            log.warning("%s", error)
            why = f"for trying: it has seen small drawings only, but the weights of {name} can't be had (the message above says how)"
            name = EMBEDDED
    others = "To choose another: --backbone NAME (tiny, ViT-B/16, RN50 …)"
    return name, f"The CLIP is {name}, {why}. {others}"


def backbone_of(folder: str) -> str:
    """Name of the CLIP of the run in a folder, finished or not; "" where there is none that can be
    read."""
    place = f"{folder}/{MODEL_NAME}"
    with contextlib.suppress(UserError):  # of what is damaged, which is made again
        if checkpoint := newest(place):
            config = load(f"{place}/{checkpoint}")["config"]
            return str(config.get("MODEL.BACKBONE.NAME", "")).strip("'")
        return str(read_record(f"{folder}/{FILE_NAME}")["config"]["MODEL"]["BACKBONE"]["NAME"])
    return ""


def notes_on_classes(data: DatasetBase) -> list[str]:
    """Warns of classes that are too small to say anything of, and of one that is most of the test, and
    returns the warnings."""
    notes = []
    tested = Counter(item.classname for item in data.test)
    images = tested + Counter(item.classname for item in [*data.train_x, *(data.val or ())])
    if few := sum(count < FEW for count in images.values()):
        rarest, least = images.most_common()[-1]
        notes.append(
            f"Fewer than {FEW} images are in {counted(few, 'class')}, such as {rarest} ({least}): an "
            "accuracy there rests on one or two"
        )
    name, count = tested.most_common(1)[0]
    if count > 2 * len(data.test) / len(tested):
        notes.append(
            f"{100 * count / len(data.test):.0f} % of the test images are of {name}: always answering "
            "that is right as often; look at macro F1 and at the accuracy of each class"
        )
    for note in notes:
        log.warning("%s", note)
    return notes


def minutes(trainer: MethodTrainer) -> int:
    """How long a training takes at most: a step costs up to three passes, forward and back, of which
    one is timed."""
    model = trainer.model
    cfg = trainer.cfg
    images = torch.zeros(1, PROBES, 3, *cfg.INPUT.SIZE, device=model.device)
    started = time.perf_counter()
    with torch.no_grad(), model.autocast():
        encoded = model.eval().encode()
        middle = time.perf_counter()
        model.answer(images, encoded)
    image = (time.perf_counter() - middle) / PROBES
    model.train()
    steps = cfg.OPTIM.MAX_EPOCH * len(trainer.train_loader_x)
    shown = cfg.OPTIM.MAX_EPOCH * len(trainer.dm.dataset.train_x) * len(trainer.views) / steps
    taken: int = math.ceil(steps * 3 * (middle - started + shown * image) / 60)
    return taken


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
    for head in sorted(heads, key=lambda head: head["zero_shot_itself"])[:1]:
        others = zip(
            ("chance", "zero-shot", "always the commonest class"),
            (head["chance"], head["zero_shot"], head["commonest"]),
        )
        log.info(
            "Accuracy: %.1f %% of %s (95 %% interval %.1f to %.1f %%); for comparison: %s",
            head["accuracy"],
            counted(head["images"], "test image"),
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
