"""Defaults of a run on one's own images: which CLIP, and which trainer."""

import ast
import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import replace

import torch

from trainers import METHODS, MULTI_LABEL_METHODS
from trainers.common.errors import UserError
from trainers.common.recipes import EMBEDDED, choose_recipe, recipe_path
from trainers.common.record_file import FILE_NAME, read_record
from trainers.engine.checkpoint import MODEL_NAME, load, newest
from trainers.prompting.weights import open_clip_models, openai

from .request import OwnRun
from .task import task_of

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


def completed(run: OwnRun, folders: Iterable[str]) -> tuple[OwnRun, list[str]]:
    """Completes a request by a trainer, a CLIP and the file of a recipe, see ``OwnRun``; returns it
    with sentences that say why these are taken, none where they were given.

    Args:
        folders: where a run may be already that this one goes on with, or tests.

    Raises:
        UserError: the trainer has no recipe, or the images can't work.
    """
    if os.path.isfile(run.recipe):
        return run, []
    recipe = run.recipe
    reasons = []
    if not recipe:
        trainer = run.trainer
        backbone = run.backbone
        for folder in folders:
            known_trainer, known_clip = trainer_and_clip_of(folder)
            if known_trainer in (MULTI_LABEL_METHODS if run.multi_label else METHODS):
                trainer = trainer or known_trainer
            backbone = backbone or known_clip
        if not backbone:
            backbone, why = choose_clip()
            reasons.append(why)
        if not trainer:
            trainer = task_of(run.multi_label).trainer
            reasons.append(
                f"{trainer} is taken, which is fitted in seconds; --trainer takes another"
            )
        run = replace(run, trainer=trainer, backbone=backbone)
        recipe = choose_recipe(trainer, backbone)
    return replace(run, recipe=recipe_path(run.trainer, recipe)), reasons
