"""Rows of answers to pictures that were sent, or that a path names, as ``cdc-predict --json`` prints them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, cast

import torch
from torch import Tensor

from trainers.common.boxes import file_of, real_path
from trainers.common.errors import UserError
from trainers.common.image_files import decoded
from trainers.data.transforms import least_side

from ..answers.rows import Row, rows_with_votes
from .demo import Demo

if TYPE_CHECKING:
    from ..classifier import PromptedClassifier

TOPK = 5  # most probable classes of a row, as cdc-predict has them
NOT_BELOW = "is no picture below the folder that --root names"
Named = tuple[str | None, IO[bytes] | str]  # a picture's name in its row; its open file, or path


class Answer(Row, total=False):
    """The answer to a picture; of one that can't be read its name and the ``error`` alone."""

    error: str


def below(root: str, path: str) -> str:
    """The absolute path of a file below a folder, or of a box in it; "" where there is no such file there.

    Links are followed first: one that leads out of the folder is not below it.
    """
    try:
        place = real_path(os.path.join(root, path))
        inside = os.path.join(os.path.realpath(root), "")
        return place if place.startswith(inside) and os.path.isfile(file_of(place)) else ""
    except (ValueError, OSError):  # a NUL, or a name that is too long
        return ""


def rows(demo: Demo, pictures: Iterable[Named]) -> list[Answer]:
    """The answers to pictures, in their order; batch by batch, so that few are in memory."""
    classifier = demo.classifier  # for all, even if a newer round takes its place meanwhile
    size: int = classifier.cfg.DATALOADER.TEST.BATCH_SIZE
    table: list[Answer] = []
    batch: list[tuple[str | None, Tensor | UserError]] = []
    for name, file in pictures:
        batch.append((name, pixels(classifier, name, file)))
        if len(batch) == size:
            table += answers_to(demo, classifier, batch)
            batch = []
    table += answers_to(demo, classifier, batch)
    return table


def pixels(
    classifier: "PromptedClassifier", name: str | None, file: IO[bytes] | str
) -> Tensor | UserError:
    """A picture's pixels (3, H, W) as the run's test takes them, or why it can't be read."""
    shown = name or "that was sent"
    if file == "":
        return UserError(f"{shown} {NOT_BELOW}")
    try:
        with decoded(file, classifier.background, least_side(classifier.cfg.INPUT)) as picture:
            made: Tensor = classifier.transform(picture)
            return made
    except UserError as error:
        return UserError(str(error).replace(str(file), shown))


def answers_to(
    demo: Demo,
    classifier: "PromptedClassifier",
    batch: Sequence[tuple[str | None, Tensor | UserError]],
) -> Iterator[Answer]:
    """Yield the rows of a batch."""
    readable = [(name, shown) for name, shown in batch if isinstance(shown, Tensor)]
    known: Iterator[Row] = iter(())
    if readable:
        with demo.lock:  # one question after another
            prediction = classifier.predicted(torch.stack([shown for _, shown in readable]))
        answers = classifier.answers(prediction, [name for name, _ in readable])
        known = iter(rows_with_votes(answers, TOPK))
    for name, shown in batch:
        if isinstance(shown, UserError):
            yield {"image": name, "error": str(shown)}
        else:
            yield cast(Answer, next(known))
