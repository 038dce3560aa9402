"""Answers as tasks with predictions, which Label Studio imports: a person corrects instead of typing."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from trainers.common.errors import UserError

from ..folders.label_files import LOCAL
from .rows import Row, json_list

if TYPE_CHECKING:
    from trainers.method import Method


def version_of(method: "Method") -> str:
    """The trainer, and the start of its prompts' hash: another training has another version."""
    return f"{method.name()} {(method.prompts_hash() or '')[:8]}".strip()


def task_lines(rows: Iterable[Row], model: str, folder: str) -> Iterator[str]:
    """The lines of a JSON list of at least one row: an image, its most probable class, with the
    probability as the score.

    An uncertain image has its prediction, too, to be confirmed by a person.

    Args:
        model: what made the answers; folder: absolute path of the one that Label Studio is told to
            show files of, in which the images lie.

    Raises:
        UserError: an image lies elsewhere.
    """
    return json_list(json.dumps(task(row, model, folder)) for row in rows)


def task(row: Row, model: str, folder: str) -> dict[str, object]:
    """See ``task_lines``."""
    first = row["top"][0]
    choice = {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [first["class"]]},
    }
    prediction = {"model_version": model, "score": first["probability"], "result": [choice]}
    return {"data": {"image": address(row["image"] or "", folder)}, "predictions": [prediction]}


def below(images: Iterable[str], folder: str) -> Iterator[str]:
    """The images one by one, each of which lies in the folder.

    Raises:
        UserError: see ``address``.
    """
    for image in images:
        address(image, folder)
        yield image


def address(image: str, folder: str) -> str:
    """Where Label Studio finds an image.

    Raises:
        UserError: it does not lie in the folder.
    """
    place = os.path.relpath(os.path.abspath(image), folder).replace(os.sep, "/")
    if place.startswith("../"):
        raise UserError(
            f"--label-studio: {image} is not below {folder}, and Label Studio shows what is below one "
            "folder: give a FILE in a folder that holds all images"
        )
    return f"{LOCAL}?d={quote(place)}"
