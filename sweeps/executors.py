"""Where the jobs of a sweep run: this machine, or, through submitit, a cluster with Slurm. The same jobs, with the same logs."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import submitit
import torch

from protocols import launch
from trainers.common.errors import UserError
from trainers.common.files import is_running

from .store import Sweep
from .worker import Work

WARNING_SIGNAL = (
    "USR1"  # by which Slurm tells a job of its time limit: train.py waits for it, and then submitit
)
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(
        [launch.HERE, *filter(None, [os.environ.get("PYTHONPATH")])]
    ),  # where a job finds this package
    "SUBMITIT_PREEMPT_SIGNAL": WARNING_SIGNAL,
    "TQDM_DISABLE": "1",  # bars have no place in a log
}
REQUEUES = 100  # time limits that a job may meet before it counts as one that gets nowhere
WARNING = 120  # seconds from Slurm's warning to the end: for the step under way and a checkpoint
ARRAY = 1000  # jobs of an array; Slurm's own default limit is 1001


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (
        [name.strip() for name in chosen.split(",")][:count]
        if chosen
        else [str(number) for number in range(count)]
    )


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Local:
    """Jobs as processes of this machine, which end with the command that runs the sweep: one a GPU; without GPUs one a core. They share the cores.

    Args:
        sweep: a ``Sweep``, whose options may give another number of jobs at once.
    """

    interval = 0.5  # seconds between two looks

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, gpus = sweep, visible_gpus()
        self.at_once = sweep.options["jobs"] or len(gpus) or cores()
        self.devices = [gpus[slot % len(gpus)] if gpus else None for slot in range(self.at_once)]
        self.processes: dict[str, BaseProcess] = {}  # of this command
        self.slots: dict[str, int] = {}

    def alive(self) -> dict[str, str]:
        """name of a chain → ``running``, of those that have a process."""
        if not self.sweep.is_mine:  # another command's, if there is one
            noted = (
                {name: self.sweep.submission(name) for name in self.sweep.chains}
                if self.sweep.is_held()
                else {}
            )
            return {
                name: "running"
                for name, submission in noted.items()
                if submission and is_running(submission["job"])
            }
        self.processes = {
            name: process for name, process in self.processes.items() if process.exitcode is None
        }
        self.interrupt(list(filter(self.sweep.is_cancelled, self.processes)))
        return dict.fromkeys(self.processes, "running")

    def submit(self, waiting: Sequence[str], alive: Mapping[str, str]) -> None:
        """Starts as many of the waiting chains as there is room for."""
        os.environ.update(ENVIRONMENT)
        launch.start_server()
        free = [
            slot
            for slot in range(self.at_once)
            if slot not in {self.slots[name] for name in self.processes}
        ]
        for name, slot in zip(waiting, free):
            log = self.sweep.place(name, "log.txt")
            os.makedirs(os.path.dirname(log), exist_ok=True)
            process = launch.start_process(
                Work(*self.sweep.key, name, log),
                errors=log,
                threads=max(1, cores() // self.at_once),
                device=self.devices[slot],
            )
            self.processes[name], self.slots[name] = process, slot
            self.sweep.note_submission(name, job=process.pid, log=log)

    def cancel(self, names: Sequence[str]) -> None:
        """The command that runs the sweep ends them when it sees that they are marked as cancelled."""

    def interrupt(self, alive: Sequence[str]) -> Sequence[str]:
        """What Ctrl-C does to the jobs that are under way: ends them; each writes a checkpoint first."""
        for name in alive:
            self.processes[name].terminate()
        return alive


class Slurm:
    """Jobs as arrays of a cluster's Slurm.

    Args:
        sweep: a ``Sweep`` with the options partition, gpus, cpus, memory, time, account, qos, and ``jobs``, the number that run at once.

    Raises:
        UserError: there is no Slurm here.
    """

    interval = 5.0

    def __init__(self, sweep: Sweep) -> None:
        if not shutil.which("sbatch") or not shutil.which("squeue"):
            raise UserError(
                "--executor slurm: there is no sbatch or squeue here; start the sweep on a machine from which jobs are submitted"
            )
        self.sweep = sweep
        self.at_once = sweep.options["jobs"] or len(sweep.chains)

    def alive(self) -> dict[str, str]:
        """name of a chain → ``queued`` or ``running``, of those that Slurm has a job of.

        ``squeue`` knows that on every cluster; ``sacct``, which submitit asks, only where accounting is kept.

        Raises:
            UserError: Slurm doesn't answer.
        """
        states = dict(
            line.split()
            for line in slurm(
                "squeue", "--me", "--noheader", "--array", "--format=%i %t"
            ).splitlines()
        )
        found = {}
        for name in self.sweep.chains:
            submission = self.sweep.submission(name)
            state = submission and states.get(submission["job"])
            if state:
                found[name] = "queued" if state in ("PD", "CF", "RQ", "RH", "SE") else "running"
        return found

    def submit(self, waiting: Sequence[str], alive: Mapping[str, str]) -> None:
        """Submits all waiting chains; Slurm sees to how many run at once.

        Raises:
            UserError: Slurm takes none of them; the message is its own.
        """
        for first in range(0, len(waiting), ARRAY):
            names = waiting[first : first + ARRAY]
            try:
                executor = submitit.SlurmExecutor(
                    os.path.join(self.sweep.folder, "slurm"), max_num_timeout=REQUEUES
                )
                executor.update_parameters(**self.parameters())
                jobs = executor.submit_array([Work(*self.sweep.key, name) for name in names])
            except submitit.core.utils.FailedJobError as error:
                raise UserError(f"sbatch refuses: {' '.join(str(error).split())}") from error
            for name, job in zip(names, jobs):
                self.sweep.note_submission(name, job=job.job_id, log=str(job.paths.stderr))

    def parameters(self) -> dict[str, Any]:
        """What stands at the head of the sbatch file, in submitit's names."""
        options = self.sweep.options
        given = {
            "partition": options["partition"],
            "gpus_per_node": options["gpus"],
            "cpus_per_task": options["cpus"],
            "mem": options["memory"],
            "time": options["time"],
            "account": options["account"],
            "qos": options["qos"],
        }
        more = dict(pair.split("=", 1) for pair in options["slurm"])
        return {
            **{key: value for key, value in given.items() if value is not None},
            "job_name": f"sweep-{self.sweep.name}",
            "array_parallelism": self.at_once,
            "setup": [f"export {key}={shlex.quote(value)}" for key, value in ENVIRONMENT.items()],
            "additional_parameters": {
                "requeue": True,
                "signal": f"{WARNING_SIGNAL}@{WARNING}",
                **more,
            },
        }

    def cancel(self, names: Sequence[str]) -> None:
        jobs = [submission["job"] for submission in map(self.sweep.submission, names) if submission]
        if jobs:
            slurm("scancel", *jobs)

    def interrupt(self, alive: Sequence[str]) -> Sequence[str]:
        """What Ctrl-C does to the jobs that are under way: nothing, they are the cluster's."""
        return ()


def slurm(*command: str) -> str:
    """Output of one of Slurm's commands.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise UserError(f"{command[0]} fails: {' '.join(done.stderr.split())}")
    return done.stdout


Executor = Local | Slurm
EXECUTORS: dict[str, type[Executor]] = {"local": Local, "slurm": Slurm}
