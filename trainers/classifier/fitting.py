"""From pictures to a finished run: what ``PromptedClassifier.fit`` starts."""

import os
import shutil
from collections.abc import Sequence

from PIL import Image

from ..common.errors import UserError
from ..data.pictures import Picture, array_picture, is_path


def fit(
    images: str | os.PathLike[str] | Sequence[Picture],
    labels: Sequence[str] | None,
    trainer: str,
    backbone: str | None,
    folder: str | os.PathLike[str] | None,
    options: Sequence[str],
) -> str:
    """Makes the run of ``train.py --images``; returns its folder. See ``PromptedClassifier.fit``.

    Raises:
        UserError: there.
    """
    try:
        from protocols.command_line import parse_arguments
        from protocols.training import run
    except ImportError as error:
        raise UserError(
            "fit needs the toolbox itself, not only its plug-in: call it in the folder of train.py"
        ) from error
    if labels is not None:
        assert not isinstance(images, (str, os.PathLike))  # a label for each of several images
        folder = os.fspath(folder or os.path.join("output", "fit", trainer))
        images = write_folder(list(images), list(labels), f"{folder}-images")
    elif not is_path(images):
        raise UserError("images without labels must be a folder of class folders: give labels")
    arguments = ["--images", os.fspath(images), "--trainer", trainer]
    arguments += ["--backbone", backbone] if backbone else []
    arguments += ["--output-dir", os.fspath(folder)] if folder else []
    return str(run(parse_arguments([*arguments, *options])).output_dir)


def write_folder(images: Sequence[Picture], labels: Sequence[str], folder: str) -> str:
    """Puts images into the folders of their classes, which are made in ``folder``; returns it.

    Raises:
        UserError: there are not as many labels as images, or the folder exists already.
    """
    if len(images) != len(labels) or not images:
        raise UserError(
            f"there are {len(images)} images and {len(labels)} labels: give one for each"
        )
    if os.path.exists(folder):
        raise UserError(
            f"{folder} exists already, where the images would go: give fit that folder, or another one "
            "for the run"
        )
    for number, (image, label) in enumerate(zip(images, labels)):
        place = os.path.join(folder, label)
        os.makedirs(place, exist_ok=True)
        name = os.path.join(place, f"{number:06d}")
        if is_path(image):
            shutil.copyfile(image, name + os.path.splitext(image)[1])
        else:
            picture = image if isinstance(image, Image.Image) else array_picture(image)
            picture.save(f"{name}.png")
    return folder
