"""A run on one's own images without Dassl and without a command: its config, and how it is built."""

from dataclasses import replace
from pathlib import Path

import torchvision.transforms as T
from yacs.config import CfgNode

from trainers.common.config_files import CONFIGS, check_values
from trainers.common.errors import blaming_config
from trainers.common.recipes import (
    IMAGE_FOLDER,
    choose_recipe,
    fill_config,
    recipe_path,
    usual_experiment,
)
from trainers.common.setting import node_of
from trainers.data.images import Images
from trainers.data.kept import Kept
from trainers.data.loader import make_loaders
from trainers.data.transforms import steps_of_training, template_views
from trainers.engine.build import (
    build_method,
    check_settings,
    device_of,
    find_method,
    settings_with,
    take_pixels,
)
from trainers.engine.checks import check_data, check_run
from trainers.engine.run import Run
from trainers.prompting.backbone import Backbone
from trainers.texts.classnames import check_names
from trainers.texts.descriptions import note_content

from .own_images import own_images, warned
from .request import OwnRun
from .table import read_table
from .task import Task


def config_of_images(run: OwnRun) -> CfgNode:
    """The config of a run whose trainer and recipe are known, the latter as a file.

    Raises:
        UserError: see ``fill_config``.
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
    """A run by a trainer, with its recipe for the CLIP, of all else that is asked for."""
    recipe = recipe_path(trainer, choose_recipe(trainer, run.backbone))
    return replace(run, trainer=trainer, recipe=recipe)


def build_run(
    cfg: CfgNode,
    task: Task,
    recipe: str,
    images: Images | None = None,
    backbone: Backbone | None = None,
    *,
    can_fold: bool = True,
) -> Run:
    """The run of a config on one's own images, ready to be made.

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
    is_quick = kind.fits_features or not kind.learns
    if images is None:
        kept = Kept(cfg.INPUT, cfg.INPUT.BACKGROUND, has_crops=not is_quick)
        table = read_table(cfg.DATASET.ROOT, task.multi_label)
        images = own_images(table, task, cfg, can_fold and is_quick, kept)
    check_data(cfg, images)
    device = device_of(cfg)
    method = build_method(kind, cfg, images.classnames, device, backbone)
    features = None
    if is_quick and images.kept is not None:  # the image encoder is CLIP's own
        features = images.kept.features[method.towers.key]
    loaders = make_loaders(cfg, images, views, T.Compose(steps), features)
    with blaming_config():
        run = Run(cfg, loaders, method)
    notes = check_names(
        method.backbone, method.classnames, are_fixed=False, are_seen=method.tells_by_images
    )
    notes = [*notes, *images.notes, *warned(task.notes_on_classes(images))]
    run.evaluation.note_run({"recipe": Path(recipe).stem}, notes)
    return run
