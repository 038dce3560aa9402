"""A loader of training batches that can start in the middle of an epoch, with the batches and the augmentation that were to come.

Everything random in an epoch follows from the states of the generators at its start: the order, and the seeds of the workers. So to go
on after n batches, the epoch is started from those states again and its first n batches are drawn but not made: nothing is
decoded or augmented. What the augmentation had drawn by then is in the state of the generator that it draws from: this process's own
without workers, else each worker's, which comes along with every batch.

A single worker draws what this process would draw without it: it is given the generators' states before an epoch, and hands them back
after it. So the numbers are the same whether images are made in this process or, during its steps, in a worker (unless steps draw
too). It lives until the end of the training: after each fork, memory that a step writes to is copied first, which takes long.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from ..common.interruption import leave_to_parent
from ..data.loader import WORKERS, FirstBatch, batches_of, end_workers, with_tensor, worth_starting
from ..data.random_state import cpu_rng_state, restore_rng_state, rng_state
from .checkpoint import State

log = logging.getLogger(__name__)


class TrainingLoader(DataLoader[Any]):
    """The batches of Dassl's loader, with the same random draws; each carries its number in the epoch, from 0, as ``batch_idx``.

    Args:
        loader: Dassl's, of ``CheckedImages``, which this one takes the place of.

    Attributes:
        after_step: called after each training step; without workers, before the next batch is made.
        batches_done: in the current epoch, or the next one.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        workers = worth_starting(loader.num_workers)
        remaining = Remaining(loader.batch_sampler, workers)
        super().__init__(
            loader.dataset,
            batch_sampler=remaining,
            num_workers=workers,
            collate_fn=partial(collate, loader.collate_fn),
            pin_memory=loader.pin_memory,
            multiprocessing_context=WORKERS if workers > 0 else None,
            persistent_workers=workers == 1,
            worker_init_fn=begin_worker,
        )
        self.remaining = remaining
        self.after_step: Callable[[], None] = lambda: None
        self.beginning: State | None = None
        self.start: State | None = None
        self.batches_done = 0
        self.worker_states: dict[int, State] = {}

    def position(self) -> State:
        """Where the epoch is, for ``begin_at``: in types that load without executing anything."""
        return {
            "batches": self.batches_done,
            "start": self.start,
            "workers": self.num_workers,
            "worker_states": {
                worker: with_tensor(state) for worker, state in self.worker_states.items()
            },
        }

    def begin_at(self, position: State, rng: State) -> None:
        """Makes the next epoch continue at ``position``, ``rng`` being the generators' states there.

        With another number of workers (0 and 1 are equal) it has the same order but other augmentation, and later epochs differ.
        """
        if position["workers"] == 0 and self.num_workers == 1:
            position = {
                **position,
                "worker_states": {
                    0: {name: state for name, state in rng.items() if name != "cuda"}
                },
            }
        elif position["workers"] == 1 and self.num_workers == 0:
            rng = {**rng, **position["worker_states"][0]}
        elif position["workers"] != self.num_workers:
            log.warning(
                "The epoch was started with %d workers and goes on with %d: its images are augmented otherwise",
                position["workers"],
                self.num_workers,
            )
            position = {**position, "worker_states": {}}
        self.beginning, self.batches_done = {**position, "rng": rng}, position["batches"]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch promises a class that its documentation doesn't name
        epoch, skipped = self.started()
        self.start, self.batches_done, self.worker_states = (
            epoch.start,
            skipped,
            epoch.worker_states,
        )
        try:
            yield from self.made(epoch, skipped)
        except BaseException:
            self.close()
            raise
        finally:
            self.batches_done = 0
        if self.num_workers == 1:
            restore_rng_state(with_tensor(self.worker_states[0]))

    def made(self, epoch: "Epoch", skipped: int) -> Iterator[Any]:
        """An epoch's batches, of which the first ``skipped`` ones were made before."""
        for number, (batch, worker) in enumerate(
            batches_of(epoch.batches, len(self) if self.num_workers == 1 else None), start=1
        ):
            if number < skipped:
                continue
            if number == skipped:
                restore_rng_state(epoch.rng)
                continue
            if worker is not None:
                self.worker_states[worker.id] = worker.state
            yield {**batch, "batch_idx": number - 1}
            self.batches_done = number
            self.after_step()

    def started(self) -> tuple["Epoch", int]:
        """The epoch that starts now, and how many batches of it are done already."""
        beginning, self.beginning = self.beginning, None
        if beginning is None:
            return self.begin({}), 0
        if beginning["batches"]:
            restore_rng_state(beginning["start"])
        return self.begin(
            beginning["worker_states"], beginning["batches"], beginning["rng"]
        ), beginning["batches"]

    def begin(
        self, worker_states: dict[int, State], skipped: int = 0, rng: State | None = None
    ) -> "Epoch":
        """Starts an epoch and its workers, if any; ``rng``: this process's generators' states after the skipped batches."""
        start = rng_state()
        self.remaining.skipped = skipped
        if self.num_workers == 1:
            self.remaining.order, after = self.drawn_order()
            worker_states = worker_states or {0: after}
        states = {
            worker: {**state, "torch": state["torch"].numpy()}
            for worker, state in worker_states.items()
        }
        self.remaining.states = states
        batches = super().__iter__()
        if self.num_workers == 1:
            restore_rng_state(
                after
            )  # it has drawn something more, or not, as the worker is new or not
        return Epoch(batches, start, rng or rng_state(), states)

    def close(self) -> None:
        """Ends the worker that waits for another epoch."""
        if self._iterator is not None:
            end_workers(self._iterator)
        self._iterator = None

    def drawn_order(self) -> tuple[list[list[int]], State]:
        """The batches of an epoch that starts now, drawn as without workers, and the generators' states after that."""
        torch.empty((), dtype=torch.int64).random_()  # DataLoader's own draw, before the sampler's
        return list(self.remaining.batches), cpu_rng_state()


@dataclass(frozen=True)
class Epoch:
    """One pass over the batches.

    Attributes:
        batches: the loader's own, of which those that were done before are empty.
        start: states of this process's generators at its start.
        rng: their states before its first batch that is not done.
        worker_states: of the workers' generators there.
    """

    batches: Iterator[Any]
    start: State
    rng: State
    worker_states: dict[int, State]


class Remaining:
    """Batches of indices, of which the first ``skipped`` ones are empty; they still go to their workers, so the others go to theirs.

    Attributes:
        order: of the batches, where it has been drawn already.
        states: of workers' generators before the first of their batches that is not empty, where they are to be given them. With W
            workers batch i goes to worker i modulo W.
    """

    def __init__(self, batches: Any, workers: int) -> None:
        self.batches, self.workers, self.skipped = batches, workers, 0
        self.order: list[list[int]] | None = None
        self.states: dict[int, State] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batches if self.order is None else self.order):
            if number < self.skipped:
                yield []
            elif number < self.skipped + self.workers and number % self.workers in self.states:
                yield FirstBatch(batch, self.states[number % self.workers])
            else:
                yield batch


def collate(
    inner: Callable[[list[Any]], Any], items: list[Any]
) -> tuple[Any, SimpleNamespace | None]:
    """A batch, None for an empty one, and the worker that made it with the states of its generators (None without workers)."""
    if not items:
        return None, None
    batch, worker = inner(items), get_worker_info()
    if worker is None:
        return batch, None
    state = cpu_rng_state()  # in a namespace, which the pinning of memory leaves as it is; a tensor would take a file descriptor
    return batch, SimpleNamespace(id=worker.id, state={**state, "torch": state["torch"].numpy()})


def begin_worker(worker: int) -> None:
    """Initialises a loader's worker; states for its generators, if any, come with its first batch."""
    leave_to_parent()
