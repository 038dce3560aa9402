"""Evaluation of a classifier's answers to labelled pictures."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy
import torch

from trainers.common.console import first_few
from trainers.common.errors import UserError, nearest
from trainers.common.image_files import PictureFacts, look, look_through
from trainers.common.trained_on import TrainedOn, note_on_trained, thumbnails
from trainers.evaluation.figures import effective_number, wilson
from trainers.evaluation.multi_label import f1, f1_interval, measure_multi_label
from trainers.evaluation.prediction import Prediction, measure

from .answer import Answers
from .families import grouped
from .label_cells import Labelled, Sources, are_sources, labelled_pictures, place_of
from .pictures import Picture, is_path
from .readers.rows import WHOLE
from .request import root_of
from .table import read_table

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """Measures of the answers to N labelled images over K classes; shares in [0, 1].

    Attributes:
        images: N.
        accuracy: share of right answers; None of a multi-label run. Where a program asked for the pictures with
            known probabilities (column ``asked_with``), it and ``micro_f1`` are of all those it could ask for.
        interval: ends of the 95 % interval of the accuracy (``wilson``), or of a multi-label run of
            ``micro_f1``; images that belong together are worth fewer (``effective_number``).
        macro_f1: mean of F1 over the classes that occur.
        ece: expected calibration error over 15 bins of equal width.
        confusion: (K, K) numbers of images, a row for each true class, a column for each answer, in
            the order of ``classes_``; None of a multi-label run.
        trained_on: how many of the images the classifier was trained on, as the same file or saved again; 0
            where it does not know.
        answers: to the images.
        mean_average_precision, micro_f1: of a multi-label run (``measure_multi_label``); else None.
        per_label: likewise, its measures of each label, in percent; else empty.
    """

    images: int
    accuracy: float | None
    interval: tuple[float, float]
    macro_f1: float | None
    ece: float | None
    confusion: numpy.ndarray | None
    trained_on: int
    answers: Answers = field(repr=False)
    mean_average_precision: float | None = None
    micro_f1: float | None = None
    per_label: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Labelling:
    """N pictures, the names of each one's labels, the name of its group, "" for none, and its weight.

    A picture that a program asked for with a known probability stands for 1 / that many; others have 1.
    """

    pictures: Sequence[Picture]
    names: Sequence[tuple[str, ...]]
    groups: Sequence[str]
    weight: numpy.ndarray


def measure_answers(
    known: Labelling,
    answers: Answers,
    truth: numpy.ndarray,
    trained_on: TrainedOn,
    multi_label: bool,
) -> Evaluation:
    """Measure answers to N labelled pictures; warn of pictures that were trained on.

    Args:
        truth: which labels (N, K), bool, the pictures have.
    """
    looks = looks_at(known.pictures)
    seen, note = seen_in_training(known.pictures, looks, trained_on)
    if note:
        log.warning("%s", note)
    classes = numpy.zeros(len(truth), int) if multi_label else truth.argmax(axis=1)
    groups = groups_of(known.pictures, known.groups, looks, classes)
    if multi_label:
        return of_multi_label(answers, truth, groups, seen, known.weight)
    return of_single_label(answers, classes, groups, seen, known.weight)


def of_single_label(
    answers: Answers, truth: numpy.ndarray, groups: numpy.ndarray, seen: int, weight: numpy.ndarray
) -> Evaluation:
    """Return the measures of answers to pictures of one label (N,) each, of groups and weights (N,)."""
    answered = answers.probabilities.argmax(axis=1)
    is_right = answered == truth
    accuracy = float(numpy.average(is_right, weights=weight))
    independent = weighted_number(is_right, groups, weight)
    number = len(answers.classnames)
    confusion = numpy.zeros((number, number), dtype=int)
    numpy.add.at(confusion, (truth, answered), 1)
    probabilities = Prediction(torch.from_numpy(answers.probabilities))
    metrics = measure(probabilities, torch.from_numpy(truth), answers.classnames)
    return Evaluation(
        images=len(truth),
        accuracy=accuracy,
        interval=wilson(accuracy * independent, independent),
        macro_f1=metrics["macro_f1"] / 100,
        ece=metrics["ece"] / 100,
        confusion=confusion,
        trained_on=seen,
        answers=answers,
    )


def weighted_number(right: numpy.ndarray, groups: numpy.ndarray, weight: numpy.ndarray) -> float:
    """Return the number of independent pictures that N pictures of different weights are worth.

    Args:
        right: (N,) bool; groups: (N,), numbers; weight: (N,), above 0.

    References:
        - Horvitz and Thompson (1952), "A Generalization of Sampling Without Replacement from a Finite
          Universe": weights of 1 over the probability of having been asked for.
        - Cochran (1977), "Sampling Techniques", 3rd edition, §6.3: the variance of a ratio of sums.
    """
    if (weight == weight[0]).all():
        return effective_number(right, groups)
    share = numpy.average(right, weights=weight)
    if share in (0, 1):
        return float(weight.sum() ** 2 / (weight**2).sum())
    _, place = numpy.unique(groups, return_inverse=True)
    rest = numpy.bincount(place, weight * (right - share))  # (G,)
    variance = len(rest) / max(1, len(rest) - 1) * (rest**2).sum() / weight.sum() ** 2
    return float(min(len(right), share * (1 - share) / variance))


def of_multi_label(
    answers: Answers, truth: numpy.ndarray, groups: numpy.ndarray, seen: int, weight: numpy.ndarray
) -> Evaluation:
    """Return the measures of answers to pictures with labels (N, K), bool, of groups and weights (N,)."""
    given = numpy.asarray(answers, bool)
    measured = measure_multi_label(answers.probabilities, given, truth, answers.classnames)
    measured["micro_f1"] = f1(given, truth, weight)
    low, high = f1_interval(given, truth, groups, weight)

    def share(name: str) -> float | None:
        value = measured[name]
        return None if value is None else value / 100

    return Evaluation(
        images=len(truth),
        accuracy=None,
        interval=(float(low) / 100, float(high) / 100),
        macro_f1=share("macro_f1"),
        ece=share("ece"),
        confusion=None,
        trained_on=seen,
        answers=answers,
        mean_average_precision=share("map"),
        micro_f1=share("micro_f1"),
        per_label=measured["per_label"],
    )


def labelling_of(
    images: Sources | Labelled,
    labels: Sequence[object] | None,
    multi_label: bool,
    boxes: bool = False,
) -> Labelling:
    """Read labelled images in any form that ``fit`` takes; of a folder with parts only its test.

    boxes: as in ``read_table``.

    Raises:
        UserError: as ``read_table``, ``labelled_pictures``.
    """
    if not are_sources(images, labels):
        pictures, names = labelled_pictures(images, labels, multi_label)
        return Labelling(pictures, names, [""] * len(pictures), numpy.ones(len(pictures)))
    table = read_table(root_of(cast(Sources, images)), multi_label, boxes)
    for note in table.notes:
        log.info("%s", note)
    part = next(part for part in (WHOLE, "test", "val", "train") if part in table.parts)
    places = [place for place, own in enumerate(table.parts) if own == part]
    paths = [table.paths[place] for place in places]
    given = []
    for place in places:
        given.append(tuple(table.classnames[label] for label in table.labels[place]))
    return Labelling(
        [os.path.abspath(path) for path in paths],
        given,
        [table.groups.get(path, "") for path in paths],
        numpy.array([1 / table.asked_with.get(path, 1.0) for path in paths]),
    )


def truth_of(names: Sequence[tuple[str, ...]], classnames: Sequence[str]) -> numpy.ndarray:
    """Return which of K labels (N, K), bool, N pictures have.

    Raises:
        UserError: a label is none of these.
    """
    place = {name: label for label, name in enumerate(classnames)}
    truth = numpy.zeros((len(names), len(classnames)), bool)
    for row, own in zip(truth, names):
        for name in own:
            if name not in place:
                raise UserError(
                    f"the label {name!r} is none of the classes{nearest(name, place)}: they are "
                    f"{first_few(classnames)}"
                )
            row[place[name]] = True
    return truth


def looks_at(pictures: Sequence[Picture]) -> list[PictureFacts | None]:
    """Look at each picture; None for one that is not a file."""
    files = [os.fspath(picture) for picture in pictures if is_path(picture)]
    looks = iter(look_through(files))
    return [next(looks) if is_path(picture) else None for picture in pictures]


def groups_of(
    pictures: Sequence[Picture],
    named: Sequence[str],
    looks: Sequence[PictureFacts | None],
    classes: numpy.ndarray,
) -> numpy.ndarray:
    """Return the number (N,) of the group of each picture: by the name of its group, or of files without
    one by evidence that they are copies, of one class, as in training: by how alike they look, and by families of
    file names that this confirms. A picture that is not a file is alone.

    Args:
        pictures: N; named: N names of groups, "" for none; looks: as in ``looks_at``; classes: (N,).
    """
    files = []
    for place, (name, facts) in enumerate(zip(named, looks)):
        if not name and facts is not None and facts.coarse is not None:
            files.append(place)
    paths = [os.fspath(cast(str, pictures[place])) for place in files]
    evidence = grouped(paths, [looks[place] for place in files], classes[files].tolist())
    alike = [*range(len(named))]
    for place, group in zip(files, evidence.groups):
        alike[place] = files[group]
    first: dict[str, int] = {}
    places = [first.setdefault(name, place) if name else place for name, place in zip(named, alike)]
    return numpy.array(places)


def seen_in_training(
    pictures: Sequence[Picture], looks: Sequence[PictureFacts | None], trained_on: TrainedOn
) -> tuple[int, str]:
    """Return how many pictures were trained on, and a remark, "" for none (``note_on_trained``); a picture that
    is not a file counts as the one that ``fit`` would write.

    Args:
        looks: as in ``looks_at``.
    """
    if not trained_on.files:
        return 0, ""
    facts: list[PictureFacts] = []
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (picture, seen) in enumerate(zip(pictures, looks), 1):
            if seen is None:
                seen = look(f"{folder}/{place_of(picture, 'picture.png', folder)}")
            facts.append(seen)
            names.append(os.path.basename(picture) if is_path(picture) else f"image {number}")
    digests = [each.digest for each in facts]
    return note_on_trained(trained_on, digests, thumbnails(facts), names)
