"""Prompts that a method's authors released, as a classifier of any class names.

A checkpoint of Dassl's holds no settings. What follows from the shapes of its prompts is taken from
there, and everything else from the trainer's recipe for the CLIP.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from trainers.common.config_files import check_values
from trainers.common.errors import UserError
from trainers.common.recipes import check_known, choose_recipe, fill_config, recipe_path
from trainers.common.record_file import FORMAT, Record
from trainers.common.setting import node_of
from trainers.devices import device_of
from trainers.engine.build import (
    check_pixels,
    check_settings,
    find_method,
    settings_with,
)
from trainers.engine.checkpoint import load_state, read
from trainers.engine.official import (
    LAYOUTS,
    check_state,
    is_official,
    prompts_in,
    trained_names,
)
from trainers.engine.run_record import versions
from trainers.method import Method
from trainers.prompting.backbone import load_backbone
from trainers.texts.classnames import check_names

from .request import Text, checked_names, checked_settings, checked_text

BACKBONE = "ViT-B/16"  # of nearly all checkpoints that were released


def official_classifier(
    checkpoint: Text,
    trainer: str,
    classnames: Iterable[str],
    backbone: Text,
    settings: Mapping[str, object] | None,
) -> tuple[Method, CfgNode, Record]:
    """The parts of a ``PromptedClassifier`` (``PromptedClassifier.from_official``)."""
    path = checked_text("the checkpoint", checkpoint)
    check_known("trainer with official checkpoints", trainer, LAYOUTS)
    names = checked_names(classnames)
    kind = find_method(trainer)
    state = official_state(path, kind)
    given = checked_settings(settings)
    node = f"TRAINER.{trainer.upper()}"
    layout = LAYOUTS[trainer].settings(state)
    named = {f"{node}.{key}": (key, value) for key, value in layout.items()}
    cfg = usual_config(kind, checked_text("the backbone", backbone), named, given)
    check_values(cfg, settings_with(kind))
    clip = load_backbone(cfg.MODEL.BACKBONE.NAME)
    cfg.INPUT.SIZE = (clip.image.image_size, clip.image.image_size)
    check_pixels(cfg, clip)
    cfg.freeze()
    node = check_settings(kind, cfg)
    method = kind(node, names, clip.to(device_of(cfg)))
    trained = trained_names(state, method, path)
    load_state(method, prompts_in(state, method, path), trained, path)
    check_names(method.backbone, names, are_fixed=False)
    return method, cfg, record_of(method, cfg, path)


def official_state(path: str, kind: type[Method]) -> dict[str, Tensor]:
    """The tensors of an official checkpoint by their official names.

    Raises:
        UserError: there is no such file, or it holds something else (``check_state``).
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}: give a checkpoint, such as model.pth.tar-50")
    try:
        content: Any = read(path)
    except UserError as error:
        raise UserError(
            f"{path} can't be read: it is cut, or no checkpoint: download it again"
        ) from error
    if isinstance(content, dict) and "trainer" in content:
        raise UserError(
            f"{path} is of a run of this toolbox, which knows its settings: give the run's folder "
            "to --run, in Python to PromptedClassifier.load"
        )
    if not is_official(content, kind):
        raise UserError(
            f"{path} is no checkpoint as Dassl saves one, with a state_dict, an epoch, an optimizer "
            "and a scheduler: give the file model.pth.tar-<epoch> that the authors released"
        )
    state: dict[str, Tensor] = content["state_dict"]
    check_state(state, kind, path)
    return state


def usual_config(
    kind: type[Method],
    backbone: str,
    given: Mapping[str, tuple[str, object]],
    settings: Mapping[str, object],
    dataset_file: str = "",
) -> CfgNode:
    """Return the config of a method that no run of this toolbox has trained: the recipe for the CLIP, then
    what is given by name, then settings; arguments as in ``fill_config``. No value is checked yet.

    Raises:
        UserError: as ``fill_config``.
    """
    trainer = kind.name()
    cfg = node_of(settings_with(kind))
    recipe = recipe_path(trainer, choose_recipe(trainer, backbone))
    named = {
        "TRAINER.NAME": ("trainer", trainer),
        "MODEL.BACKBONE.NAME": ("backbone", backbone),
        **given,
    }
    fill_config(cfg, dataset_file, recipe, lambda _: {}, named, settings, "settings")
    return cfg


def record_of(method: Method, cfg: CfgNode, path: str) -> Record:
    """Return the known facts of the authors' run, as ``results.json`` has them: nothing was measured here."""
    learnable, total = method.count_parameters()
    known = {"trainer": method.name(), "dataset": os.path.basename(path), "classes": "all"}
    return {
        "format": FORMAT,
        **known,
        "shots": 0,
        "seed": -1,
        "prompts_hash": method.prompts_hash(),
        "backbone_hash": method.towers.backbone_hash,
        "split_hash": "",
        "config": {"MODEL": {"BACKBONE": {"NAME": cfg.MODEL.BACKBONE.NAME}}},
        "metrics": {},
        "classnames": method.classnames,
        "parameters": {"learnable": learnable, "total": total},
        "versions": versions(),
    }
