"""The gallery of a report: images whose label is probably wrong, and those to label next, with each
template's vote on them; and the same images as lists beside the page."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from results.answers import UNCERTAINTY
from results.rows import SERIES_HEADS
from results.runs import Arrays, FinishedRun, RunSeries
from trainers.common.console import csv_text
from trainers.common.errors import UserError
from trainers.common.files import check_output, write_text

from .pictures import Paths, thumbnail
from .review import WrongLabels, least_certain, probably_wrong

SHOWN = 8  # images of each kind
LISTED = 1000  # images of a run in a list, at most
WRONG_LABELS = "Labels that are probably wrong"
NEXT = "To label next: the least certain"
ENDINGS = {WRONG_LABELS: "wrong_labels", NEXT: "label_next"}  # of the lists' files
LIST_COLUMNS = ("image", "split", "label", "answer", "probability", "uncertainty")


@dataclass(frozen=True)
class Vote:
    """What one template votes for an image.

    Attributes:
        voter: the template, as in "template 1".
        name: of the class that it finds most probable.
        probability: of that class, in percent.
        weight: share of the template in the answer, in percent.
        vacuity: in (0, 1]; None where the trainer has no evidence.
    """

    voter: str
    name: str
    probability: float
    weight: float
    vacuity: float | None


@dataclass(frozen=True)
class Card:
    """One image and the answer to it.

    Attributes:
        image: its name.
        split: ``train``, ``val`` or ``test``.
        picture: a data URI; None where the image is not at hand.
        truth: name of the class of its given label.
        answer: name of the most probable class.
        probability: of the answer, in percent.
        right: whether the answer is the given label.
        votes: of the templates; empty where they don't vote.
    """

    image: str
    split: str
    picture: str | None
    truth: str
    answer: str
    probability: float
    right: bool
    votes: list[Vote]


@dataclass(frozen=True)
class Gallery:
    """The gallery of one run.

    Attributes:
        title: which run.
        wrong: how many labels are probably wrong, in a sentence.
        cards: ``WRONG_LABELS`` and ``NEXT`` → the first ``SHOWN`` images of that kind.
    """

    title: str
    wrong: str
    cards: dict[str, list[Card]]


def in_order(answered: Sequence[RunSeries]) -> list[RunSeries]:
    """Series in the order of their galleries: those whose templates vote first, untrained ones last."""
    return sorted(answered, key=lambda entry: (entry.is_zero_shot, not entry.has("vote")))


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


def gallery(entry: RunSeries, paths: Paths) -> Gallery:
    """The ``Gallery`` of the first seed of a series; of images that ``paths`` lacks there are names
    only."""
    run = entry.first
    answers = held_out(run)
    cards = {
        kind: [card(run, answers, index, paths) for index in order[:SHOWN]]
        for kind, order in orders(answers).items()
    }
    return Gallery(f"{entry.where}, seed {run.seed}", wrong_in(answers).says(), cards)


def wrong_in(answers: Arrays) -> WrongLabels:
    """Which labels of ``held_out`` answers are probably wrong."""
    return probably_wrong(answers["label"], answers["top"], answers["top_probability"])


def orders(answers: Arrays) -> dict[str, numpy.ndarray]:
    """``WRONG_LABELS`` and ``NEXT`` → indices of such images, in the order of ``review``."""
    return {
        WRONG_LABELS: wrong_in(answers).listed,
        NEXT: least_certain(answers[UNCERTAINTY]),
    }


def card(run: FinishedRun, answers: Arrays, index: int, paths: Paths) -> Card:
    """The ``Card`` of one image; answers: see ``held_out``."""
    name = answers["image"][index]
    split = answers["split"][index]
    # the path of a name that images of several splits share belongs to the one that was held out
    is_known = split != "train" or (answers["image"] == name).sum() == 1
    return Card(
        image=name,
        split=split,
        picture=thumbnail(paths.get(name)) if is_known else None,
        truth=run.class_name(answers["label"][index]),
        answer=run.class_name(answers["answer"][index]),
        probability=100 * float(answers["top_probability"][index, 0]),
        right=bool(answers["right"][index]),
        votes=votes_on(run, answers, index),
    )


def votes_on(run: FinishedRun, answers: Arrays, index: int) -> list[Vote]:
    """The vote of each template on an image, empty where templates don't vote; answers: see
    ``held_out``."""
    votes = []
    for template, labels in enumerate(answers.get("vote", ())):  # (N,) each
        weight = 1 / len(answers["vote"])
        if "vote_weight" in answers:
            weight = answers["vote_weight"][template]
        vacuity = None
        if "vote_vacuity" in answers:
            vacuity = float(answers["vote_vacuity"][template, index])
        votes.append(
            Vote(
                voter=f"template {template + 1}",
                name=run.class_name(labels[index]),
                probability=100 * float(answers["vote_probability"][template, index]),
                weight=100 * float(weight),
                vacuity=vacuity,
            )
        )
    return votes


def listed(run: FinishedRun) -> dict[str, list[tuple[object, ...]]]:
    """``WRONG_LABELS`` and ``NEXT`` → a row of ``LIST_COLUMNS`` for each such image, at most
    ``LISTED``."""
    answers = held_out(run)
    made: dict[str, list[tuple[object, ...]]] = {}
    for kind, order in orders(answers).items():
        made[kind] = [
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


def write_lists(series: Sequence[RunSeries], start: str) -> list[str]:
    """Writes the lists of the galleries' images, of the first seed of each series, as tables
    ``<start>_wrong_labels.csv`` and ``<start>_label_next.csv``; none without series.

    Returns:
        the names of the files.
    """
    rows: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for entry in series:
        for kind, images in listed(entry.first).items():
            rows[kind] += [(entry.tested_on, entry.name, *image) for image in images]
    written = []
    for kind, of_kind in rows.items():
        path = f"{start}_{ENDINGS[kind]}.csv"
        check_output("the list", path, f"\ufeff{','.join(SERIES_HEADS)},image,")
        write_text(path, csv_text((*SERIES_HEADS, *LIST_COLUMNS), of_kind))
        written.append(os.path.basename(path))
    return written
