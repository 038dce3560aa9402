"""The gallery of a report: images a run is most surely wrong about, and those it doubts most, with
each template's vote."""

import base64
import io
import logging
import os
from typing import Any

import numpy
from pandas import Series

from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.common.image_files import read_picture

from ..answers import DOUBT
from ..runs import Run

log = logging.getLogger(__name__)

SHOWN = 8  # images of each kind
PIXELS = 112  # of an embedded picture's longer side


def gallery(run: Run, paths: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The gallery of one run: the wrong answers with the least doubt, and the images with the most;
    at equal doubt in the images' order.

    Args:
        paths: see ``find_images``; of images that it lacks there are names only.

    Returns:
        title → dicts with ``image``, ``picture`` (data URI or None), ``truth``, ``answer``,
        ``probability`` (percent), ``right`` and ``votes``, a list of
        (class name, percent).
    """
    answers = run.known_answers
    right = run.known_answers["right"]

    def card(index: int) -> dict[str, Any]:
        arrays = ("vote", "vote_probability")
        votes = (answers[array][:, index].tolist() for array in arrays if array in answers)
        name = answers["image"][index]
        return {
            "image": name,
            "picture": thumbnail(paths.get(name)),
            "truth": run.class_name(answers["label"][index]),
            "answer": run.class_name(answers["answer"][index]),
            "probability": 100 * float(answers["top_probability"][index, 0]),
            "right": right[index],
            "votes": [
                (run.class_name(label), 100 * probability) for label, probability in zip(*votes)
            ],
        }

    certain = numpy.argsort(answers[DOUBT], kind="stable")
    doubted = numpy.argsort(-answers[DOUBT], kind="stable")
    return {
        "Most certain mistakes": [card(index) for index in certain[~right[certain]][:SHOWN]],
        "Most doubted images": [card(index) for index in doubted[:SHOWN]],
    }


def check_root(root: str | None) -> None:
    """
    Raises:
        UserError: a root is given, and it is no folder.
    """
    if root and not os.path.isdir(root):
        raise UserError(
            f"--root {root} is not a folder: give the one that holds the data sets, or leave it out "
            "for what needs no images"
        )


def find_images(run: Run, root: str) -> dict[str, str]:
    """Name of each test image, as the answers have it → path; empty, with a warning, where the data
    set is not there.
    """
    from dassl.data.datasets import DATASET_REGISTRY

    import datasets.every  # noqa: F401  (registers the data sets, which takes seconds)

    name = run.record["dataset"]
    try:
        if name not in DATASET_REGISTRY.registered_names():
            raise UserError(f"{name} is not a data set of this toolbox")
        dataset = DATASET_REGISTRY.get(name)
        images = dataset.list_images(dataset.find(root))[2]
    except UserError as error:
        log.warning("no pictures of %s: %s", name, error)
        return {}
    paths = Series({image.impath: image_name(image.impath) for image in images})
    # of several images of one name it is not known which
    return {name: path for path, name in paths.drop_duplicates(keep=False).items()}


def thumbnail(path: str | None) -> str | None:
    """A small JPEG as a data URI; None where there is no path, or, with a warning, no picture that
    can be read.
    """
    if path is None:
        return None
    buffer = io.BytesIO()
    try:
        small = read_picture(path, "white")
        small.thumbnail((PIXELS, PIXELS))
        small.save(buffer, format="JPEG", quality=85)
    except UserError as error:
        log.warning("no picture: %s", error)
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
