"""Makes the runs of ``run.py`` on the machines of a Ray cluster; Ray starts them, and again where a
machine is lost."""

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from subprocess import DEVNULL, PIPE, Popen

from trainers.common.environment import OWN_CORES
from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE

from .plan import PlannedRun, is_recorded

log = logging.getLogger("run")

MOST_RUNS = 1000  # runs that wait in Ray's queue or are under way; a thread here waits for each
RETRIES = 100  # machines that a run may lose before it is given up
DISK_PATIENCE = 60  # seconds after which a shared disk shows another machine's files
END = 2000  # characters of a failed run's last words


class Stopped(Exception):
    """A run was asked to stop on its machine, which is about to go: it is to be started again."""


def work(words: Sequence[str], folder: str, cores: float) -> tuple[int, str]:
    """Makes one run on one of the machines.

    Args:
        words: of the command after Python's name; folder: which relative paths start from.
        cores: that are its own.

    Returns:
        its exit code, and the end of its standard error.

    Raises:
        Stopped: it was asked to stop, not by this command.
    """
    with Popen(
        [sys.executable, *words],
        cwd=folder,
        stdin=PIPE,  # whose end tells the process that this one has ended
        stdout=DEVNULL,
        stderr=PIPE,
        env={**os.environ, "TQDM_DISABLE": "1", OWN_CORES: str(max(1, int(cores)))},
    ) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.read().decode(errors="backslashreplace")
            code = process.wait()
        except BaseException:  # it is cancelled
            process.terminate()
            raise
    if code == REQUEUE:
        raise Stopped(said[-END:])
    return code, said[-END:]


class Cluster:
    """A Ray cluster; each run has a GPU, or a part of one, or, where the cluster has none, processors.

    Args:
        args: ``run.py``'s; ``ray`` is the address, as ``ray.init`` takes it.
        program: path of ``train.py``, the same on all machines.

    Raises:
        UserError: Ray is not installed, or has no cluster.
    """

    at_once = MOST_RUNS

    def __init__(self, args: argparse.Namespace, program: str) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError(
                "--ray needs Ray, here and on the cluster: pip install 'ray[data]', or leave out --ray"
            ) from error
        here = os.path.dirname(program)
        paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        try:
            ray.init(
                args.ray,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": paths}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--ray {args.ray}: no cluster is reached ({str(error) or type(error).__name__}): start one with ray start "
                "--head, or give the address of one that runs"
            ) from error
        self.ray = ray
        self.args = args
        self.program = program
        self.is_stopping = threading.Event()
        self.tasks: dict[PlannedRun, object] = {}
        share = share_of(ray.nodes(), args.jobs)
        log.info("Ray: each run takes %s", " and ".join(f"{n:g} {of}" for of, n in share.items()))
        self.cores = share["CPU"]
        self.task = ray.remote(work).options(
            num_gpus=share.get("GPU", 0),
            num_cpus=share["CPU"],
            max_retries=RETRIES,
            retry_exceptions=[Stopped],
        )

    def make(self, run: PlannedRun) -> int:
        """Makes one run and returns its exit code.

        Raises:
            UserError: Ray gives it up.
        """
        words = [self.program, "--with-parent", *run.arguments(self.args.root, self.args.opts)]
        self.tasks[run] = self.task.remote(words, os.getcwd(), self.cores)
        if self.is_stopping.is_set():
            self.ray.cancel(self.tasks[run])
        try:
            code, said = self.ray.get(self.tasks[run])
        except self.ray.exceptions.RayError as error:
            if self.is_stopping.is_set():
                return REQUEUE
            raise UserError(
                f"--ray {self.args.ray}: {run.folder}: {str(error).strip().splitlines()[-1]}"
            ) from error
        finally:
            del self.tasks[run]
        if code:
            sys.stderr.write(said)
        last = time.monotonic() + DISK_PATIENCE
        while not code and not is_recorded(run) and time.monotonic() < last:
            time.sleep(1)
        return int(code)

    def stop(self) -> None:
        """Asks all runs to stop."""
        self.is_stopping.set()
        for task in [*self.tasks.values()]:
            self.ray.cancel(task)

    def close(self) -> None:
        """Leaves the cluster."""
        self.ray.shutdown()


def share_of(nodes: Sequence[dict[str, object]], jobs: int) -> dict[str, float]:
    """Return one run's share of a machine: resource → number.

    Args:
        nodes: of the cluster, as ``ray.nodes`` gives them.
        jobs: how many runs are to share a GPU, or, where the cluster has none, a machine.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [machine["GPU"] for machine in machines if machine.get("GPU")]  # type: ignore[attr-defined,index]
    if gpus:
        return {"GPU": 1 / jobs, "CPU": 1}
    cores = min(machine["CPU"] for machine in machines if machine.get("CPU"))  # type: ignore[attr-defined,index]
    return {"CPU": max(1, int(cores) // jobs)}
