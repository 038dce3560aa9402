"""Submits ``run.py`` to a cluster's Slurm in shards, as one job array, through submitit."""

import argparse
import logging
import os
import shlex
import signal
from collections.abc import Sequence

from submitit import SlurmExecutor
from submitit.helpers import Checkpointable

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.interruption import Interrupted, interruptible

from . import launch
from .plan import default_output, is_recorded
from .runs import chains, plan_runs, shard

log = logging.getLogger("run")

LARGEST = 1000  # jobs of an array; Slurm's own limit is 1001
WARNING = 120  # seconds from Slurm's warning to the end: for the step under way and a checkpoint
SHORTEST = 5  # minutes: the warning must not come while a job still starts
REQUEUES = 100  # time limits that a job may meet before it counts as one that gets nowhere


class Shard(Checkpointable):
    """The job of one shard, which submitit submits again after a time limit: finished runs are
    skipped, started ones resumed.

    args: ``run.py``'s arguments with the shard.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def __call__(self) -> None:
        """Makes the shard's runs.

        Raises:
            UserError: a run failed; Interrupted: the job was asked to stop.
        """
        logging.basicConfig(level=logging.INFO)
        try:
            with interruptible():
                launch.make(self.args)
        except Interrupted as stop:
            if stop.number == signal.SIGUSR1:
                signal.raise_signal(stop.number)  # submitit, too, knows the time limit by it
            raise


def submit(args: argparse.Namespace) -> None:
    """Submit the shards that lack a run.

    Raises:
        UserError: Slurm is not installed, an option is not a pair, or Slurm refuses.
    """
    options = sbatch_options(args.slurm)
    runs = plan_runs(args)
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
        executor = SlurmExecutor(folder, max_num_timeout=REQUEUES)
        executor.update_parameters(**options)
        jobs = executor.submit_array(shards)
    except RuntimeError as error:
        raise UserError(f"--slurm: Slurm refuses: {' '.join(str(error).split())}") from error
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
        UserError: one is not such a pair, or the time is too short.
    """
    try:
        options = dict(pair.split("=", 1) for pair in pairs)
    except ValueError as error:
        raise UserError(
            f"--slurm {' '.join(pairs)}: it takes KEY=VALUE, with the names of sbatch's options"
        ) from error
    minutes = options.pop("time", "240")
    if not minutes.isdigit() or int(minutes) < SHORTEST:
        raise UserError(
            f"--slurm time={minutes}: it takes minutes, at least {SHORTEST}: a job has to start, and to write a checkpoint"
        )
    environment = {
        "PYTHONPATH": os.pathsep.join([launch.HERE, os.environ.get("PYTHONPATH", launch.HERE)]),
        "SUBMITIT_PREEMPT_SIGNAL": "USR1",
        "TQDM_DISABLE": "1",  # bars have no place in a log
    }
    return {
        "job_name": "run",
        "time": int(minutes),
        "setup": [f"export {name}={shlex.quote(value)}" for name, value in environment.items()],
        "additional_parameters": {"requeue": True, "signal": f"USR1@{WARNING}", **options},
    }
