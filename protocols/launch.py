"""Makes the runs of ``run.py`` on this machine, each in a process of its own."""

import argparse
import logging
import os
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from subprocess import DEVNULL, PIPE, Popen
from threading import Event

import torch
from dassl.data.datasets import build_dataset
from yacs.config import CfgNode

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE, Interrupted
from trainers.common.record_file import FILE_NAME, Record, read_record
from trainers.common.same_run import OTHER_IMAGES, changes
from trainers.data.images import images_of

from .arguments import planned_config
from .plan import PlannedRun, is_recorded
from .runs import chains, planned

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make(args: argparse.Namespace) -> list[PlannedRun]:
    """Makes what is missing of the runs that ``run.py``'s arguments ask for, and returns all of these.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    runs = [run for run in planned(args) if args.stage in (None, "test" if run.model else "train")]
    configs = {run: wanted_config(run, args) for run in runs}
    hashes: dict[str, str] = {}
    done = {run for run, cfg in configs.items() if is_done(run, cfg, hashes)}
    number = counted(len(runs), "run")
    log.info("%s: %s, %d done already", " ".join(args.protocol), number, len(done))
    Launcher(runs, done, args).make_all()
    return runs


def wanted_config(run: PlannedRun, args: argparse.Namespace) -> CfgNode:
    """The config that one of the runs would have.

    Raises:
        UserError: see ``planned_config``; also for a setting that contradicts the protocol.
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
    path = f"{folder}/{FILE_NAME}"
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


@dataclass
class Launcher:
    """Makes those runs that are not done, ``args.jobs`` at a time.

    Attributes:
        runs: all that are asked for; done: those of them that are done; args: ``run.py``'s.
    """

    runs: Sequence[PlannedRun]
    done: Collection[PlannedRun]
    args: argparse.Namespace
    processes: list[Popen[bytes]] = field(default_factory=list)
    is_stopping: Event = field(default_factory=Event)

    def make_all(self) -> None:
        """Makes what is missing.

        Raises:
            UserError: one failed, or the prompts that it tests are not trained; those that are
                under way are finished first, no other is started.
            Interrupted: the command, or a run, was asked to stop; all runs are.
        """
        with ThreadPoolExecutor(self.args.jobs) as pool:
            try:
                for future in [pool.submit(self.make_chain, chain) for chain in chains(self.runs)]:
                    future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, Interrupted):
                    self.is_stopping.set()
                    for process in self.processes:
                        process.terminate()
                raise

    def make_chain(self, chain: Sequence[PlannedRun]) -> None:
        """Makes a training and the tests of its prompts, which are made again after it."""
        is_made = False
        for run in chain:
            is_made = is_made or run not in self.done
            line = run.folder if is_made else f"done already: {run.folder}"
            if is_made and run.model and not record_of(run.model):
                raise UserError(
                    f"{run.model} is not trained to its end: run the protocol's training first"
                )
            log.info("[%d/%d] %s", self.runs.index(run) + 1, len(self.runs), line)
            if is_made:
                self.make(run)

    def make(self, run: PlannedRun) -> None:
        """Makes one run, a call of ``train.py``; its bars are on this command's standard error
        where no other run is beside it.

        Raises:
            UserError: it failed; what went wrong stands on standard error.
            Interrupted: it was asked to stop, and did.
        """
        settings = {}
        if self.args.jobs > 1:
            threads = max(1, torch.get_num_threads() // self.args.jobs)
            settings = {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        words = run.arguments(self.args.root, self.args.opts)
        with Popen(
            [sys.executable, os.path.join(HERE, "train.py"), "--with-parent", *words],
            stdin=PIPE,  # whose end tells the process that this one has ended
            stdout=DEVNULL,  # what Dassl prints is kept in a run's log.txt
            env={**os.environ, **settings},
            start_new_session=True,  # of Ctrl-C this one hears, and passes on SIGTERM
        ) as process:
            self.processes.append(process)
            if self.is_stopping.is_set():
                process.terminate()
            code = process.wait()
        if code == REQUEUE or self.is_stopping.is_set():
            raise Interrupted(
                f"the run {run.folder} was asked to stop (exit code {code}): the same command resumes it"
            )
        if code or not is_recorded(run):
            raise UserError(
                f"the run {run.folder} failed (exit code {code}); the lines above say why, or its log.txt, and the same command "
                "resumes it"
            )
