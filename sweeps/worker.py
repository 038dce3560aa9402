"""What a job of a sweep does, in a process of this machine or one that submitit starts on a machine of the cluster."""

import logging
import os
import signal
import socket
import sys
import traceback
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from protocols import training
from protocols.runs import make, read_record
from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE

from .grid import Run
from .store import Sweep
from .tables import collect_complete

log = logging.getLogger("sweep")

LAST_LINES = 65536  # bytes of a log in which the line of its error is looked for


class Stopped(BaseException):
    """This job was told to end; like ``KeyboardInterrupt`` it is no error."""


class Failed(Exception):
    """A run failed; the message is one line."""


class Work:
    """Makes the runs of a chain that are not done, one after the other. If one fails, those that don't need it still run.

    Args:
        output, sweep, name: which chain, see ``Sweep``.
        errors: file of the job's standard error; None: submitit's.
    """

    def __init__(self, output: str, sweep: str, name: str, errors: str | None = None) -> None:
        self.output, self.sweep, self.name, self.errors = output, sweep, name, errors

    def checkpoint(self) -> DelayedSubmission:
        """How submitit goes on after a time limit: with the same again, since what is done is skipped and what was started is resumed."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """
        Raises:
            Failed: a run failed, after the others were made.
        """
        signal.signal(signal.SIGTERM, stop)
        torch.set_num_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", torch.get_num_threads())))
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        log.setLevel(logging.INFO)
        sweep = Sweep.load(self.output, self.sweep)
        errors = []
        try:
            for run in sweep.chains[self.name].runs:
                self.note(sweep, "running", run=run.folder)
                try:
                    make(
                        run,
                        run.request.wanted_config(run),
                        partial(start, run, self.errors),
                        log.info,
                    )
                except (UserError, Failed) as error:
                    errors.append(str(error))
                except Exception as error:
                    traceback.print_exc()
                    errors.append(one_line(error))
        except Stopped:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the command may say it again
            self.note(sweep, "stopped")
            raise SystemExit(REQUEUE) from None
        if errors:
            self.note(sweep, "failed", error=errors[0])
            raise Failed(errors[0])
        self.note(sweep, "done")
        collect_complete(sweep, sweep.chains[self.name])

    def note(self, sweep: Sweep, state: str, **facts: Any) -> None:
        sweep.note_outcome(self.name, state, host=socket.gethostname(), pid=os.getpid(), **facts)


def stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def start(run: Run, errors: str | None) -> None:
    """Makes one run in this process, whose standard error goes to the file ``errors``, see ``Work``.

    Raises:
        Failed: it ended with an error.
        Stopped: it was asked to end, and has saved what it needs to go on.
        SystemExit: it was warned of a time limit, and is queued again.
    """
    code = training.main(run.request.arguments(run))
    if code == REQUEUE:
        raise Stopped
    if code or read_record(run.folder) is None:
        raise Failed(
            last_error(errors or JobEnvironment().paths.stderr)
            or f"{run.folder} ended with exit code {code} and without a record"
        )


def one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def last_error(path: str | Path) -> str | None:
    """The last line of this job's standard error that ``train.py`` marks as one, or None."""
    sys.stderr.flush()
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - LAST_LINES))
        lines = file.read().decode(errors="replace").splitlines()
    return next(
        (line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")),
        None,
    )
