"""Labels images on the machines of a Ray cluster; Ray starts, feeds and restarts them."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy

from trainers.common.errors import UserError

from ..answer import Answers
from ..classifier import PromptedClassifier
from ..rules import Wanted, rule_of
from .answering import Answered, Later, Missing
from .rows import columns_of

Columns = dict[str, object]  # name → value, of an image
Block = dict[str, list[int] | list[bytes]]
Arrays = Mapping[str, numpy.ndarray]  # name → values, of images
MOST_BATCHES = 8  # that an actor gets at a time: it reads one while it computes another
BLOCKS = 4  # that each actor gets at least, so that all end at about the same time


class Labeller:
    """A trained run for ``ray.data.Dataset.map_batches``, one model per actor.

    It adds columns to a batch with the column ``image``, paths: ``label`` (None for a doubtful one),
    ``doubtful`` (None where nothing says it), ``uncertainty``, where there are any ``unfamiliar``, ``vacuity`` and ``conflict``,
    ``class_1``, ``probability_1`` and so on for the most probable classes, and ``error``, which says why an image can't be read and is else empty. An image
    that can't be read has an empty label and no numbers (NaN).

    Args:
        run: folder of a finished training, where every machine finds it.
        backbone: as in ``PromptedClassifier.load``; classes: as in ``with_classes``; without them the
            run's own.
        topk: number of most probable classes; probabilities: whether there is a column
            ``probability_<class>`` per class instead.
        wanted: what is asked of the labels that are given (``rules.Wanted``).
    """

    def __init__(
        self,
        run: str,
        backbone: str | None = None,
        classes: Sequence[str] | None = None,
        topk: int = 5,
        probabilities: bool = False,
        wanted: Mapping[str, Any] | None = None,
    ) -> None:
        asked = Wanted(**(wanted or {}))
        rule = rule_of(run, asked, classes)
        classifier = PromptedClassifier.of_run(run, backbone, rule, asked.withholds)
        self.classifier = classifier.with_classes(classes) if classes else classifier
        self.topk = topk
        self.probabilities = probabilities
        black = numpy.zeros((8, 8, 3), dtype=numpy.uint8)
        (sample,) = self.answers(self.classifier.predict(black))
        self.unread: Columns = {
            name: math.nan if isinstance(value, float) else "" for name, value in sample.items()
        }
        self.unread["doubtful"] = None

    def __call__(self, batch: Arrays) -> dict[str, numpy.ndarray]:
        images = [os.fsdecode(image) for image in batch["image"]]
        broken: dict[int, UserError] = {}
        answers: list[Columns] = []
        for part in self.classifier.predict_batches(images, broken):
            answers += self.answers(part)
        for place in sorted(broken):
            answers.insert(place, self.unread)
        columns = dict(batch)
        for name, value in self.unread.items():
            kind = numpy.float32 if isinstance(value, float) else object
            columns[name] = numpy.array([answer[name] for answer in answers], dtype=kind)
        errors = [str(broken.get(place, "")) for place in range(len(images))]
        columns["error"] = numpy.array(errors, dtype=object)
        return columns

    def answers(self, answers: Answers) -> list[Columns]:
        """The columns of each answer, without the image."""
        table = columns_of(answers, self.topk, self.probabilities)
        for columns in table:
            del columns["image"]
        return table


def on_ray(address: str, missing: Missing, arguments: Mapping[str, object]) -> Iterator[Later]:
    """The answers of a cluster, in the order in which they come.

    Each actor has a GPU or, where the cluster has none, a processor.

    Args:
        address: of the cluster, as ``ray.init`` takes it.
        arguments: of a ``Labeller``.

    Raises:
        UserError: Ray is not installed, its cluster is missing, or gives up.
    """
    batches = list(missing)
    if not batches:
        return
    try:
        import pyarrow
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UserError(
            "--ray needs Ray, here and on the cluster: pip install 'ray[data]', or leave out --ray"
        ) from error
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray {address}: no cluster is reached ({str(error) or type(error).__name__}): start one with ray start --head, or give the address of "
            "one that runs"
        ) from error
    try:
        resources: dict[str, float] = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        actors = gpus or max(1, int(resources.get("CPU", 0)))
        tables = blocks(batches, actors)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        answers = ray.data.from_arrow([pyarrow.table(table) for table in tables]).map_batches(
            Labeller,
            fn_constructor_kwargs=dict(arguments),
            batch_size=len(tables[0]["image"]),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=1 if gpus else None,
            num_cpus=None if gpus else 1,
        )
        for batch in answers.iter_batches(batch_size=None):
            yield partial(from_ray, batch)
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray {address}: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


def from_ray(batch: Arrays) -> Answered:
    """The answers in a batch that ``Labeller`` has returned."""
    columns = {name: values.tolist() for name, values in batch.items()}
    positions = columns.pop("position")
    names = columns.pop("name")
    errors = columns.pop("error")
    del columns["image"]
    table = {}
    for place, position in enumerate(positions):
        if errors[place]:
            continue
        row = {name: values[place] for name, values in columns.items()}
        doubtful = row.pop("doubtful")
        table[position] = {
            "image": os.fsdecode(names[place]),
            "label": row.pop("label"),
            # of blocks in which nothing says it
            "doubtful": bool(doubtful) if doubtful in (True, False) else None,
            **row,
        }
    return table, {position: error for position, error in zip(positions, errors) if error}


def blocks(batches: Sequence[Sequence[tuple[int, str]]], actors: int) -> list[Block]:
    """Columns ``position``, ``image`` (its whole path) and ``name`` (as it was given) of whole batches,
    at most ``MOST_BATCHES`` in a block."""
    size = min(MOST_BATCHES, max(1, len(batches) // (BLOCKS * actors)))
    tables: list[Block] = []
    for start in range(0, len(batches), size):
        block = list(chain.from_iterable(batches[start : start + size]))
        names = [os.fsencode(path) for _, path in block]  # which may be no text
        tables.append(
            {
                "position": [position for position, _ in block],
                "image": [os.path.abspath(name) for name in names],
                "name": names,
            }
        )
    return tables
