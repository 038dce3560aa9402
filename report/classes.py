"""The classes of a report: how good the answers are class by class, and, with one label per image, which
classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from results.runs import RunSeries

from .pictures import Paths, thumbnail

MATRIX = 25  # most classes that are shown in full; of more, the ones with most mistakes
CONFUSIONS = 6
PICTURES_PER_CONFUSION = 6  # of each confusion


class Row(Protocol):
    """The measures of one class or label."""

    @property
    def cells(self) -> list[str]:
        """A text for each of the page's ``columns``."""


@dataclass(frozen=True)
class ClassRow:
    """The test images of one class.

    Attributes:
        name: of the class.
        images: their number, the mean over seeds, rounded.
        accuracy: share of right answers in percent, all seeds together.
        mistakes: the most frequent wrong answer and its number in all seeds; None where all are right.
    """

    name: str
    images: int
    accuracy: float
    mistakes: tuple[str, int] | None

    @property
    def cells(self) -> list[str]:
        return [self.name, f"{self.accuracy:.1f}", str(self.images), with_number(self.mistakes)]


class Cell(NamedTuple):
    """One cell of a confusion matrix: the number of images, their share of the row in [0, 1], and
    whether they are answered rightly."""

    number: int
    share: float
    right: bool


class MatrixRow(NamedTuple):
    """One row of a confusion matrix: a class, and a cell for each class that is shown and, last, for
    all others together."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class MistakenImage:
    """An image that was answered wrongly.

    Attributes:
        image: its name.
        probability: of the wrong answer in percent, the highest over seeds.
        picture: a data URI; None where the image is not at hand.
    """

    image: str
    probability: float
    picture: str | None


@dataclass(frozen=True)
class Confusion:
    """A class that is taken for another.

    Attributes:
        truth, answer: names of the two classes.
        number: how many images of ``truth`` are answered so, all seeds together.
        of: the number of images of ``truth``, likewise.
        images: the first ``PICTURES_PER_CONFUSION`` of them, those with the highest probability first.
    """

    truth: str
    answer: str
    number: int
    of: int
    images: list[MistakenImage]


@dataclass(frozen=True)
class ClassPage:
    """The answers of a series class by class, all seeds together; labels are classes here, too.

    Attributes:
        title: which series.
        seeds: their number.
        heading: of the table of classes; columns: its own.
        classes: from the worst on.
        is_whole: whether the table is short enough to be shown without scrolling.
        reading: how to read it; "" where nothing is to be said.
        names: of the classes that the confusion matrix shows, its columns.
        rows: of the confusion matrix; a class without images has none. Without rows the matrix is left out,
            as where an image may have several labels.
        left_out: how many classes the matrix lacks.
        confusions: the most frequent, at most ``CONFUSIONS``.
    """

    title: str
    seeds: int
    heading: str
    columns: Sequence[str]
    classes: Sequence[Row]
    is_whole: bool
    reading: str
    names: list[str]
    rows: list[MatrixRow]
    left_out: int
    confusions: list[Confusion]


def class_page(entry: RunSeries, paths: Paths) -> ClassPage:
    """The ``ClassPage`` of a series for one label per image; of images that ``paths`` lacks there are
    names only."""
    label = entry.pool("label")
    answer = entry.pool("answer")
    there = numpy.union1d(label, answer)
    names = [entry.first.class_name(of_class) for of_class in there]
    counts = confusion_matrix(label, answer, labels=there)  # (truth, answer)
    wrong = counts - numpy.diag(counts.diagonal())
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    shown = numpy.sort(numpy.argsort(-mistakes, kind="stable")[:MATRIX])
    pairs = sorted(zip(*numpy.nonzero(wrong)), key=lambda pair: -wrong[pair])[:CONFUSIONS]
    return ClassPage(
        title=entry.where,
        seeds=len(entry.runs),
        heading="Accuracy per class, the least accurate first",
        columns=("class", "right, %", "test images", "most often taken for"),
        classes=class_rows(counts, names, len(entry.runs)),
        is_whole=len(there) <= MATRIX,
        reading="",
        names=[names[label] for label in shown],
        rows=matrix_rows(counts, names, shown),
        left_out=len(there) - len(shown),
        confusions=[
            Confusion(
                truth=names[truth],
                answer=names[answer],
                number=int(wrong[truth, answer]),
                of=int(counts[truth].sum()),
                images=mistaken_images(entry, there[truth], there[answer], paths),
            )
            for truth, answer in pairs
        ],
    )


def with_number(found: tuple[str, int] | None) -> str:
    """Return a name and how often it was found, in words; "" for None."""
    if found is None:
        return ""
    name, number = found
    return f"{name} ({number})"


def class_rows(counts: numpy.ndarray, names: list[str], seeds: int) -> list[ClassRow]:
    """The rows of all classes that have images, from the least accurate on; counts: (truth, answer)
    of all seeds."""
    rows = []
    for truth in numpy.flatnonzero(counts.sum(axis=1)):
        wrong = counts[truth].copy()
        wrong[truth] = 0
        commonest = wrong.argmax()
        images = counts[truth].sum()
        rows.append(
            ClassRow(
                name=names[truth],
                images=round(images / seeds),
                accuracy=100 * counts[truth, truth] / images,
                mistakes=(names[commonest], int(wrong[commonest])) if wrong.any() else None,
            )
        )
    return sorted(rows, key=lambda row: row.accuracy)


def matrix_rows(counts: numpy.ndarray, names: list[str], shown: numpy.ndarray) -> list[MatrixRow]:
    """The rows of the confusion matrix, of the classes ``shown`` that have images; counts: (truth,
    answer)."""
    rows = []
    for truth in shown:
        images = counts[truth].sum()
        if not images:
            continue
        numbers = [*counts[truth, shown], images - counts[truth, shown].sum()]  # last: all others
        is_right = [*(shown == truth), False]
        cells = [
            Cell(int(number), number / images, bool(right))
            for number, right in zip(numbers, is_right, strict=True)
        ]
        rows.append(MatrixRow(names[truth], cells))
    return rows


def mistaken_images(entry: RunSeries, truth: int, answer: int, paths: Paths) -> list[MistakenImage]:
    """The images of a class that were taken for another, each once, those with the highest
    probability first.
    """
    taken = []
    for answers in (run.known_answers for run in entry.runs):
        is_taken = (answers["label"] == truth) & (answers["answer"] == answer)
        taken.append(pandas.Series(answers["top_probability"][:, 0], answers["image"])[is_taken])
    highest = pandas.concat(taken).groupby(level=0, sort=False).max()
    return [
        MistakenImage(image, 100 * float(probability), thumbnail(paths.get(image)))
        for image, probability in highest.nlargest(PICTURES_PER_CONFUSION).items()
    ]
