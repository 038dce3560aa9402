"""What a sweep will cost, from what done runs have cost."""

import os
import statistics
from collections.abc import Iterable, Sequence
from datetime import timedelta

from protocols.runs import read_record

from .grid import Run


def seconds_of(run: Run, known: dict[str, float | None]) -> float | None:
    """Mean seconds of the done runs that differ from this one in their seed only, or None where none is done.

    Args:
        known: dict in which the answers are kept.
    """
    place = os.path.dirname(run.folder)  # …/<part>/<data set>/shots_<N>/<trainer>/<config>
    if place not in known:
        names = os.listdir(place) if os.path.isdir(place) else []
        records = filter(None, (read_record(os.path.join(place, name)) for name in names))
        spent = [sum(record["seconds"].values()) for record in records]
        known[place] = statistics.mean(spent) if spent else None
    return known[place]


def estimate(chains: Iterable[Sequence[Run]], at_once: int) -> tuple[float, int]:
    """Seconds until all of these runs are done, and how many of them nothing is known of.

    Args:
        chains: lists of runs that are made one after the other; at_once: number of lists that are worked on at the same time.

    Returns:
        a lower bound: neither starting nor queueing is in it, nor are the runs of which nothing is known.
    """
    known: dict[str, float | None] = {}
    spent: list[float] = []
    unknown = 0
    for runs in chains:
        found = [seconds_of(run, known) for run in runs]
        spent.append(sum(filter(None, found)))
        unknown += found.count(None)
    return max([sum(spent) / at_once, *spent]) if spent else 0.0, unknown


def duration(seconds: float) -> str:
    """``1 day, 2:03:04`` to the second."""
    return str(timedelta(seconds=round(seconds)))
