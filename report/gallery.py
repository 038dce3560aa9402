"""The gallery of a report: images whose label is probably wrong, and those to label next, with each
vote on them."""

import base64
import io
import logging
import os
from typing import Any

import numpy
from pandas import Series

from results.answers import UNCERTAINTY
from results.runs import Arrays, FinishedRun
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.common.image_files import read_picture
from trainers.evaluation.figures import voters

from .review import least_certain, probably_wrong

log = logging.getLogger(__name__)

SHOWN = 8  # images of each kind
LISTED = 1000  # images of a run in a table, at most
PIXELS = 112  # of an embedded picture's longer side
WRONG_LABELS = "Labels that are probably wrong"
NEXT = "To label next: the least certain"
LIST_COLUMNS = ("image", "split", "label", "answer", "probability", "uncertainty")
Card = dict[str, Any]  # see ``gallery``


def held_out(run: FinishedRun) -> Arrays:
    """The answers to images by what has not seen them: to those of validation and test, and, where
    there are some, out of fold to training images; ``split`` (N,) says which.

    Raises:
        UserError: they are of several runs.
    """
    tested = run.known_answers
    parts = {"train": run.training_answers, "val": run.validation_answers, "test": tested}
    there = {split: answers for split, answers in parts.items() if answers is not None}
    joined = {}
    for name, values in tested.items():
        if name == "vote_weight":  # the same for all images
            joined[name] = values
        elif all(name in answers for answers in there.values()):
            images = 0 if name.startswith("top") else -1  # their dimension: (N,), (N, T), (M, N)
            try:
                joined[name] = numpy.concatenate(
                    [answers[name] for answers in there.values()], axis=images
                )
            except ValueError as error:
                raise UserError(
                    f"the answers to images of several splits in {run.folder} don't fit together "
                    f"({name}: {error}): run it again"
                ) from error
    splits = [numpy.full(len(answers["label"]), split) for split, answers in there.items()]
    joined["split"] = numpy.concatenate(splits)
    return joined


def gallery(run: FinishedRun, paths: dict[str, str]) -> dict[str, list[Card]]:
    """The gallery of one run, of the images of ``held_out``: those whose given label is probably
    wrong, and the least certain ones; see ``review``.

    Args:
        paths: see ``find_images``; of images that it lacks there are names only.

    Returns:
        title → dicts with ``image``, ``split``, ``picture`` (data URI or None), ``truth``,
        ``answer``, ``probability`` (percent), ``right`` and ``votes``, a list of dicts of ``voter``,
        ``name`` (of its class), ``probability`` and ``weight`` (percent), and ``vacuity`` or None.
    """
    answers = held_out(run)
    made = {}
    for title, order in orders(answers).items():
        made[title] = [card(run, answers, index, paths) for index in order[:SHOWN]]
    return made


def orders(answers: Arrays) -> dict[str, numpy.ndarray]:
    """Title → indices of the images that it is about, in their order."""
    return {
        WRONG_LABELS: probably_wrong(answers["label"], answers["top"], answers["top_probability"]),
        NEXT: least_certain(answers[UNCERTAINTY]),
    }


def listed(run: FinishedRun) -> dict[str, list[tuple[object, ...]]]:
    """Title → a row of ``LIST_COLUMNS`` for each image of the gallery's lists, not only of those that are
    shown."""
    answers = held_out(run)
    made: dict[str, list[tuple[object, ...]]] = {}
    for title, order in orders(answers).items():
        made[title] = [
            (
                answers["image"][index],
                answers["split"][index],
                run.class_name(answers["label"][index]),
                run.class_name(answers["answer"][index]),
                float(answers["top_probability"][index, 0]),
                float(answers[UNCERTAINTY][index]),
            )
            for index in order[:LISTED]
        ]
    return made


def card(run: FinishedRun, answers: Arrays, index: int, paths: dict[str, str]) -> Card:
    """One image of the gallery; answers: of ``held_out``."""
    name = answers["image"][index]
    split = answers["split"][index]
    is_known = split != "train" or (answers["image"] == name).sum() == 1
    return {
        "image": name,
        "split": split,
        "picture": thumbnail(paths.get(name)) if is_known else None,
        "truth": run.class_name(answers["label"][index]),
        "answer": run.class_name(answers["answer"][index]),
        "probability": 100 * float(answers["top_probability"][index, 0]),
        "right": answers["right"][index],
        "votes": votes_on(run, answers, index),
    }


def votes_on(run: FinishedRun, answers: Arrays, index: int) -> list[dict[str, Any]]:
    """What each vote on an image is, see ``gallery``."""
    if "vote" not in answers:
        return []
    templates = len(answers["vote"])
    labels = [*answers["vote"][:, index]]
    probabilities = [*answers["vote_probability"][:, index]]
    vacuities: list[float | None] = [None] * templates
    if "vote_vacuity" in answers:
        vacuities = [*answers["vote_vacuity"][:, index]]
    if "image_vote" in answers:
        labels.append(answers["image_vote"][index])
        probabilities.append(answers["image_vote_probability"][index])
        vacuities.append(answers["image_vote_vacuity"][index])
    weights = answers.get("vote_weight", numpy.full(len(labels), 1 / len(labels)))
    names = voters(templates, "image_vote" in answers)
    return [
        {
            "voter": voter,
            "name": run.class_name(label),
            "probability": 100 * float(probability),
            "weight": 100 * float(weight),
            "vacuity": vacuity,
        }
        for voter, label, probability, weight, vacuity in zip(
            names, labels, probabilities, weights, vacuities
        )
    ]


def check_root(root: str | None) -> None:
    """Checks the folder of the data sets.

    Raises:
        UserError: a root is given, and it is no folder.
    """
    if root and not os.path.isdir(root):
        raise UserError(
            f"--root {root} is not a folder: give the one that holds the data sets, or leave it out "
            "for what needs no images"
        )


def find_images(run: FinishedRun, root: str) -> dict[str, str]:
    """Name of each image that is answered, see ``held_out``, as the answers have it → path; empty, with
    a warning, where the data set is not there.
    """
    from datasets.every import data_set  # here, since it takes seconds

    name = run.record["dataset"]
    try:
        dataset = data_set(name)
        trained, validated, tested = dataset.list_images(dataset.find(root))
    except UserError as error:
        log.warning("no pictures of %s: %s", name, error)
        return {}
    found: dict[str, str] = {}
    # a training image never takes the place of one that was held out
    for images in ([*validated, *tested], trained):
        paths = Series({image.impath: image_name(image.impath) for image in images})
        # of several images of one name it is not known which
        unique = {name: path for path, name in paths.drop_duplicates(keep=False).items()}
        found = {**unique, **found}
    return found


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
