"""A whole run on one's own images, without Dassl and without a command."""

import logging
import os
from dataclasses import replace

from ..common.console import show_messages
from ..common.errors import UserError
from ..data.random_state import seed_all
from ..engine.folder import folder_of_run
from .choice import completed, noted_choice, said
from .own_run import OwnRun, amount, build_run, config_of_images

log = logging.getLogger(__name__)


def fit_folder(asked: OwnRun) -> None:
    """Makes the run of a folder of class folders, if it is not done.

    Raises:
        UserError: the input can't work.
    """
    images = asked.images
    folder = asked.folder
    if not os.path.isdir(images):
        raise UserError(
            f"{images} is not a folder: give the one that holds the class folders, or train and test"
        )
    if os.path.abspath(folder).startswith(os.path.join(images, "")):
        raise UserError(
            f"the run would go to {folder}, which lies in {images}, where it passes for a class: give another folder"
        )
    if not 0 <= asked.seed < 2**32:
        raise UserError(f"the seed is {asked.seed}, it must be 0 or more and below {2**32}")
    show_messages()
    named = str(asked.settings.get("MODEL.BACKBONE.NAME", ""))
    asked, why, choice = completed(replace(asked, backbone=asked.backbone or named), [folder])
    cfg = config_of_images(asked)
    with folder_of_run("the folder", folder):
        seed_all(asked.seed)
        log.info(
            "Your images: %s, %s, recipe %s, results in %s",
            images,
            amount(cfg.DATASET.NUM_SHOTS),
            asked.recipe,
            folder,
        )
        choice = noted_choice(choice, folder, asked.trainer)
        for sentence in filter(None, (why, choice)):
            log.info("%s", sentence)
        run = build_run(cfg, asked.recipe, *said(choice))
        run.log_images()
        if run.is_done():
            log.info(
                "Done already: %s; to train again, delete that folder, or give another", folder
            )
            return
        run.say_minutes()
        run.make()
