"""Makes the runs of ``run.py``, each in a process of its own, on this machine or on a cluster."""

import argparse
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from subprocess import DEVNULL, PIPE, Popen
from threading import Event, Lock
from typing import Protocol

import torch
from dassl.data.datasets import build_dataset
from yacs.config import CfgNode

from trainers.common.console import counted
from trainers.common.environment import OWN_CORES, usable_cores
from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE, Interrupted
from trainers.common.record_file import RECORD_FILE, Record, read_record
from trainers.common.same_run import OTHER_IMAGES, changes
from trainers.data.images import images_of
from trainers.devices import AUTO, parse_device, wants_cuda

from .arguments import planned_config
from .gpus import visible_gpus
from .on_ray import Cluster
from .plan import PlannedRun, is_recorded
from .runs import chains, plan_runs

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(HERE, "train.py")


class Maker(Protocol):
    """A place that makes runs.

    Attributes:
        at_once: how many are made at the same time.
        is_stopping: whether they were asked to stop.
    """

    at_once: int
    is_stopping: Event

    def make(self, run: PlannedRun) -> int:
        """Makes one run and returns its exit code."""

    def stop(self) -> None:
        """Asks all runs to stop."""

    def close(self) -> None:
        """Give back its places."""


def make(args: argparse.Namespace) -> list[PlannedRun]:
    """Make the missing runs among those that ``run.py``'s arguments plan, and return all of these.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    runs = [
        run for run in plan_runs(args) if args.stage in (None, "test" if run.model else "train")
    ]
    configs = {run: wanted_config(run, args) for run in runs}
    hashes: dict[str, str] = {}
    done = {run for run, cfg in configs.items() if is_done(run, cfg, hashes)}
    number = counted(len(runs), "run")
    log.info("%s: %s, %d done already", " ".join(args.protocol), number, len(done))
    with contextlib.closing(maker_of(args, [*configs.values()])) as maker:
        make_all(runs, done, maker)
    return runs


def maker_of(args: argparse.Namespace, configs: Sequence[CfgNode]) -> Maker:
    """Return the maker for the runs of ``run.py``'s arguments; configs: theirs.

    Raises:
        UserError: Ray is not installed, or has no cluster; or this machine lacks a run's device.
    """
    if args.ray:
        return Cluster(args, PROGRAM)
    for name in sorted({cfg.DEVICE for cfg in configs} - {AUTO}):
        parse_device(name)
    # a run on cuda:1 takes that GPU by itself
    is_spread = any(wants_cuda(cfg) and ":" not in cfg.DEVICE for cfg in configs)
    gpus = visible_gpus() if is_spread else []
    if len(gpus) > 1:
        log.info("%s: %s on each at a time", counted(len(gpus), "GPU"), counted(args.jobs, "run"))
    return Processes(args, gpus)


def wanted_config(run: PlannedRun, args: argparse.Namespace) -> CfgNode:
    """The config that one of the runs would have.

    Raises:
        UserError: as ``planned_config``; also for a setting that contradicts the protocol.
    """
    cfg = planned_config(run, args.root, args.opts)
    node = f"TRAINER.{run.trainer.upper()}"
    if run.model and cfg.TRAINER[run.trainer.upper()].get("CSC"):
        raise UserError(
            f"{node}.CSC gives each class a context of its own: those of the classes it was trained on "
            f"say nothing of others, so {run.protocol} can't be run with it"
        )
    return cfg


def record_of(folder: str) -> Record:
    """The record of the run in a folder; empty where it has none yet."""
    path = f"{folder}/{RECORD_FILE}"
    return read_record(path) if os.path.isfile(path) else {}


def is_done(run: PlannedRun, cfg: CfgNode, hashes: dict[str, str]) -> bool:
    """Whether the run need not be made again.

    Args:
        hashes: of the samples of one's own images that were looked through so far; it grows.

    Raises:
        UserError: its folder holds a run with other settings.
    """
    record = record_of(run.folder)
    if not record:
        return False
    changed = changes(cfg, record)
    # one's own images can change from one run to the next; published data sets don't
    if not changed and cfg.DATASET.NAME == "ImageFolder":
        sample = f"{cfg.DATASET} {cfg.SEED}"
        if sample not in hashes:
            hashes[sample] = images_of(build_dataset(cfg)).split_hash
        if record["split_hash"] != hashes[sample]:
            changed = [OTHER_IMAGES]
    if changed:
        raise UserError(
            f"{run.folder} holds a run with other settings ({'; '.join(changed[:3])}): give another --output, or delete that folder"
        )
    if run.model:  # it may have tested prompts that have been trained again since
        trained = record_of(run.model)
        made_with = ("prompts_hash", "backbone_hash")
        return all(trained.get(key, ...) == record[key] for key in made_with)
    return True


class Processes:
    """Processes of this machine: each sees one of its GPUs, that on which the fewest others run.

    Args:
        args: ``run.py``'s; jobs is the number on a GPU, or, without one, on the machine.
        gpus: what ``CUDA_VISIBLE_DEVICES`` calls each; none where no GPU is chosen for a run.
    """

    def __init__(self, args: argparse.Namespace, gpus: Sequence[str]) -> None:
        self.args = args
        self.at_once = args.jobs * max(1, len(gpus))
        self.is_stopping = Event()
        self.processes: list[Popen[bytes]] = []
        self.on_gpu = dict.fromkeys(gpus, 0)  # GPU → runs that it has
        self.lock = Lock()

    def make(self, run: PlannedRun) -> int:
        """Makes one run, a call of ``train.py``; its bars are on this command's standard error
        where no other run is beside it. Returns its exit code; its errors stand on standard
        error."""
        settings = {}
        if self.at_once > 1:
            threads = max(1, torch.get_num_threads() // self.at_once)
            settings = {
                "OMP_NUM_THREADS": str(threads),
                OWN_CORES: str(max(1, usable_cores() // self.at_once)),
                "TQDM_DISABLE": "1",
            }
        words = run.arguments(self.args.root, self.args.opts)
        with (
            self.gpu() as chosen,
            Popen(
                [sys.executable, PROGRAM, "--with-parent", *words],
                stdin=PIPE,  # whose end tells the process that this one has ended
                stdout=DEVNULL,  # what Dassl prints is kept in a run's log.txt
                env={**os.environ, **settings, **chosen},
                start_new_session=True,  # of Ctrl-C this one hears, and passes on SIGTERM
            ) as process,
        ):
            self.processes.append(process)
            if self.is_stopping.is_set():
                process.terminate()
            return process.wait()

    @contextlib.contextmanager
    def gpu(self) -> Iterator[dict[str, str]]:
        """Takes a GPU for the time of the block; yields the variables that tell a process of it."""
        if not self.on_gpu:
            yield {}
            return
        with self.lock:
            chosen = min(self.on_gpu, key=lambda gpu: self.on_gpu[gpu])
            self.on_gpu[chosen] += 1
        try:
            yield {"CUDA_VISIBLE_DEVICES": chosen}
        finally:
            with self.lock:
                self.on_gpu[chosen] -= 1

    def stop(self) -> None:
        self.is_stopping.set()
        for process in self.processes:
            process.terminate()

    def close(self) -> None:
        pass  # a process ends with its run


def make_all(runs: Sequence[PlannedRun], done: Collection[PlannedRun], maker: Maker) -> None:
    """Make the runs that are not done, and the tests of new trainings. A test waits for
    its training; no place is idle while a run waits.

    Args:
        runs: all planned ones; done: the finished ones among them.

    Raises:
        UserError: one failed, or the prompts that it tests are not trained; started runs
            are finished first, no other is started.
        Interrupted: the command, or a run, was asked to stop; all runs are.
    """
    places = {run: f"[{number}/{len(runs)}]" for number, run in enumerate(runs, 1)}
    waiting: deque[PlannedRun] = deque()
    tests: dict[str, list[PlannedRun]] = {}  # folder of a training → runs that wait for it
    for chain in chains(runs):
        if chain[0].model:
            waiting.extend(chain)
        else:
            waiting.append(chain[0])
            tests[chain[0].folder] = chain[1:]
    trained = set()  # folders of the trainings that are made now
    running: dict[Future[None], PlannedRun] = {}
    with ThreadPoolExecutor(maker.at_once) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < maker.at_once:
                    run = waiting.popleft()
                    if run in done and run.model not in trained:
                        log.info("%s done already: %s", places[run], run.folder)
                        waiting.extendleft(reversed(tests.pop(run.folder, [])))
                        continue
                    check_trained(run)
                    log.info("%s %s", places[run], run.folder)
                    trained.add(run.folder)
                    running[pool.submit(make_one, run, maker)] = run
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(future)
                    future.result()
                    waiting.extendleft(reversed(tests.pop(run.folder, [])))
        except Interrupted:
            maker.stop()
            raise


def check_trained(run: PlannedRun) -> None:
    """Check that the prompts that a run tests are trained.

    Raises:
        UserError: they are not.
    """
    if run.model and not record_of(run.model):
        raise UserError(f"{run.model} is not trained to its end: run the protocol's training first")


def make_one(run: PlannedRun, maker: Maker) -> None:
    """Makes one run.

    Raises:
        UserError: it failed; Interrupted: it was asked to stop, and did.
    """
    code = maker.make(run)
    if code == REQUEUE or maker.is_stopping.is_set():
        raise Interrupted(
            f"the run {run.folder} was asked to stop (exit code {code}): the same command resumes it"
        )
    if code or not is_recorded(run):
        raise UserError(
            f"the run {run.folder} failed (exit code {code}); the lines above say why, or its log.txt, and the same command "
            "resumes it"
        )
