"""The request for a run on one's own images, by ``train.py --images``, ``cdc-train`` or ``fit``.

Without torch: mistakes at first sight are answered at once.
"""

import argparse
import logging
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsIndex

from trainers import METHODS, MULTI_LABEL_METHODS
from trainers.common import console
from trainers.common.errors import UserError
from trainers.common.fingerprints import (
    DEEPER,
    data_name,
    joined_roots,
    places_in,
    roots_in,
)
from trainers.common.recipes import SHOTS, check_known

from .groups import FOLDER, NONE, checked_pattern
from .table import means_multi_label, read_table

Text = str | os.PathLike[str]
# of this package and of the library
LOGGERS = tuple(logging.getLogger(name.partition(".")[0]) for name in (__name__, console.__name__))
GROUP_BY = "DATASET.GROUP_BY"
BOXES = "DATASET.BOXES"
# settings that follow from an argument → which one
ARGUMENTS = {
    "DATASET.ROOT": "the folder of the images",
    "OUTPUT_DIR": "the output folder",
    "SEED": "the seed",
    "TRAINER.NAME": "the trainer",
    GROUP_BY: "how images are grouped",
    BOXES: "whether boxes are pictures",
}


@dataclass(frozen=True)
class OwnRun:
    """The request for a run on one's own images.

    Attributes:
        images: absolute path of a folder of class folders, or of a file that names images and labels, or
            several (``joined_roots``).
        multi_label: whether a picture may have several labels, or none.
        trainer: "": that of the run that there is, else the task's.
        backbone: name of a CLIP; "": the recipe's if one is given, else that of the run that there
            is, else ``choose_clip``'s.
        recipe: name of one of the trainer's, or a file; "": that for the CLIP.
        folder: where the run goes.
        shots: training images of each class, at most; below 1 all.
        seed: of the sample and the training.
        settings: KEY → value over all others.
        refit: whether a method that learns in epochs is trained once more, on all images, when it is
            tested.
    """

    images: str
    multi_label: bool = False
    trainer: str = ""
    backbone: str = ""
    recipe: str = ""
    folder: str = ""
    shots: int = SHOTS
    seed: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)
    refit: bool = False


def ask(
    images: Text | Sequence[Text],
    *,
    classes_at: int = 1,
    multi_label: bool = False,
    trainer: str | None = None,
    backbone: Text | None = None,
    recipe: Text | None = None,
    folder: Text | None = None,
    shots: int = SHOTS,
    seed: int = 1,
    group_by: str | None = None,
    boxes: bool = False,
    settings: Mapping[str, object] | None = None,
    refit: bool = False,
    device: str | None = None,
) -> OwnRun:
    """The checked request; the images need not be there yet.

    Args:
        images: their folder, or a file that names them, or several; multi_label: as in ``OwnRun``.
        classes_at: how many levels below a folder its class folders lie.
        folder: where the run goes; without one ``output/<images>/<trainer>/seed<seed>``, of no named
            trainer without ``<trainer>``.
        group_by: which images belong together (``groups.named_by``); None: a file's column says it,
            or they look alike.
        boxes: whether each box of a file is a picture; the boxes of a photograph belong together.
        device: the name of the device; None: the settings' one.

    Raises:
        UserError: an argument is of another kind or out of its range, contradicts another, or the
            run would go where the images are.
    """
    root = root_of(images, classes_at)
    trainer = checked_text("the trainer", trainer)
    recipe = checked_text("the recipe", recipe)
    seed = checked_integer("the seed", seed)
    if trainer:
        check_trainer(trainer, multi_label)
    if recipe and not trainer:
        raise UserError(f"the recipe {recipe} is of one trainer: say which")
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed is {seed}, it must be 0 or more and below {2**32}")
    settings = checked_settings(settings)
    if rule := checked_text("--group-by", group_by):
        if rule not in (FOLDER, NONE):
            checked_pattern(rule)
        settings[GROUP_BY] = rule
    if boxes:
        settings[BOXES] = True
    if device is not None:
        settings["DEVICE"] = device
    named = settings.get("MODEL.BACKBONE.NAME")
    by_name = os.path.join("output", data_name("ImageFolder", root), trainer, f"seed{seed}")
    run = OwnRun(
        images=root,
        multi_label=multi_label,
        trainer=trainer,
        backbone=checked_text("the backbone", backbone)
        or checked_text("MODEL.BACKBONE.NAME", named),
        recipe=recipe,
        folder=os.path.normpath(checked_text("the output folder", folder) or by_name),
        shots=checked_integer("the number of shots", shots),
        seed=seed,
        settings=settings,
        refit=refit,
    )
    if refit and run.shots >= 1:
        raise UserError(
            f"--refit trains on all images, and --shots {run.shots} on a few of each class: leave one of them out"
        )
    for place in places_in(root):
        check_place(run.folder, place)
    return run


def root_of(images: Text | Sequence[Text], classes_at: int = 1) -> str:
    """Return the root of folders and files (``joined_roots``); classes_at: how many levels below a folder
    its class folders lie.

    Raises:
        UserError: one is no path, there is none, or the level is below 1 or said of files alone.
    """
    given = [images] if isinstance(images, (str, os.PathLike)) else images
    named = [checked_text("the folder of the images", one) for one in given]
    if not named:
        raise UserError("there are no images: give a folder, or a file that names images")
    roots = [os.path.abspath(os.path.expanduser(one)) for one in named]
    level = checked_integer("--classes-at", classes_at)
    if level < 1:
        raise UserError(f"--classes-at is {level}: give 1 or more, 1 for a folder of class folders")
    if level > 1 and all(map(os.path.isfile, roots)):
        raise UserError("--classes-at is for folders, and these are files: leave it out")
    return joined_roots(one if os.path.isfile(one) else one + DEEPER * (level - 1) for one in roots)


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds what ``train.py --images`` and ``cdc-train`` take in the same words."""
    parser.add_argument(
        "--shots", type=int, default=SHOTS, help="training images per class, at most (default: all)"
    )
    parser.add_argument(
        "--skip-small",
        action="store_true",
        help="leave out classes with fewer than 4 images, which can't be divided, and labels of multi-label pictures with "
        "fewer than 5",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="when the run is tested, train once more on all images, those of the test too, into <folder>/refit; of trainers "
        "that learn in epochs (the others are fitted to all images anyway)",
    )
    parser.add_argument(
        "--group-by",
        metavar="RULE",
        help="which images belong together (a patient, a film, a day): folder, the one below the class folder that holds "
        "them; a regular expression for their names with one group, such as '(.+)_[0-9]+', whose groups are of one class "
        "each unless it begins with across:; or none, each image is independent (default, and for images without a named "
        "group: copies)",
    )
    parser.add_argument(
        "--classes-at",
        type=int,
        default=1,
        metavar="LEVEL",
        help="how many levels below the folder the class folders lie: 2 for animals/dogs (default: 1)",
    )
    parser.add_argument(
        "--boxes",
        action="store_true",
        help="each box of COCO's or Label Studio's file is a picture, its crop, and the boxes of a photograph belong together",
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--multi-label",
        action="store_const",
        const=True,
        help="a picture may have several labels, or none (default: if the file says it)",
    )
    labels.add_argument(
        "--single-label",
        action="store_const",
        const=False,
        dest="multi_label",
        help="each picture has one label",
    )


def ask_by(
    args: argparse.Namespace, recipe: str | None, seed: int, settings: Mapping[str, object]
) -> OwnRun:
    """Return the request of a command's arguments (``add_arguments``); the images are there.

    Raises:
        UserError: they are not, an argument can't work, or as ``read_table``.
    """
    of_flags = {"DATASET.SKIP_SMALL": True} if args.skip_small else {}
    asked = ask(
        args.images,
        classes_at=args.classes_at,
        multi_label=means_multi_label(root_of(args.images), args.multi_label, args.boxes),
        trainer=args.trainer,
        backbone=args.backbone,
        recipe=recipe,
        folder=args.output_dir,
        shots=args.shots,
        seed=seed,
        group_by=args.group_by,
        boxes=args.boxes,
        settings={**of_flags, **settings},
        refit=args.refit,
    )
    check_images(asked.images)
    if any(map(os.path.isfile, roots_in(asked.images))):
        read_table(asked.images, asked.multi_label, args.boxes)
    return asked


def check_trainer(trainer: str, multi_label: bool) -> None:
    """Refuse a trainer that there is not, or that can't answer yes or no to each label.

    Raises:
        UserError: it is one.
    """
    if multi_label and trainer in METHODS and trainer not in MULTI_LABEL_METHODS:
        raise UserError(
            f"{trainer} chooses one class per picture, and can't answer yes or no to each label: take "
            f"--trainer {' or '.join(MULTI_LABEL_METHODS)}, or say --single-label"
        )
    check_known("trainer", trainer, MULTI_LABEL_METHODS if multi_label else METHODS)


def checked_text(name: str, value: object) -> str:
    """A text or a path as a text; "" for None.

    Raises:
        UserError: it is neither, or no path has that name; name: its name in the message.
    """
    if value is None:
        return ""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or "\0" in value:
        raise UserError(f"{name} is {value!r}: give a text or a path")
    return value


def checked_integer(name: str, value: SupportsIndex) -> int:
    """Return a whole number.

    Raises:
        UserError: it is not one; name: its name in the message.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise UserError(f"{name} is {value!r}: give a whole number, such as 1")
    return operator.index(value)


def checked_names(classnames: Iterable[object]) -> list[str]:
    """The names of classes to choose from.

    Raises:
        UserError: they are not at least two names.
    """
    is_list = isinstance(classnames, Iterable) and not isinstance(classnames, str)
    given = list(classnames) if is_list else classnames
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    if len(names) < 2 or names != given:
        raise UserError(f"the classes are {given!r}: give a list of at least two names")
    return names


def checked_settings(settings: object) -> dict[str, object]:
    """Return settings KEY → value; none for None.

    Raises:
        UserError: they do not map keys, or one of them has an argument of its own.
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise UserError(
            f'the settings are {settings!r}: give keys and their values, such as {{"OPTIM.MAX_EPOCH": 5}}'
        )
    for key, argument in ARGUMENTS.items():
        if key in settings:
            raise UserError(f"the setting {key} is {argument}, which has an argument of its own")
    return dict(settings)


def check_images(images: str) -> None:
    """Check that the folders and files of images are there.

    Raises:
        UserError: there is neither such a folder nor such a file; images: as in ``OwnRun``.
    """
    for place in places_in(images):
        if not os.path.isdir(place) and not os.path.isfile(place):
            raise UserError(
                f"{place} is not a folder: give the one that holds the class folders, or train and test, or a file that "
                "names images and labels"
            )


def check_place(folder: str, images: str) -> None:
    """Refuse a run's folder inside the folder of images, where it would pass for a class, or around it: to
    train again, users delete a run's folder.

    Raises:
        UserError: it would.
    """
    place = Path(os.path.realpath(folder))
    root = Path(os.path.realpath(images))
    if place == root:
        where = f"the folder of the images, {images}"
    elif root in place.parents:
        where = f"{folder}, which lies in {images}, where they pass for a class"
    elif place in root.parents:
        where = f"{folder}, which holds the images, {images}"
    else:
        return
    raise UserError(f"the results would go to {where}: give another output folder")
