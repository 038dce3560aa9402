"""What it costs that threads spin while they wait for each other: a CDC training step, as torch
comes and as the commands of this toolbox start it, on an idle machine and beside busy processes.

    python benchmarks/waiting.py

Each way has a process of its own, for OpenMP reads its settings when it is loaded. The processes
take turns, a step each, and wait without a thread that runs in between; a ratio is the median of
the rounds' ratios, so that a machine that slows down does so for all. The step is
``benchmarks/step.py``'s in the sizes of the tiny recipe: 23 classes, 32 images, 4 templates. The
machine has to be idle otherwise, or the first half of the table is none of an idle machine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainers.common.environment import SHORT_SPIN, first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from unittest import mock

from pandas import DataFrame
from tabulate import tabulate

PROCESSES = multiprocessing.get_context("spawn")  # fresh ones: OpenMP is loaded in each
CORES = len(os.sched_getaffinity(0))
CLASSES = 23  # of the embedded data, base to new
IMAGES = 32  # of a batch of the tiny recipe
ALL = str(CORES)
WAYS: dict[str, Mapping[str, str]] = {  # settings of OpenMP's
    "one thread": {"OMP_NUM_THREADS": "1", **SHORT_SPIN},
    "one thread, as torch comes": {"OMP_NUM_THREADS": "1"},
    "all threads": {"OMP_NUM_THREADS": ALL, **SHORT_SPIN},
    "all threads, as torch comes": {"OMP_NUM_THREADS": ALL},
}


@contextmanager
def started(target: Callable[..., None], *arguments: object) -> Iterator[None]:
    """A process that ends with the context."""
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    yield
    process.kill()
    process.join()


def be_busy() -> None:
    """Takes what it gets of a core."""
    while True:
        pass


def take_steps(connection: Connection) -> None:
    """Sends the OpenMP that torch has loaded, then the seconds of a step whenever it is asked for one."""
    from step import TEMPLATES, build, training_step
    from threadpoolctl import threadpool_info

    method, _ = build("CDC", "tiny", CLASSES)
    take = training_step(method, TEMPLATES, IMAGES)
    take()  # the first one is slower
    names = {pool["prefix"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
    connection.send(", ".join(sorted(names)))
    while connection.recv():
        begin = time.perf_counter()
        take()
        connection.send(time.perf_counter() - begin)


def open_way(settings: Mapping[str, str], stack: ExitStack) -> tuple[Connection, str]:
    """A process that takes steps under settings of OpenMP's, and which OpenMP it has."""
    ours, its = PROCESSES.Pipe()
    others = {name: value for name, value in os.environ.items() if not is_of_openmp(name)}
    with mock.patch.dict(os.environ, {**others, **settings}, clear=True):
        stack.enter_context(started(take_steps, its))
    return ours, ours.recv()


def is_of_openmp(name: str) -> bool:
    return name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))


def seconds_of(connection: Connection) -> float:
    connection.send(True)
    return float(connection.recv())


def measure(connections: Mapping[str, Connection], rounds: int) -> DataFrame:
    """A row for each way: median seconds of a step, and how often those of one thread."""
    turns = DataFrame(
        [{way: seconds_of(each) for way, each in connections.items()} for _ in range(rounds)]
    )
    ratios = turns.div(turns.iloc[:, 0], axis=0)
    rows = DataFrame({"s": turns.median(), "times the first": ratios.median()})
    return rows.rename_axis("way")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--rounds", type=int, default=10, help="of which medians are taken (10)")
    args = parser.parse_args(arguments)
    with ExitStack() as stack:
        opened = {way: open_way(settings, stack) for way, settings in WAYS.items()}
        connections = {way: connection for way, (connection, _) in opened.items()}
        libraries = sorted({openmp for _, openmp in opened.values()})
        print(f"{CORES} cores, {', '.join(libraries)}")
        for busy in (0, CORES):
            with ExitStack() as beside:
                for _ in range(busy):
                    beside.enter_context(started(be_busy))
                rows = tabulate(measure(connections, args.rounds), headers="keys", floatfmt=".3g")
            print(f"\nBeside {busy} busy processes\n{rows}", flush=True)


if __name__ == "__main__":
    main()
