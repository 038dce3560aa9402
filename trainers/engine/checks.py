"""Checks of settings against each other, the CLIP and the data; the values that a key takes by itself
are declared with it (``common.setting``).

Each raises UserError with the key, its value and the values that it takes.
"""

import logging

from PIL import ImageColor
from yacs.config import CfgNode

from ..common.console import counted
from ..common.errors import UserError
from ..data.images import Images
from ..prompting.backbone import check_clip

log = logging.getLogger(__name__)


def check_run(cfg: CfgNode) -> None:
    """Check the settings that don't belong to a method; each has a value that its key takes. A method's own
    are checked by ``Method.check``."""
    check_clip(cfg.MODEL.BACKBONE.NAME)  # here, before any picture is read
    low, high = cfg.INPUT.RRCROP_SCALE
    if low > high:
        raise UserError(f"INPUT.RRCROP_SCALE is {low, high}, its numbers must rise")
    colour = cfg.INPUT.BACKGROUND
    try:
        ImageColor.getrgb(colour or "white")
    except ValueError:
        raise UserError(
            f"INPUT.BACKGROUND is {colour!r}, it takes a colour such as white or '#f0f0f0', or '' for pictures as they are stored"
        ) from None
    if cfg.TEST.OPEN and cfg.DATASET.SUBSAMPLE_CLASSES != "all":
        raise UserError(
            f"TEST.OPEN compares base and new classes, DATASET.SUBSAMPLE_CLASSES is {cfg.DATASET.SUBSAMPLE_CLASSES!r}: it must be all"
        )


def check_data(cfg: CfgNode, images: Images) -> None:
    """Labels must have no gaps, and the best epoch must not be chosen on test images; suspicious data
    cause warnings."""
    name = cfg.DATASET.NAME
    both = sorted({item.impath for item in images.train_x} & {item.impath for item in images.test})
    if both and not images.is_test_only and not images.is_tested_in_folds:
        log.warning(
            "%s: train and test share %s, such as %s: an accuracy on these is not a test",
            name,
            counted(len(both), "image"),
            both[0],
        )
    highest = max(item.label for item in images.train_x)
    if not images.truth and len(images.classnames) != highest + 1:
        raise UserError(
            f"{name} has labels up to {highest} but {len(images.classnames)} classes: "
            "labels must be 0 … K−1 without gaps"
        )
    has_own = bool(images.val) and not images.validates_on_test_images
    if cfg.TEST.FINAL_MODEL == "best_val" and not has_own:
        raise UserError(
            f"TEST.FINAL_MODEL best_val needs validation images that are not the test's, {name} has none"
        )
