"""The loop of the command that runs a sweep: submits what waits, and watches until nothing is left."""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.runs import is_done
from trainers.common.errors import UserError

from .display import Display, counts
from .grid import Chain, Run
from .store import Status, Sweep, is_there

if TYPE_CHECKING:
    from .executors import Executor

log = logging.getLogger("sweep")

UNFINISHED = ("waiting", "queued", "running")


def missing_runs(chains: Sequence[Chain]) -> dict[str, list[Run]]:
    """name of a chain → its runs that are to be made.

    Raises:
        UserError: a run's settings can't work, or its folder holds a run with others.
    """
    tried: set[object] = (
        set()
    )  # settings that differ only in the seed are checked once where no run exists

    def is_missing(run: Run) -> bool:
        settings = (replace(run, output="", seed=0, model=run.model and ""), run.request)
        if settings in tried and not is_there(run):
            return True
        tried.add(settings)
        return not is_done(run, run.request.wanted_config(run))

    return {chain.name: [run for run in chain.runs if is_missing(run)] for chain in chains}


def statuses_of(
    sweep: Sweep, executor: "Executor", names: Sequence[str] | None = None
) -> list[Status]:
    """``Status`` of the chains, in their order."""
    alive = executor.alive()
    return [sweep.status(name, alive.get(name)) for name in names or sweep.chains]


def drive(sweep: Sweep, executor: "Executor", names: Sequence[str]) -> None:
    """Has the chains made that are not done.

    Raises:
        UserError: some failed, or this command was interrupted; the message says how to go on. The others are made all the same.
    """
    again = f"sweep.py retry {sweep.name}"
    with terminated_as_interrupted(), Display(sweep.name) as display:
        try:
            statuses = watch(sweep, executor, names, display)
        except KeyboardInterrupt:
            told = executor.interrupt(list(executor.alive()))
            if told:
                log.info("Interrupted: %d jobs write a checkpoint and end", len(told))
            while set(told) & set(executor.alive()):
                time.sleep(executor.interval)
            for name in told:
                if not sweep.outcome(name):  # it had not started
                    sweep.forget(name)
            raise UserError(
                "interrupted; the same command goes on with what is missing"
                if told
                else f"interrupted; the jobs that are submitted go on, the same command or sweep.py status {sweep.name} shows how far they "
                f"are, and sweep.py cancel {sweep.name} ends them"
            ) from None
    log.info("%s: %s", sweep.name, counts(statuses))
    failed = [status for status in statuses if status.state == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(statuses)} jobs failed, the first: {failed[0].chain.name}: {failed[0].error} "
            f"(log: {failed[0].log}); {again} makes them again"
        )


def watch(
    sweep: Sweep, executor: "Executor", names: Sequence[str], display: Display
) -> list[Status]:
    """Waits until every chain has ended; returns their statuses."""
    while True:
        alive = executor.alive()
        statuses = [sweep.status(name, alive.get(name)) for name in names]
        display.update(statuses)
        if not any(status.state in UNFINISHED for status in statuses):
            return statuses
        waiting = [status.chain.name for status in statuses if status.state == "waiting"]
        if waiting:
            executor.submit(waiting, alive)
        time.sleep(executor.interval)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
