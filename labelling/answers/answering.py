"""Answers images of a part file batch by batch: while one batch is read, another is computed, and a
third is written."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

from torch import Tensor

from trainers.common.errors import UserError

from ..pictures import AHEAD, Picture, ReadBatch, ReadImages, ahead
from .part_file import PartFile

Computed = TypeVar("Computed")  # the answers to a batch, before they are rows
Rows = Sequence[Mapping[str, object]]

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


def read_ahead(
    read_batch: ReadBatch, pool: ThreadPoolExecutor, missing: Missing
) -> Generator[tuple[list[int], ReadImages], None, None]:
    """Positions and images of batch after batch, read by the threads of a pool while another is computed."""

    def read(batch: Sequence[tuple[int, str]]) -> tuple[list[int], ReadImages]:
        positions = [position for position, _ in batch]
        paths: list[Picture] = [path for _, path in batch]
        return positions, read_batch(pool, paths)

    return ahead(missing, read, AHEAD)


def here(
    read_batch: ReadBatch,
    missing: Missing,
    compute: Callable[[Tensor], Computed],
    rows: Callable[[Computed, list[str | None]], Rows],
) -> Iterator[Later]:
    """Yield the answers of a classifier that computes in this process, batch by batch.

    Args:
        compute: computes the answers to images (B, 3, H, W).
        rows: makes the rows of a table out of these answers and the images' names.
    """

    def later(
        positions: Sequence[int],
        names: list[str | None],
        broken: Mapping[int, UserError],
        computed: Computed | None,
    ) -> Answered:
        errors = {positions[place]: str(error) for place, error in broken.items()}
        if computed is None:
            return {}, errors
        readable = (position for position in positions if position not in errors)
        return dict(zip(readable, rows(computed, names))), errors

    # the thread that computes does nothing else
    with (
        ThreadPoolExecutor() as pool,
        closing(read_ahead(read_batch, pool, missing)) as batches,
    ):
        for positions, images in batches:
            computed = None if images.pixels is None else compute(images.pixels)
            yield partial(later, positions, images.names, images.errors, computed)
