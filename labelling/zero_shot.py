"""A CLIP as it is, by class names alone: no labelled picture, no training, and no promise."""

from collections.abc import Iterable

from yacs.config import CfgNode

from trainers.common.config_files import CONFIGS, check_values
from trainers.common.recipes import IMAGE_FOLDER
from trainers.common.record_file import MULTI_LABEL, Record
from trainers.engine.build import find_method, settings_with, take_pixels
from trainers.engine.saved_run import method_of
from trainers.method import Method
from trainers.texts.classnames import check_names

from .official_prompts import record_of, usual_config
from .own_run import choose_clip
from .request import Text, checked_names, checked_text

# several sentences for each name, "a photo of the large {}." and others; of multi-label pictures one
TRAINERS = {False: "ZeroshotCLIP2", True: "ZeroshotCLIP"}


def zero_shot_classifier(
    classnames: Iterable[str],
    backbone: Text | None,
    multi_label: bool,
    device: str,
) -> tuple[Method, CfgNode, Record, str]:
    """Return the parts of ``PromptedClassifier.zero_shot``, and a sentence that
    says why this CLIP is taken, "" where it was given."""
    names = checked_names(classnames)
    clip = checked_text("the backbone", backbone)
    why = ""
    if not clip:
        clip, why = choose_clip(device)
    kind = find_method(TRAINERS[multi_label], multi_label)
    pictures = f"{CONFIGS}/datasets/{IMAGE_FOLDER}.yaml"
    cfg = usual_config(kind, clip, {"DEVICE": ("device", device)}, {}, pictures)
    take_pixels(cfg, ())
    check_values(cfg, settings_with(kind))
    cfg.freeze()
    method = method_of(cfg, names, multi_label)
    check_names(method.backbone, names, are_fixed=False)
    record = record_of(method, cfg, "class names alone")
    if multi_label:
        record["task"] = MULTI_LABEL
    return method, cfg, record, why
