"""Answers images of a part file batch by batch: while one batch is read, another is computed, and a
third is written."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice, tee

from ..common.errors import UserError
from ..data.pictures import ahead
from ..evaluation.prediction import Prediction
from .part_file import PartFile
from .prompted import PromptedClassifier
from .rows import Row, rows_of

Verdict = Callable[[float], bool | None]  # whether an answer of an uncertainty is unsure
Missing = Iterable[Sequence[tuple[int, str]]]  # batches of positions and paths
# position → row, and position → why the image can't be read
Answered = tuple[Mapping[int, Mapping[str, object]], Mapping[int, str]]
Later = Callable[[], Answered]  # what is left to do of it once it is computed


def fill(part: PartFile, answers: Iterable[Later]) -> Generator[int, None, None]:
    """Writes answers into a part file while the next ones are computed; yields how many images each
    batch has."""

    def write(later: Later) -> int:
        table, errors = later()
        part.add(table, errors)
        return len(table) + len(errors)

    with closing(ahead(answers, write, number=1)) as written:
        yield from written


def here(
    classifier: PromptedClassifier,
    missing: Missing,
    verdict: Verdict,
    topk: int,
    show: Callable[[Row], Mapping[str, object]],
    with_votes: bool,
) -> Iterator[Later]:
    """The answers of a classifier in this process.

    Args:
        topk, with_votes: see ``rows.rows_of``; show: makes what is kept of a row.
    """
    pairs, again = tee(chain.from_iterable(missing))
    positions = (position for position, _ in again)
    broken: dict[int, UserError] = {}
    seen = 0

    def unread(batch: Sequence[int]) -> dict[int, str]:
        return {batch[place - seen]: str(error) for place, error in broken.items()}

    def later(
        prediction: Prediction,
        names: list[str | None],
        batch: Sequence[int],
        errors: Mapping[int, str],
    ) -> Answered:
        answers = classifier.answers(prediction, names)
        doubtful = [verdict(uncertainty) for uncertainty in answers.uncertainty.tolist()]
        table = map(show, rows_of(answers, doubtful, topk, with_votes))
        readable = (position for position in batch if position not in errors)
        return dict(zip(readable, table)), errors

    # the thread that computes does nothing else
    for prediction, names in classifier.predictions((path for _, path in pairs), broken):
        batch = list(islice(positions, len(names) + len(broken)))
        yield partial(later, prediction, names, batch, unread(batch))
        seen += len(batch)
        broken.clear()
    if batch := list(positions):  # the last ones, none of which can be read
        yield partial(lambda errors: ({}, errors), unread(batch))
