"""What a run on one's own images takes where nobody says: which CLIP, and which trainer."""

import ast
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from trainers.common.console import counted, package_logger
from trainers.common.errors import UserError
from trainers.common.files import check_folder, write_text
from trainers.common.recipes import EMBEDDED, recipe_path
from trainers.common.record_file import FILE_NAME, read_answers, read_record
from trainers.data.loader import folds_of
from trainers.data.random_state import seed_all
from trainers.engine.checkpoint import MODEL_NAME, load, newest
from trainers.engine.folder import MARKS, folder_of_run
from trainers.engine.run import accuracy
from trainers.evaluation.figures import wilson
from trainers.learners.candidates import TAKEN
from trainers.prompting.weights import open_clip_models, openai

from .chosen import CandidateRow, Choice
from .own_run import build_run, config_of_images, for_trainer
from .request import OwnRun

log = logging.getLogger(__name__)
OTHERS = "To choose another: --backbone NAME (tiny, ViT-B/16, RN50 …)"
PROMPTS = "CDCGDA"  # what is trained besides, where there is time for it
TIE = 2.0  # points of accuracy by which prompts have to win
# OpenAI's → OpenCLIP's of the same towers, where the hub has them, and how they do by open_clip's own
# table of results
BETTER = {
    "ViT-B/32": (
        "open_clip:ViT-B-32/datacomp_xl_s13b_b90k",
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "69.2 % zero-shot on ImageNet, where OpenAI's ViT-B/32 has 63.3",
    ),
    "ViT-B/16": (
        "open_clip:ViT-B-16/datacomp_xl_s13b_b90k",
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "73.5 % zero-shot on ImageNet, where OpenAI's ViT-B/16 has 68.3",
    ),
}


def choose_clip(is_plan: bool = False) -> tuple[str, str]:
    """A CLIP that knows photographs, else, where its weights can't be had, the tiny one; and a sentence
    that says why. OpenAI's, whose prompts compare with those of papers, unless weights of the same
    towers that know more are in the cache.

    Args:
        is_plan: its weights are not looked for, nor downloaded.
    """
    name = "ViT-B/32"
    why = "which knows photographs; a small one, since there is no GPU"
    if torch.cuda.is_available():
        name = "ViT-B/16"
        why = "which knows photographs"
    better, repository, accuracies = BETTER[name]
    advice = f"A better one of {name}'s cost: pip install open_clip_torch, then --backbone {better} ({accuracies})."
    if open_clip_models.is_cached(repository):
        return better, f"The CLIP is {better}, {why} ({accuracies})."
    if not is_plan:
        try:
            openai.find(name)
        except UserError as error:
            log.warning("%s", error)
            why = f"to try things: it has seen small drawings only, but the weights of {name} can't be had (the message above says how)"
            name = EMBEDDED
    return name, f"The CLIP is {name}, {why}. {advice} {OTHERS}"


def trainer_and_clip_of(folder: str) -> tuple[str, str]:
    """Names of the trainer and the CLIP of the run in a folder, finished or not; "" where there is
    none that can be read."""
    place = f"{folder}/{MODEL_NAME}"
    # what is damaged is made again
    with contextlib.suppress(UserError, KeyError, ValueError, SyntaxError):
        if checkpoint := newest(place):
            state = load(f"{place}/{checkpoint}")
            clip = ast.literal_eval(state["config"]["MODEL.BACKBONE.NAME"])
            return str(state["trainer"]), str(clip)
        record = read_record(f"{folder}/{FILE_NAME}")
        return record["trainer"], record["config"]["MODEL"]["BACKBONE"]["NAME"]
    return "", ""


def completed(run: OwnRun, folders: Iterable[str]) -> tuple[OwnRun, str, Choice | None]:
    """Completes what is asked for by a trainer, a CLIP and the file of a recipe, see ``OwnRun``; a
    sentence that says why this CLIP, "" where none was chosen, and the choice of the trainer, if there was one.

    Args:
        folders: where a run may be already that this one goes on with, or tests.

    Raises:
        UserError: the trainer has no recipe, or the images can't work.
    """
    if run.recipe:
        if not os.path.isfile(run.recipe):
            run = replace(run, recipe=recipe_path(run.trainer, run.recipe))
        return run, "", None
    trainer = run.trainer
    backbone = run.backbone
    for folder in folders:
        known_trainer, known_clip = trainer_and_clip_of(folder)
        trainer = trainer or known_trainer
        backbone = backbone or known_clip
    why = ""
    choice = None
    if not backbone:
        backbone, why = choose_clip()
    run = replace(run, backbone=backbone)
    if not trainer:
        choice = choose_trainer(run)
        trainer = choice.trainer
    return for_trainer(run, trainer), why, choice


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what the run itself says of its images, as a warning or less."""
    package = package_logger()
    before = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(before)


def choose_trainer(run: OwnRun) -> Choice:
    """``TAKEN`` or, if they win where ``run.minutes`` leave time for them, prompts.

    run: with a CLIP.

    Raises:
        UserError: the images can't work.
    """
    if not run.minutes:
        return Choice(TAKEN, "which is fitted in seconds; --trainer takes another")
    started = time.monotonic()
    settings = {key: value for key, value in run.settings.items() if not key.startswith("TRAINER.")}
    plain = for_trainer(replace(run, folder="", settings=settings), TAKEN)
    seed_all(run.seed)
    with quietly():
        made = build_run(config_of_images(plain), plain.recipe)
        validation = made.loaders.own_val
        if folds_of(made.loaders.images) or validation is None:
            few = "fewer than 100 images, all of which are trained on"
            why = few if folds_of(made.loaders.images) else "no validation images"
            return Choice(TAKEN, f"and {PROMPTS} is not compared with it: there are {why}")
        made.fit_in_folds()
        answers, labels, _ = made.evaluation.answers(validation, "val")
    right = accuracy("val", answers, labels)
    seconds = time.monotonic() - started
    found = row(TAKEN, right, len(labels), seconds)
    choice = Choice(TAKEN, counted(len(labels), "validation image"), [found])
    return try_prompts(run, choice, run.minutes - seconds / 60, right)


def row(
    trainer: str,
    accuracy: float | None = None,
    images: int = 0,
    seconds: float = 0.0,
    note: str = "",
) -> CandidateRow:
    interval: tuple[float, float] | None = None
    if accuracy is not None:
        interval = wilson(round(accuracy / 100 * images), images)
    return {
        "trainer": trainer,
        "accuracy": accuracy,
        "low": 100 * interval[0] if interval else None,
        "high": 100 * interval[1] if interval else None,
        "images": images,
        "seconds": round(seconds, 2),
        "note": note,
    }


def with_row(choice: Choice, further: CandidateRow) -> Choice:
    """A choice with one more row."""
    return replace(choice, rows=[*choice.rows, further])


def try_prompts(run: OwnRun, choice: Choice, minutes: float, known: float) -> Choice:
    """Trains prompts, if the minutes are enough for that, and takes them if they are right on more
    validation images than ``TAKEN``, by more than ``TIE``.

    Their run is made in the run's folder, in one called like them, and kept there. Where they win it
    takes the place of the run.

    Args:
        choice: so far; known: accuracy in percent of its trainer's run on the validation images.

    Raises:
        UserError: the images can't work, or somebody's files are where theirs would go.
    """
    kept = f"{run.folder}/{PROMPTS}"
    check_folder("the output folder", run.folder, MARKS)
    check_folder("the output folder", f"{run.folder}/{MODEL_NAME}", {}, others=())
    if trainer_and_clip_of(kept)[0] != PROMPTS:
        check_folder("the output folder", kept, MARKS, others=[MODEL_NAME])
        check_folder("the output folder", f"{kept}/{MODEL_NAME}", {}, others=())
    trial = for_trainer(replace(run, folder=kept), PROMPTS)
    cfg = config_of_images(trial)
    seed_all(run.seed)
    with quietly():
        made = build_run(cfg, trial.recipe)
    if not made.is_done():
        needed = made.timed_minutes()
        estimate = f"it would take about {needed:.1f} minutes, {max(0.0, minutes):.1f} are left"
        log.info("%s, by steps that were timed: %s", PROMPTS, estimate)
        if needed > minutes:
            return with_row(choice, row(PROMPTS, note=f"not trained: {estimate}"))
        with folder_of_run("the folder", kept):
            seed_all(run.seed)
            # as it was before those steps
            build_run(cfg, trial.recipe, known=made.loaders.images).make()
    record = read_record(f"{kept}/{FILE_NAME}")
    answers = read_answers(kept, "val", record)
    right = answers["top"][:, 0] == answers["label"]
    images = len(right)
    found = 100 * float(right.mean())
    choice = with_row(choice, row(PROMPTS, found, images, record["seconds"]["train"]))
    if found <= known + TIE:
        return choice
    choice = replace(choice, trainer=PROMPTS)
    facts = {"candidates": choice.rows, "notes": [str(choice), *record.get("notes", ())]}
    write_text(f"{kept}/{FILE_NAME}", json.dumps({**record, **facts}, indent=2) + "\n")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(f"{run.folder}/{MODEL_NAME}")  # which holds nothing, see above
    # the record first: without its prompts, where this is killed, the run is made anew
    for name in sorted(os.listdir(kept), key=lambda name: (name != FILE_NAME, name)):
        os.replace(f"{kept}/{name}", f"{run.folder}/{name}")
    os.rmdir(kept)
    return choice
