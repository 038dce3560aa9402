"""Starts runs on this machine, each in a process of its own; ``sweeps`` starts its jobs here too."""

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE, SIGNALS, Interrupted

from . import training
from .plan import Run
from .runs import chains, make, read_record

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A run's process is forked off one that has imported everything: what takes seconds is done once, and no run sees another's state.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["protocols.training"])
STOPPING = threading.Event()  # whether a signal has come, which ends all runs


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended for any reason: else it and the next command would write to one folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is for the processes that ``start_process`` makes
    parent.join()
    os._exit(1)


def in_process(
    function: Callable[..., int | None],
    arguments: Sequence[object],
    errors: str | None,
    threads: int | None,
    device: str | None,
) -> None:
    """Runs in the process that ``start_process`` starts."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    if errors:
        with open(errors, "w") as file:
            os.dup2(file.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if threads:
        torch.set_num_threads(threads)
    sys.exit(function(*arguments))


def start_process(
    function: Callable[..., int | None],
    *arguments: object,
    errors: str | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> BaseProcess:
    """Starts a process that ends with this one, however that ends; its exit code is what ``function`` returns.

    Args:
        function, arguments: as can be pickled. What is printed is thrown away: what Dassl prints is kept in a run's log.txt.
        errors: file for what goes to standard error; None: this process's.
        threads: of torch; device: what CUDA_VISIBLE_DEVICES shall be; None: as they are.
    """
    process: BaseProcess = PROCESSES.Process(
        target=in_process, args=(function, arguments, errors, threads, device)
    )
    process.start()
    return process


def start_server() -> None:
    """Starts the process that runs are forked off. Signals to a whole job must not end it: it knows the runs' exit codes."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [HERE, *filter(None, [os.environ.get("PYTHONPATH")])]
    )  # where the processes find this package
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(process: BaseProcess) -> None:
    """Waits until a run's process has ended, and passes on to it what asks this one to stop."""
    is_told = False
    while process.exitcode is None:
        process.join(0.5)
        if STOPPING.is_set() and not is_told and process.exitcode is None:
            process.terminate()  # SIGTERM
            is_told = True


def start(run: Run, args: argparse.Namespace) -> None:
    """Makes one run in a process of its own; its progress bars are on this one's standard error where no other run is beside it.

    Raises:
        UserError: it failed; what went wrong stands on standard error.
        Interrupted: it was asked to stop, and did.
    """
    alone = args.jobs == 1
    with contextlib.nullcontext() if alone else tempfile.NamedTemporaryFile("r") as errors:
        threads = None if alone else max(1, torch.get_num_threads() // args.jobs)
        process = start_process(
            training.main,
            run.arguments(args.root, args.opts),
            errors=None if errors is None else errors.name,
            threads=threads,
        )
        wait_for(process)
        if process.exitcode == REQUEUE:
            raise Interrupted(
                f"the run {run.folder} was asked to stop (exit code {REQUEUE}): the same command goes on from where it is"
            )
        if process.exitcode or read_record(run.folder) is None:
            if errors is not None:
                sys.stderr.write(errors.read())
            log_file = os.path.join(run.folder, "log.txt")
            where = (
                f"what it printed is in {log_file}"
                if os.path.isfile(log_file)
                else "the line above says why"
            )
            raise UserError(
                f"the run {run.folder} failed (exit code {process.exitcode}); {where}, and the same command goes on from where it "
                "stopped"
            )


def make_all(configs: Mapping[Run, CfgNode], args: argparse.Namespace) -> None:
    """Makes those runs that are not done, ``args.jobs`` at a time; configs: run → its config.

    Raises:
        UserError: one failed, or has a folder with other settings; those that are under way are finished first, no other is started.
    """
    start_server()
    runs = list(configs)
    numbers = {run: number for number, run in enumerate(runs, 1)}
    bar = tqdm(total=len(runs), unit="run", dynamic_ncols=True, disable=args.jobs == 1)

    def make_chain(chain: Sequence[Run]) -> None:
        for run in chain:
            if STOPPING.is_set():
                return
            make(
                run,
                configs[run],
                lambda: start(run, args),
                lambda line: log.info("[%d/%d] %s", numbers[run], len(runs), line),
            )
            bar.update()

    with bar, logging_redirect_tqdm([logging.getLogger()]), ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(make_chain, chain) for chain in chains(runs)]
        STOPPING.clear()
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            if isinstance(error, Interrupted):
                STOPPING.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
