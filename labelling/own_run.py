"""A run on one's own images without Dassl and without a command: its trainer and CLIP where none are named, its
config, and how it is built."""

import ast
import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
import torchvision.transforms as T
from torch import Tensor
from yacs.config import CfgNode

from trainers import METHODS, MULTI_LABEL_METHODS
from trainers.common.config_files import CONFIGS, check_values
from trainers.common.errors import UserError, blaming_config
from trainers.common.recipes import (
    EMBEDDED,
    IMAGE_FOLDER,
    choose_recipe,
    fill_config,
    recipe_path,
    usual_experiment,
)
from trainers.common.record_file import RECORD_FILE, read_record
from trainers.common.setting import node_of
from trainers.data.images import Images
from trainers.data.kept import PictureCache
from trainers.data.loader import make_loaders
from trainers.data.transforms import steps_of_training, template_views
from trainers.devices import AUTO, device_of
from trainers.engine.build import (
    build_method,
    check_settings,
    find_method,
    settings_with,
    take_pixels,
)
from trainers.engine.checkpoint import MODEL_NAME, load, newest
from trainers.engine.checks import check_data, check_run
from trainers.engine.run import Run
from trainers.prompting.backbone import Backbone
from trainers.prompting.weights import open_clip_models, openai
from trainers.texts.classnames import check_names
from trainers.texts.descriptions import note_content

from .own_images import log_warnings, own_images
from .request import OwnRun
from .seen import read_seen
from .table import read_table
from .task import Task, task_of

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


def choose_clip(device: str = AUTO, is_plan: bool = False) -> tuple[str, str]:
    """Return the name of the CLIP to take, and a sentence that says why.

    It is OpenAI's, which papers use, or weights of the same size that are more accurate, if they are in
    the cache. It is the tiny CLIP, which knows no photographs, if OpenAI's can't be downloaded.

    Args:
        device: the name of the device that computes.
        is_plan: OpenAI's weights are neither looked for nor downloaded.
    """
    name = "ViT-B/32"
    why = "which knows photographs; a small one, since no GPU computes"
    has_gpu = torch.cuda.is_available() if device == AUTO else not device.startswith("cpu")
    if has_gpu:
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
        record = read_record(f"{folder}/{RECORD_FILE}")
        return record["trainer"], record["config"]["MODEL"]["BACKBONE"]["NAME"]
    return "", ""


def complete(run: OwnRun, folders: Iterable[str]) -> tuple[OwnRun, list[str]]:
    """Completes a request by a trainer, a CLIP and the file of a recipe (``OwnRun``); returns it
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
            backbone, why = choose_clip(str(run.settings.get("DEVICE", AUTO)))
            reasons.append(why)
        if not trainer:
            trainer = task_of(run.multi_label).trainer
            reasons.append(
                f"{trainer} is taken, which is fitted in seconds; --trainer takes another"
            )
        run = replace(run, trainer=trainer, backbone=backbone)
        recipe = choose_recipe(trainer, backbone)
    return replace(run, recipe=recipe_path(run.trainer, recipe)), reasons


def config_of_images(run: OwnRun) -> CfgNode:
    """The config of a run whose trainer and recipe are known, the latter as a file.

    Raises:
        UserError: as ``fill_config``.
    """
    method = find_method(run.trainer, run.multi_label)
    settings = settings_with(method)
    cfg = node_of(settings)
    given: dict[str, tuple[str, object]] = {
        "DATASET.ROOT": ("images", run.images),
        "TRAINER.NAME": ("trainer", run.trainer),
        "OUTPUT_DIR": ("folder", run.folder),
        "SEED": ("seed", run.seed),
    }
    if run.backbone:
        given["MODEL.BACKBONE.NAME"] = ("backbone", run.backbone)
    options = {"DATASET.NUM_SHOTS": run.shots, **run.settings}

    def conditions(cfg: CfgNode) -> dict[str, object]:
        shots = cfg.DATASET.NUM_SHOTS
        return {"protocol": usual_experiment(cfg), "dataset": IMAGE_FOLDER, "shots": shots}

    fill_config(
        cfg,
        f"{CONFIGS}/datasets/{IMAGE_FOLDER}.yaml",
        run.recipe,
        conditions,
        given,
        options,
        "settings",
    )
    take_pixels(cfg, options)
    check_values(cfg, settings)
    note_content(cfg)
    cfg.freeze()
    return cfg


def for_trainer(run: OwnRun, trainer: str) -> OwnRun:
    """Return the request for another trainer, with its recipe for the CLIP."""
    recipe = recipe_path(trainer, choose_recipe(trainer, run.backbone))
    return replace(run, trainer=trainer, recipe=recipe)


def build_run(
    cfg: CfgNode,
    task: Task,
    recipe: str,
    images: Images | None,
    backbone: Backbone | None,
    can_fold: bool,
) -> Run:
    """Return the run of a config on one's own images, ready to be made.

    Args:
        task: what it learns; recipe: its file; images: of another run, which this one takes, too; None: those of
            ``DATASET.ROOT``.
        backbone: of another run of the same CLIP; None: it is loaded.
        can_fold: whether training images may be tested in folds, where that takes no training per fold.

    Raises:
        UserError: the config or the images can't work.
    """
    kind = find_method(cfg.TRAINER.NAME, task.multi_label)
    settings = check_settings(kind, cfg)
    check_run(cfg)
    with blaming_config():
        steps = steps_of_training(cfg)
        views = template_views(steps, cfg.INPUT, *kind.views(settings))
    is_quick = not kind.learns_in_epochs
    if images is None:
        kept = PictureCache(cfg.INPUT, cfg.INPUT.BACKGROUND, has_crops=not is_quick)
        read_seen(cfg.OUTPUT_DIR, kept)
        table = read_table(cfg.DATASET.ROOT, task.multi_label, cfg.DATASET.BOXES)
        images = own_images(table, task, cfg, can_fold and is_quick, kept)
    check_data(cfg, images)
    device = device_of(cfg)
    method = build_method(kind, cfg, images.classnames, device, backbone)
    features: dict[str, Tensor] = {}
    if is_quick and images.kept is not None:  # the image encoder is CLIP's own
        features = images.kept.features[method.towers.key]
    loaders = make_loaders(cfg, images, views, T.Compose(steps), features)
    with blaming_config():
        run = Run(cfg, loaders, method)
    notes = check_names(
        method.backbone, method.classnames, are_fixed=False, are_seen=method.tells_by_images
    )
    notes = [*notes, *images.notes, *log_warnings(task.notes_on_classes(images))]
    run.evaluation.note_run({"recipe": Path(recipe).stem}, notes)
    return run
