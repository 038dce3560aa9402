"""A CLIP as it is, by class names alone: no labelled picture, no training, and no promise."""

from collections.abc import Iterable

from yacs.config import CfgNode

from trainers.common.config_files import CONFIGS, check_values
from trainers.common.recipes import IMAGE_FOLDER, choose_recipe, fill_config, recipe_path
from trainers.common.record_file import Record
from trainers.common.setting import node_of
from trainers.engine.build import find_method, settings_with, take_pixels
from trainers.engine.saved_run import method_of
from trainers.method import Method
from trainers.texts.classnames import check_names

from .defaults import choose_clip
from .official_prompts import record_of
from .request import Text, checked_names, text

TRAINER = "ZeroshotCLIP2"  # several sentences for each name: "a photo of the large {}." and others


def zero_shot_classifier(
    classnames: Iterable[str], backbone: Text | None
) -> tuple[Method, CfgNode, Record, str]:
    """What ``PromptedClassifier`` is made of, see ``PromptedClassifier.zero_shot``; and a sentence that
    says why this CLIP is taken, "" where it was given."""
    names = checked_names(classnames)
    clip = text("the backbone", backbone)
    why = ""
    if not clip:
        clip, why = choose_clip()
    kind = find_method(TRAINER)
    known = settings_with(kind)
    cfg = node_of(known)
    recipe = recipe_path(TRAINER, choose_recipe(TRAINER, clip))
    given: dict[str, tuple[str, object]] = {
        "TRAINER.NAME": ("trainer", TRAINER),
        "MODEL.BACKBONE.NAME": ("backbone", clip),
    }
    pictures = f"{CONFIGS}/datasets/{IMAGE_FOLDER}.yaml"
    fill_config(cfg, pictures, recipe, lambda _: {}, given, {})
    take_pixels(cfg, ())
    check_values(cfg, known)
    cfg.freeze()
    method = method_of(cfg, names)
    check_names(method.backbone, names, are_fixed=False)
    return method, cfg, record_of(method, cfg, "class names alone"), why
