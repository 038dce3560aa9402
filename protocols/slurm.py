"""Submits ``run.py`` to a cluster's Slurm in shards, as one job array, through submitit."""

import argparse
import logging
import os
import shlex
import shutil
import signal
from collections.abc import Sequence

from trainers.common.console import counted
from trainers.common.errors import UserError, run_tool
from trainers.common.interruption import Interrupted, interruptible

from . import launch
from .runs import chains, default_output, is_recorded, planned, shard

log = logging.getLogger("run")

LARGEST = 1000  # jobs of an array; Slurm's own limit is 1001
WARNING = 120  # seconds from Slurm's warning to the end: for the step under way and a checkpoint
SHORTEST = 5  # minutes: the warning must not come while a job still starts
REQUEUES = 100  # time limits that a job may meet before it counts as one that gets nowhere


class Shard:
    """The job of one shard; args: ``run.py``'s arguments with the shard."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def __call__(self) -> None:
        """
        Raises:
            SystemExit: a run failed, or the job was asked to stop.
        """
        stopped = 0

        def attempt(args: argparse.Namespace) -> None:
            nonlocal stopped
            try:
                launch.run(args)
            except Interrupted as stop:
                stopped = stop.number
                raise

        with interruptible():
            code = run_tool(attempt, self.args, log)
        if stopped == signal.SIGUSR1:
            signal.raise_signal(signal.SIGUSR1)  # by which submitit, too, knows the time limit
        if code:
            raise SystemExit(code)

    def checkpoint(self) -> object:
        """How submitit goes on after a time limit: with the same, since what is done is skipped and what was started is resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(args: argparse.Namespace) -> None:
    """Submits those of the shards in which a run is missing.

    Raises:
        UserError: there is no Slurm or no submitit here, an option is no pair, or Slurm refuses.
    """
    if not shutil.which("sbatch"):
        raise UserError(
            "--slurm: there is no sbatch here; give the command on a machine from which jobs are submitted"
        )
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError(
            '--slurm needs submitit, which is not installed: pip install ".[slurm]"'
        ) from error
    options = sbatch_options(args.slurm)
    runs = planned(args)
    count = min(args.shards or LARGEST, len(chains(runs)), LARGEST)
    shards = [
        Shard(argparse.Namespace(**{**vars(args), "shard": (number, count)}))
        for number in range(1, count + 1)
        if not all(map(is_recorded, shard(runs, number, count)))
    ]
    if not shards:
        log.info("%s, all done", counted(len(runs), "run"))
        return
    folder = os.path.abspath(os.path.join(args.output or default_output(args.protocol[0]), "slurm"))
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
        executor.update_parameters(**options)
        jobs = executor.submit_array(shards)
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"sbatch refuses: {' '.join(str(error).split())}") from error
    log.info(
        "%d of %d shards submitted as job %s: squeue --me shows them, their logs are in %s, and --plan in place of --slurm says what is done",
        len(shards),
        count,
        jobs[0].job_id.partition("_")[0],
        folder,
    )


def sbatch_options(pairs: Sequence[str]) -> dict[str, object]:
    """KEY=VALUE pairs of sbatch's options as submitit takes them.

    Raises:
        UserError: one is no such pair, or the time is too short.
    """
    options = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise UserError(
                f"--slurm {pair}: it must be KEY=VALUE, with the name of an option of sbatch"
            )
        options[key] = value
    minutes = options.pop("time", "240")
    if not minutes.isdigit() or int(minutes) < SHORTEST:
        raise UserError(
            f"--slurm time={minutes}: it takes minutes, at least {SHORTEST}: a job has to start, and to write a checkpoint"
        )
    environment = {
        "PYTHONPATH": launch.python_path(),
        "SUBMITIT_PREEMPT_SIGNAL": "USR1",
        "TQDM_DISABLE": "1",  # bars have no place in a log
    }
    return {
        "job_name": "run",
        "time": int(minutes),
        "setup": [f"export {name}={shlex.quote(value)}" for name, value in environment.items()],
        "additional_parameters": {"requeue": True, "signal": f"USR1@{WARNING}", **options},
    }
