"""What a job of a sweep does, in a process that submitit starts here or on a machine of the cluster."""
import logging
import os
import signal
import socket
import sys
import traceback

import torch
from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

import train
from runs import make, read_record
from trainers.errors import UserError

from .store import Sweep

log = logging.getLogger("sweep")

REQUEUE = 75  # exit code of train.py: it was asked to stop, has saved everything, and goes on when started again
LAST_LINES = 65536  # bytes of a log in which the line of its error is looked for


class Stopped(BaseException):
    """This job was told to end; like ``KeyboardInterrupt`` it is no error."""


class Failed(Exception):
    """A run failed; the message is one line."""


class Work:
    """Makes the runs of a chain that are not done, one after the other. A run that fails doesn't keep those from going on that need nothing of it.

    Args:
        output, sweep, name: which chain, see ``Sweep``.
        threads: of torch; None: as many as Slurm gives the job.
        device: what CUDA_VISIBLE_DEVICES shall be; None: as it is.
    """

    def __init__(self, output, sweep, name, threads=None, device=None):
        self.output, self.sweep, self.name, self.threads, self.device = output, sweep, name, threads, device

    def checkpoint(self):
        """How submitit goes on after a time limit: with the same again, since what is done is skipped and what was begun is resumed."""
        return DelayedSubmission(self)

    def __call__(self):
        """
        Raises:
            Failed: a run failed, after the others were made.
        """
        signal.signal(signal.SIGTERM, stop)
        if self.device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.device
        torch.set_num_threads(self.threads or int(os.environ.get("SLURM_CPUS_PER_TASK", torch.get_num_threads())))
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        log.setLevel(logging.INFO)
        sweep = Sweep.load(self.output, self.sweep)
        errors = []
        try:
            for run in sweep.chains[self.name].runs:
                self.note(sweep, "running", run=run.job.folder)
                try:
                    make(run.job, run.request.wanted_config(run.job), lambda run=run: start(run), log.info)
                except (UserError, Failed) as error:
                    errors.append(str(error))
                except Exception as error:
                    traceback.print_exc()
                    errors.append(one_line(error))
        except Stopped:
            self.note(sweep, "stopped")
            raise SystemExit(REQUEUE) from None
        if errors:
            self.note(sweep, "failed", error=errors[0])
            raise Failed(errors[0])
        self.note(sweep, "done")

    def note(self, sweep, state, **facts):
        sweep.note_outcome(self.name, state, job=JobEnvironment().job_id, host=socket.gethostname(), pid=os.getpid(), **facts)


def stop(number, frame):
    raise Stopped


def start(run):
    """Makes one run in this process.

    Raises:
        Failed: it ended with an error.
        Stopped: it was asked to end, and has saved what it needs to go on.
    """
    code = train.main(run.arguments)
    if code == REQUEUE:
        raise Stopped
    if code or read_record(run.job.folder) is None:
        raise Failed(last_error() or f"{run.job.folder} ended with exit code {code} and without a record")


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def last_error():
    """The last line of this job's standard error that ``train.py`` marks as one, or None."""
    sys.stderr.flush()
    path = JobEnvironment().paths.stderr
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - LAST_LINES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
