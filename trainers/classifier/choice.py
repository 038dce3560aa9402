"""What a run on one's own images takes where nobody says: which CLIP, and which trainer serves the
images; the table of the latter is kept in the run's folder."""

import ast
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy
import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from ..candidates import (
    CANDIDATES,
    FOLDS,
    TIE,
    Candidate,
    Known,
    answer,
    best,
    compare,
    fit_as_run,
    on_features,
)
from ..classnames import check_names
from ..common.console import counted, first_few, package_logger
from ..common.errors import UserError
from ..common.files import write_arrays, write_text
from ..common.readers import read_json
from ..common.recipes import EMBEDDED, recipe_path
from ..common.record_file import FILE_NAME, read_answers, read_record
from ..data.loader import CheckedImages, Pairs, groups_of, make_loader
from ..data.own_images import OwnImages
from ..data.random_state import seed_all
from ..data.transforms import pixels_of_test
from ..engine.checkpoint import MODEL_NAME, load, newest
from ..engine.folder import CHOICE, MARKS, OF_TRAINING, folder_of_run
from ..evaluation.doubts import wilson
from ..evaluation.prediction import per_image, percent_right
from ..prompting.weights import open_clip_models, openai
from .asked import OwnRun
from .own_run import build_run, config_of_images, for_trainer
from .saved_run import method_of

log = logging.getLogger(__name__)
OTHERS = "To choose another: --backbone NAME (tiny, ViT-B/16, RN50 …)"
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
PROMPTS = "CDCGDA"  # what is trained besides the candidates, where there is time for it


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
        how: by what it was chosen, in words.
        rows: of those that were compared.
        answers: to the training images, each by the trainer as it was fitted without its fold, see
            ``per_image``; None where there are none, or all images are tested so.
    """

    trainer: str
    how: str
    rows: Sequence[CandidateRow]
    answers: dict[str, numpy.ndarray] | None = field(default=None, repr=False)

    def __str__(self) -> str:
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
        if self.answers is None:  # another choice's would pass for this one's
            Path(folder, OF_TRAINING).unlink(missing_ok=True)
        else:
            write_arrays(f"{folder}/{OF_TRAINING}", self.answers)
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
    """That of a run that was begun in a folder; None where there was none, it can't be read, or it is
    not what the finished run there was chosen from."""
    path = f"{folder}/{FILE_NAME}"
    try:
        choice = Choice(**read_json(f"{folder}/{CHOICE}"))
        str(choice)
        known = read_record(path).get("candidates") if os.path.isfile(path) else choice.rows
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return choice if choice.trainer == trainer and known == choice.rows else None


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
    """The same with a trainer, a CLIP and the file of a recipe, see ``OwnRun``; a sentence that says
    why this CLIP, "" where none was chosen, and the choice of the trainer, if there was one.

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
    """The best of the ``candidates`` or, if they win where ``run.minutes`` leave time for them, prompts.

    Each training and validation image is encoded once; the test's are not looked at, unless there
    are so few that all are tested in folds.

    run: with a CLIP; its settings of trainers are left out.

    Raises:
        UserError: the images can't work.
    """
    started = time.monotonic()
    settings = {key: value for key, value in run.settings.items() if not key.startswith("TRAINER.")}
    plain = replace(run, folder="", settings=settings)

    def config(trainer: str) -> CfgNode:
        return config_of_images(for_trainer(plain, trainer))

    def settings_of_candidate(trainer: str) -> CfgNode:
        return config(trainer).TRAINER[trainer.upper()]

    cfg = config(CANDIDATES[0])
    with quietly():
        images = OwnImages(run.images, cfg)
        items = [*images.train_x, *images.val]
        method = method_of(cfg, images.classnames)
        check_names(method.backbone, images.classnames, are_fixed=False, are_seen=True)
        loader = make_loader(cfg, CheckedImages(cfg, items, pixels_of_test(cfg.INPUT)))
        pairs = tqdm(
            Pairs(loader, method.device), "Looking at the images", mininterval=1, dynamic_ncols=True
        )
        features, labels = method.features_of(pairs)
        table = compare(
            method.backbone,
            images.classnames,
            features[0],
            labels,
            settings_of_candidate,
            run.seed,
            groups_of(images, items),
        )
    found = best(table)
    noun = "image" if images.folds else "training and validation image"
    choice = Choice(
        found.trainer,
        f"{FOLDS}-fold cross-validation on {counted(len(items), noun)}",
        [row_of(each) for each in table],
        None
        if images.folds
        else answers_to(found, [item.impath for item in images.train_x], labels),
    )
    if not run.minutes:
        return choice
    left = run.minutes - (time.monotonic() - started) / 60
    if images.folds or not images.val:
        why = "fewer than 100 images" if images.folds else "no validation images to compare on"
        return with_row(choice, row(PROMPTS, note=f"not trained: {why}"))
    number = len(images.train_x)
    every = Known(features, features[0], labels)
    places = torch.arange(len(labels), device=labels.device)
    fitted = on_features(
        found.trainer, settings_of_candidate(found.trainer), images.classnames, method.backbone
    )
    fit_as_run(fitted, every.part(places < number), every.part(places >= number))
    known = answer(fitted, features[0][number:]).probability.argmax(dim=1)
    return try_prompts(run, choice, left, percent_right(known, labels[number:].cpu()))


def answers_to(
    candidate: Candidate, paths: Sequence[str], labels: Tensor
) -> dict[str, numpy.ndarray]:
    """A candidate's answers to the first of the images, as files of answers have them."""
    first = torch.arange(len(paths))
    return per_image(candidate.answers.part(first), labels.cpu()[first], paths)


def row_of(candidate: Candidate) -> CandidateRow:
    """A candidate's row, see ``Choice``."""
    return row(
        candidate.trainer,
        candidate.accuracy,
        len(candidate.answers.probability),
        candidate.seconds,
    )


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
    validation images than the best candidate, by more than ``TIE``.

    Their run is made in the run's folder, in one called like them, and kept there. Where they win it
    takes the place of the run.

    Args:
        choice: so far; known: accuracy in percent of its trainer, fitted as its run will be, on the
            validation images.

    Raises:
        UserError: the images can't work, or somebody's files are where theirs would go.
    """
    kept = f"{run.folder}/{PROMPTS}"
    check_free(run.folder)
    if trainer_and_clip_of(kept)[0] != PROMPTS:
        check_free(kept, tuple(MARKS))
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
            build_run(cfg, trial.recipe).make()  # as it was before those steps
    record = read_record(f"{kept}/{FILE_NAME}")
    answers = read_answers(kept, "val", record)
    right = answers["top"][:, 0] == answers["label"]
    images = len(right)
    accuracy = 100 * float(right.mean())
    note = f"on the {counted(images, 'validation image')}, {choice.trainer} {known:.1f} % there"
    seconds = record["seconds"]["train"]
    choice = with_row(choice, row(PROMPTS, accuracy, images, seconds, note))
    if accuracy <= known + TIE:
        return choice
    choice = replace(choice, trainer=PROMPTS, answers=None)
    facts = {"candidates": choice.rows, "notes": [str(choice), *record.get("notes", ())]}
    write_text(f"{kept}/{FILE_NAME}", json.dumps({**record, **facts}, indent=2) + "\n")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(f"{run.folder}/{MODEL_NAME}")  # which holds nothing, see ``check_free``
    # the record first: without its prompts, where this is killed, the run is made anew
    for name in sorted(os.listdir(kept), key=lambda name: (name != FILE_NAME, name)):
        os.replace(f"{kept}/{name}", f"{run.folder}/{name}")
    os.rmdir(kept)
    return choice


def check_free(folder: str, others: Sequence[str] | None = None) -> None:
    """Nothing may be where a run would put its record or its prompts.

    Args:
        others: names of files that a run leaves before these, the only ones that may be there; None:
            whatever else there is is left alone.

    Raises:
        UserError: something is, and it is no run that can be read.
    """
    taken = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = f"{folder}/{name}"
        if name == MODEL_NAME and os.path.isdir(path):
            # of a run that was killed while it wrote its first checkpoint
            is_free = all(inner.endswith(".unfinished") for inner in os.listdir(path))
        elif name in (FILE_NAME, MODEL_NAME):
            is_free = False
        else:
            is_free = others is None or name in others
        if not is_free:
            taken.append(name)
    if taken:
        raise UserError(
            f"{folder} holds {first_few(taken)}, but no run that can be read: move it away, or give another output "
            "folder"
        )
