"""A run on one's own images without Dassl and without a command: which CLIP, trainer and recipe it
takes, and how it is built."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torchvision.transforms as T
from tqdm import tqdm
from yacs.config import CfgNode

from .. import config_function
from ..build import settings_of
from ..candidates import CANDIDATES, FOLDS, best, compare
from ..classnames import check_names
from ..common.config_files import CONFIGS, check_values
from ..common.console import counted, show_messages
from ..common.errors import UserError
from ..common.recipes import (
    EMBEDDED,
    IMAGE_FOLDER,
    SHOTS,
    choose_recipe,
    fill_config,
    recipe_path,
    usual_experiment,
)
from ..common.record_file import FILE_NAME, read_record
from ..data.loader import Images, Pairs, folds_of, make_loader, make_loaders
from ..data.own_images import OwnImages
from ..data.random_state import seed_all
from ..data.transforms import pixels_of_test, steps_of_training, template_views
from ..descriptions import note_content
from ..engine.checkpoint import MODEL_NAME, load, newest
from ..engine.checks import check_data, check_run
from ..engine.folder import folder_of_run
from ..prompting.weights import openai
from ..run import Run
from ..settings import run_config
from .saved_run import find_method, method_of

log = logging.getLogger(__name__)
FEW = 10  # images of a class


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


def amount(shots: int) -> str:
    """How many images are trained on, in words; shots: of each class, below 1 all."""
    return f"up to {shots} training images per class" if shots >= 1 else "all training images"


@dataclass(frozen=True)
class OwnRun:
    """What is asked for of a run on a folder of class folders.

    Attributes:
        images: the folder, an absolute path.
        trainer: "": that of the run that there is, else ``choose_trainer``'s.
        backbone: name of a CLIP; "": the recipe's if one is given, else that of the run that there
            is, else ``choose_clip``'s.
        recipe: name of one of the trainer's, or a file; "": that for the CLIP.
        folder: where the run goes.
        shots: training images of each class, at most; below 1 all.
        seed: of the sample and the training.
        settings: KEY → value over all others.
    """

    images: str
    trainer: str = ""
    backbone: str = ""
    recipe: str = ""
    folder: str = ""
    shots: int = SHOTS
    seed: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)


def config_of_images(run: OwnRun) -> CfgNode:
    """The config of a run whose trainer and recipe are known, the latter as a file.

    Raises:
        UserError: see ``fill_config``.
    """
    cfg = run_config()
    config_function(run.trainer)(cfg)
    defaults = cfg.clone()
    given: dict[str, tuple[str, object]] = {
        "DATASET.ROOT": ("images", run.images),
        "TRAINER.NAME": ("trainer", run.trainer),
        "OUTPUT_DIR": ("folder", run.folder),
        "SEED": ("seed", run.seed),
    }
    if folds := folds_for(run.trainer):
        given["DATASET.FOLDS"] = ("folds", folds)
    if run.backbone:
        given["MODEL.BACKBONE.NAME"] = ("backbone", run.backbone)
    options = ["DATASET.NUM_SHOTS", run.shots]
    for key, value in run.settings.items():
        options += [key, value]

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
    check_values(cfg, defaults)
    note_content(cfg)
    cfg.freeze()
    return cfg


def folds_for(trainer: str) -> int:
    """In how many folds all of few images are tested: prompts would take as many trainings, they are
    tested on a part that is held out, 0."""
    return FOLDS if trainer in CANDIDATES else 0


def for_trainer(run: OwnRun, trainer: str) -> OwnRun:
    """The same by a trainer, with its recipe for the CLIP."""
    recipe = recipe_path(trainer, choose_recipe(trainer, run.backbone))
    return replace(run, trainer=trainer, recipe=recipe)


def completed(run: OwnRun, folders: Iterable[str]) -> tuple[OwnRun, str, str]:
    """The same with a trainer, a CLIP and the file of a recipe, see ``OwnRun``; and sentences that say
    why this CLIP and why this trainer, "" where nothing was chosen.

    Args:
        folders: where a run may be already that this one goes on with, or tests.

    Raises:
        UserError: the trainer has no recipe, a recipe has no trainer, or the images can't work.
    """
    if run.recipe and run.trainer:
        if not os.path.isfile(run.recipe):
            run = replace(run, recipe=recipe_path(run.trainer, run.recipe))
        return run, "", ""
    if run.recipe:
        raise UserError(f"the recipe {run.recipe} is of one trainer: say which")
    trainer = run.trainer
    backbone = run.backbone
    for folder in folders:
        known_trainer, known_clip = trainer_and_clip_of(folder)
        trainer = trainer or known_trainer
        backbone = backbone or known_clip
    why = choice = ""
    if not backbone:
        backbone, why = choose_clip()
    run = replace(run, backbone=backbone)
    if not trainer:
        trainer, choice = choose_trainer(run)
    return for_trainer(run, trainer), why, choice


def choose_trainer(run: OwnRun) -> tuple[str, str]:
    """The best of the ``candidates``, and a sentence on what each of them can do.

    Each training and validation image is encoded once; the test's are not looked at, unless there
    are so few that all are tested in folds.

    run: with a CLIP; its settings of trainers are left out.

    Raises:
        UserError: the images can't work.
    """
    settings = {key: value for key, value in run.settings.items() if not key.startswith("TRAINER.")}
    run = replace(run, folder="", settings=settings)

    def config(trainer: str) -> CfgNode:
        return config_of_images(for_trainer(run, trainer))

    def settings_of_candidate(trainer: str) -> CfgNode:
        return config(trainer).TRAINER[trainer.upper()]

    cfg = config(CANDIDATES[0])
    logging.disable(logging.WARNING)  # the run says the same of its images
    try:
        known = OwnImages(run.images, cfg)
        method = method_of(cfg, known.classnames)
        loader = make_loader(cfg, [*known.train_x, *known.val], pixels_of_test(cfg.INPUT))
        pairs = tqdm(
            Pairs(loader, method.device), "Looking at the images", mininterval=1, dynamic_ncols=True
        )
        features, labels = method.features_of(pairs)
        compared = compare(
            method.backbone, known.classnames, features[0], labels, settings_of_candidate, run.seed
        )
    finally:
        logging.disable(logging.NOTSET)
    chosen = best(compared).trainer
    figures = [
        f"{each.trainer} {each.accuracy:.1f} % ({each.low:.0f} to {each.high:.0f} %)"
        for each in compared
    ]
    noun = "image" if known.folds else "training and validation image"
    number = counted(len(labels), noun)
    sentence = (
        f"{chosen} was chosen by {FOLDS}-fold cross-validation on {number}; right, with 95 % intervals: "
        f"{', '.join(figures)}"
    )
    return chosen, sentence


def build_run(cfg: CfgNode, recipe: str, choice: str = "") -> Run:
    """The run of a config on one's own images, ready to be made.

    recipe: its file; choice: see ``choose_trainer``.

    Raises:
        UserError: the config or the images can't work.
    """
    kind = find_method(cfg.TRAINER.NAME)
    settings = settings_of(kind, cfg)
    kind.check(settings, f"TRAINER.{kind.name().upper()}")
    check_run(cfg)
    steps = steps_of_training(cfg)
    views = template_views(steps, cfg.INPUT, *kind.views(settings))
    images = OwnImages(cfg.DATASET.ROOT, cfg)
    check_data(cfg, images)
    method = method_of(cfg, images.classnames)
    run = Run(cfg, make_loaders(cfg, images, views, T.Compose(steps)), method)
    notes = check_names(method.backbone, method.classnames, are_fixed=False)
    notes = [*filter(None, [choice]), *notes, *images.notes, *notes_on_classes(images)]
    run.evaluation.note_run({"recipe": Path(recipe).stem}, notes)
    return run


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
        for sentence in filter(None, (why, choice)):
            log.info("%s", sentence)
        run = build_run(cfg, asked.recipe, choice)
        run.log_images()
        if run.is_done():
            log.info(
                "Done already: %s; to train again, delete that folder, or give another", folder
            )
            return
        run.say_minutes()
        run.make()


def notes_on_classes(images: Images) -> list[str]:
    """Warns of classes that are too small to say anything of, and of one that is most of the test, and
    returns the warnings."""
    notes = []
    tested = Counter(item.classname for item in images.test)
    number = tested
    if not folds_of(images):
        number = tested + Counter(item.classname for item in [*images.train_x, *(images.val or ())])
    if few := sum(count < FEW for count in number.values()):
        rarest, least = number.most_common()[-1]
        notes.append(
            f"Fewer than {FEW} images are in {counted(few, 'class')}, such as {rarest} ({least}): an "
            "accuracy there rests on one or two"
        )
    name, count = tested.most_common(1)[0]
    if count > 2 * len(images.test) / len(tested):
        notes.append(
            f"{100 * count / len(images.test):.0f} % of the test images are of {name}: always answering "
            "that is right as often; look at macro F1 and at the accuracy of each class"
        )
    for note in notes:
        log.warning("%s", note)
    return notes
