"""What a run on one's own images takes where nobody says: which CLIP, and which trainer; what the latter
was compared with is kept in the run's folder."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import torch

from ..candidates import TAKEN
from ..common.console import counted
from ..common.errors import UserError
from ..common.files import write_text
from ..common.readers import read_arrays, read_json
from ..common.recipes import EMBEDDED, recipe_path
from ..common.record_file import FILE_NAME, answers_file, read_record
from ..data.loader import folds_of
from ..data.random_state import seed_all
from ..engine.checkpoint import MODEL_NAME, load, newest
from ..engine.folder import CHOICE, folder_of_run
from ..evaluation.doubts import wilson
from ..prompting.weights import openai
from ..run import accuracy
from .own_run import OwnRun, build_run, config_of_images, for_trainer

log = logging.getLogger(__name__)
PROMPTS = "CDCGDA"  # what is trained besides, where there is time for it
TIE = 2.0  # points of accuracy by which prompts have to win


class CandidateRow(TypedDict):
    """How a trainer does, as the record has it.

    Attributes:
        trainer: its name.
        accuracy: in percent; low, high: its 95 % interval (Wilson's); None of what was not trained.
        images: that it answers; seconds: of the fits, or of the training.
        note: what else is to be known, in words.
    """

    trainer: str
    accuracy: float | None
    low: float | None
    high: float | None
    images: int
    seconds: float
    note: str


@dataclass(frozen=True)
class Choice:
    """Which trainer was found to serve one's own images.

    Attributes:
        trainer: its name.
        how: why, or by what it was chosen, in words.
        rows: of those that were compared, if any.
    """

    trainer: str
    how: str
    rows: Sequence[CandidateRow] = ()

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.trainer} was taken, {self.how}"
        figures = []
        for row in self.rows:
            figure = row["trainer"]
            if row["accuracy"] is not None:
                figure += f" {row['accuracy']:.1f} % ({row['low']:.0f} to {row['high']:.0f} %)"
            figures.append(f"{figure}, {row['note']}" if row["note"] else figure)
        start = f"{self.trainer} was chosen by {self.how}; right, with 95 % intervals"
        return f"{start}: {'; '.join(figures)}"

    def keep(self, folder: str) -> None:
        """Writes it into a run's folder."""
        table = {"trainer": self.trainer, "how": self.how, "rows": list(self.rows)}
        write_text(f"{folder}/{CHOICE}", json.dumps(table, indent=2) + "\n")


def noted_choice(choice: Choice | None, folder: str, trainer: str) -> Choice | None:
    """A choice, which is kept in the run's folder; without one that of the run that was begun there."""
    if choice is None:
        return kept_choice(folder, trainer)
    choice.keep(folder)
    return choice


def said(choice: Choice | None) -> tuple[str, Sequence[CandidateRow]]:
    """A choice in words, and its rows; nothing where there was none."""
    return (str(choice), choice.rows) if choice else ("", ())


def kept_choice(folder: str, trainer: str) -> Choice | None:
    """That of a run that was begun in a folder; None where there was none, or it can't be read."""
    try:
        choice = Choice(**read_json(f"{folder}/{CHOICE}"))
        str(choice)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return choice if choice.trainer == trainer else None


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
            why = f"to try things: it has seen small drawings only, but the weights of {name} can't be had (the message above says how)"
            name = EMBEDDED
    return name, f"The CLIP is {name}, {why}."


def trainer_and_clip_of(folder: str) -> tuple[str, str]:
    """Names of the trainer and the CLIP of the run in a folder, finished or not; "" where there is
    none that can be read."""
    place = f"{folder}/{MODEL_NAME}"
    with contextlib.suppress(UserError):  # of what is damaged, which is made again
        if checkpoint := newest(place):
            state = load(f"{place}/{checkpoint}")
            clip = str(state["config"].get("MODEL.BACKBONE.NAME", "")).strip("'")
            return str(state["trainer"]), clip
        record = read_record(f"{folder}/{FILE_NAME}")
        return record["trainer"], record["config"]["MODEL"]["BACKBONE"]["NAME"]
    return "", ""


def completed(run: OwnRun, folders: Iterable[str]) -> tuple[OwnRun, str, Choice | None]:
    """The same with a trainer, a CLIP and the file of a recipe, see ``OwnRun``; a sentence that says
    why this CLIP, "" where none was chosen, and the choice of the trainer, if there was one.

    Args:
        folders: where a run may be already that this one goes on with, or tests.

    Raises:
        UserError: the trainer has no recipe, a recipe has no trainer, or the images can't work.
    """
    if run.minutes and run.trainer:
        raise UserError(
            f"--minutes are for the choice of a trainer, which is {run.trainer}: leave out one of them"
        )
    if run.recipe and run.trainer:
        if not os.path.isfile(run.recipe):
            run = replace(run, recipe=recipe_path(run.trainer, run.recipe))
        return run, "", None
    if run.recipe:
        raise UserError(f"the recipe {run.recipe} is of one trainer: say which")
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
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


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
    low = high = None
    if accuracy is not None:
        low, high = (100 * end for end in wilson(round(accuracy / 100 * images), images))
    return {
        "trainer": trainer,
        "accuracy": accuracy,
        "low": low,
        "high": high,
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

    Their run is made beside the run's folder. Where they win it is the run; else it is kept in it.

    Args:
        choice: so far; known: accuracy in percent of its trainer's run on the validation images.

    Raises:
        UserError: the images can't work.
    """
    kept = f"{run.folder}/{PROMPTS}"
    beside = kept if os.path.isdir(kept) else f"{run.folder.rstrip(os.sep)}-{PROMPTS}"
    trial = for_trainer(replace(run, folder=beside), PROMPTS)
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
        with folder_of_run("the folder", beside):
            seed_all(run.seed)
            build_run(cfg, trial.recipe).make()  # as it was before those steps
    record = read_record(f"{beside}/{FILE_NAME}")
    answers = read_arrays(f"{beside}/{answers_file('val')}")
    right = answers["top"][:, 0] == answers["label"]
    images = len(right)
    found = 100 * float(right.mean())
    choice = with_row(choice, row(PROMPTS, found, images, record["seconds"]["train"]))
    os.makedirs(run.folder, exist_ok=True)
    if found <= known + TIE:
        os.rename(beside, kept)
        return choice
    choice = replace(choice, trainer=PROMPTS)
    facts = {"candidates": choice.rows, "notes": [str(choice), *record.get("notes", ())]}
    write_text(f"{beside}/{FILE_NAME}", json.dumps({**record, **facts}, indent=2) + "\n")
    # the record first: without its prompts, where this is killed, the run is made anew
    for name in sorted(os.listdir(beside), key=lambda name: (name != FILE_NAME, name)):
        os.replace(f"{beside}/{name}", f"{run.folder}/{name}")
    os.rmdir(beside)
    return choice
