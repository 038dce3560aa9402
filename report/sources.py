"""Sources of a report's numbers: its runs, and remarks on them."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import BufferingHandler

from results.runs import FinishedRun
from trainers.common.console import counted, first_few

log = logging.getLogger(__name__)

MEASURES = {"accuracy": "accuracy", "mAP": "map", "macro F1": "macro_f1"}  # column → metric


@dataclass(frozen=True)
class RunRow:
    """One run in the list of all runs.

    Attributes:
        folder: without the common part of all folders.
        data: name of the data set.
        classes: ``all``, ``base`` or ``new``.
        commit: first ten digits of the Git commit that made it; "" where it is not known.
        finished: when; "" where it is not known.
        seed: of the run.
        measured: a value in percent for each of ``measures_of`` the runs; None where it has none.
        learnable: number of trained parameters; None where it is not known.
    """

    folder: str
    data: str
    classes: str
    commit: str
    finished: str
    seed: int
    measured: list[float | None]
    learnable: int | None


def measures_of(runs: Sequence[FinishedRun]) -> list[str]:
    """Names of the ``MEASURES`` that a run has."""
    known = {metric for run in runs for metric in run.metrics}
    return [name for name, metric in MEASURES.items() if metric in known]


def run_rows(runs: Sequence[FinishedRun]) -> list[RunRow]:
    """A ``RunRow`` for each run."""
    measures = measures_of(runs)
    common = os.path.commonpath([run.folder.parent for run in runs])
    rows = []
    for run in runs:
        row = RunRow(
            folder=str(run.folder.relative_to(common)),
            data=run.record["run"]["dataset"],
            classes=run.record["classes"],
            commit=(run.record.get("git_commit") or "")[:10],
            finished=run.record.get("finished", ""),
            seed=run.seed,
            measured=[run.metrics.get(MEASURES[name]) for name in measures],
            learnable=run.record.get("parameters", {}).get("learnable"),
        )
        rows.append(row)
    return rows


def notes_of(run: FinishedRun) -> list[str]:
    """Notes on a run's numbers that a reader has to know."""
    notes = list(run.record.get("notes", ()))
    if broken := [name for names in run.record["skipped_images"].values() for name in names]:
        notes.append(
            f"Left out of {run.record['run']['dataset']}, since they can't be read: "
            f"{counted(len(broken), 'image')} ({first_few(broken)})"
        )
    return notes


def warn_without_answers(runs: Sequence[FinishedRun]) -> None:
    """Warns of runs without predictions."""
    without = sum(run.answers is None for run in runs)
    if without:
        log.warning(
            "Without predictions-test.npz: %d of %d runs; they are missing wherever single images "
            "count",
            without,
            len(runs),
        )


@contextmanager
def warnings_noted() -> Iterator[BufferingHandler]:
    """Keeps the warnings to the end of the block, for the report's readers."""
    warnings = BufferingHandler(sys.maxsize)
    warnings.setLevel(logging.WARNING)
    packages = [logging.getLogger(name) for name in ("results", "report")]
    for package in packages:
        package.addHandler(warnings)
    try:
        yield warnings
    finally:
        for package in packages:
            package.removeHandler(warnings)
