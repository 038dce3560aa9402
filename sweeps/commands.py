"""The commands of ``sweep.py``; each takes its parsed arguments."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from trainers.common.errors import UserError
from trainers.common.record_file import remove_record

from .display import show, show_plan
from .drive import UNFINISHED, drive, missing_runs, statuses_of
from .executors import EXECUTORS
from .grid import Run, make_chains, read_file, requests
from .store import Sweep, is_there
from .tables import collect

log = logging.getLogger("sweep")

GRID = {
    "protocol": "protocols",
    "trainer": "trainers",
    "dataset": "datasets",
    "seeds": "seeds",
    "shots": "shots",
    "config": "config",
    "rows": "rows",
}
SHORTEST = 5  # minutes: Slurm's warning, two minutes before the end, must not come while a job still starts
EXECUTION = (
    "executor",
    "jobs",
    "partition",
    "gpus",
    "cpus",
    "memory",
    "time",
    "account",
    "qos",
    "slurm",
)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The sweep's settings: the file's, and over them the arguments."""
    settings: dict[str, Any] = (
        read_file(args.file)
        if args.file
        else {"name": "-".join(args.protocol or ["sweep"]), "grids": [{}]}
    )
    given = {
        key: getattr(args, flag) for flag, key in GRID.items() if getattr(args, flag) is not None
    }
    places = {
        key: getattr(args, key)
        for key in ("name", "root", "output")
        if getattr(args, key) is not None
    }
    if len(args.opts) % 2:
        raise UserError(f"options after -- must come in pairs, KEY VALUE: {' '.join(args.opts)}")
    options = dict(zip(args.opts[::2], args.opts[1::2]))
    grids = [
        {
            **grid,
            **given,
            "options": {**settings.get("options", {}), **grid.get("options", {}), **options},
        }
        for grid in settings["grids"]
    ]
    return {**settings, **places, "grids": grids}


def start(args: argparse.Namespace) -> None:
    settings = settings_of(args)
    output = os.path.abspath(settings.get("output", "output"))
    chains = make_chains(requests(settings), output)
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    if args.time < SHORTEST:
        raise UserError(
            f"--time is {args.time} minutes, it must be at least {SHORTEST}: a job has to start, and to write a checkpoint at its end"
        )
    for pair in args.slurm:
        if "=" not in pair:
            raise UserError(
                f"--slurm {pair}: it must be KEY=VALUE, with the name of an option of sbatch"
            )
    sweep = Sweep(output, settings["name"], chains, {key: getattr(args, key) for key in EXECUTION})
    with sweep.held():
        executor = EXECUTORS[sweep.options["executor"]](sweep)
        missing = missing_runs(chains)
        show_plan(sweep, missing, executor)
        if args.dry_run:
            return
        sweep.save()
        alive = executor.alive()
        for name, runs in missing.items():
            if runs and name not in alive:
                prepare(sweep, name, runs)
        drive(sweep, executor, list(sweep.chains))
        sys.stdout.write(collect(sweep))


def prepare(sweep: Sweep, name: str, runs: Sequence[Run]) -> None:
    """Marks a chain as one that waits."""
    sweep.forget(name)
    for run in filter(is_there, runs):  # a test of prompts that have been trained anew since
        remove_record(run.folder)


def status(args: argparse.Namespace) -> None:
    sweep = Sweep.load(args.output, args.name)
    show(
        statuses_of(sweep, EXECUTORS[sweep.options["executor"]](sweep), sweep.chosen(args.words)),
        sweep.name,
    )


def cancel(args: argparse.Namespace) -> None:
    sweep = Sweep.load(args.output, args.name)
    executor = EXECUTORS[sweep.options["executor"]](sweep)
    names = [
        status.chain.name
        for status in statuses_of(sweep, executor, sweep.chosen(args.words))
        if status.state in UNFINISHED
    ]
    for name in names:
        sweep.cancel(name)
    executor.cancel(names)
    log.info(
        "%s: %d jobs cancelled; what they have done stays, and sweep.py retry %s goes on with them",
        sweep.name,
        len(names),
        sweep.name,
    )


def retry(args: argparse.Namespace) -> None:
    sweep = Sweep.load(args.output, args.name)
    executor = EXECUTORS[sweep.options["executor"]](sweep)
    chosen = sweep.chosen(args.words)
    names = [
        status.chain.name
        for status in statuses_of(sweep, executor, chosen)
        if status.state in ("failed", "cancelled", "stopped")
    ]
    if not names:
        raise UserError(
            f"none of these {len(chosen)} jobs failed, was cancelled or stopped: there is nothing to make again"
        )
    for name in names:
        sweep.forget(name)
    if sweep.is_held():
        log.info(
            "%s: %d jobs wait; the command that is running the sweep takes them up",
            sweep.name,
            len(names),
        )
        return
    with sweep.held():
        drive(sweep, executor, names)
        sys.stdout.write(collect(sweep))


def show_tables(args: argparse.Namespace) -> None:
    sys.stdout.write(collect(Sweep.load(args.output, args.name)))


COMMANDS = {
    "start": start,
    "status": status,
    "cancel": cancel,
    "retry": retry,
    "collect": show_tables,
}
