"""Runs a whole protocol: trains what is missing, tests what is trained, prints the table.

    python run.py --protocol base2new --trainer CDC --dataset openmoji --seeds 1 2 3
    python run.py --protocol fewshot --trainer CoOp CDC --dataset openmoji --shots 1 4 16 --jobs 2
    python run.py --protocol ablation --trainer CDC --dataset openmoji --seeds 1 2 3 4 5 --rows full views

A run whose results.json exists is done and skipped; any other is begun, or resumed from its last checkpoint. Each run has a process of
its own; with --jobs several go side by side and share the cores. Input that can't work ends with one line on standard error and exit
code 2. SIGTERM and SIGUSR1 are passed on to the runs, which write their checkpoints; then the exit code is 75: start the same command again.
"""
import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from protocols import training as train
from protocols.plan import PROTOCOLS, Job
from protocols.runs import Request, chains, default_output, is_done, make, read_record, summary
from trainers.common.errors import UserError, run_tool
from trainers.common.interruption import REQUEUE, Interrupted, asked_by, ignored, noticed

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.abspath(__file__))
# A run's process is forked off one that has imported everything: what takes seconds is done once, and no run sees another's state.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train"])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--trainer", nargs="+", required=True, help="registered names: CDC, CoOp, MaPLe …")
    parser.add_argument("--dataset", nargs="+", default=["openmoji"], help="files of configs/datasets; for xd and dg the source")
    parser.add_argument("--shots", nargs="+", type=int, help="training images a class (the recipe's, else 16; fewshot: 1 2 4 8 16)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--config", help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)")
    parser.add_argument("--rows", nargs="+", metavar="NAME",
                        help="rows of configs/ablations/<trainer>.yaml (ablation: all of them; factors: the recipe)")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--output", help="folder of the runs (default: output/<protocol>, for xd and dg output/transfer)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (1, whose progress is shown; more share the CPU's cores)")
    parser.add_argument("--stage", choices=("train", "test"), help="only train, or only test what is trained; no table then")
    parser.add_argument("--plan", action="store_true", help="print every run with its recipe, shots, epochs, learning rate and the recipe's rules "
                        "that set them; nothing is started")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="behind --: pairs over all config files, as in train.py; the settings of "
                        "an ablation's rows come on top")
    return parser.parse_args(arguments)


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended, however: left behind, it would write where the next command does."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is for the processes that ``start`` makes
    parent.join()
    os._exit(1)


def make_run(arguments: Sequence[str], errors: str | None, threads: int | None) -> None:
    """The process of a run: what Dassl prints is kept in log.txt, what goes to standard error in the file ``errors``, if there is one."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    if errors:
        with open(errors, "w") as file:
            os.dup2(file.fileno(), 2)
    if threads:
        torch.set_num_threads(threads)
    sys.exit(train.main(arguments))


def start_server() -> None:
    """Starts the process that runs are forked off. Signals to a whole job must not end it: it knows the runs' exit codes."""
    with ignored():
        forkserver.ensure_running()


def wait_for(process: BaseProcess) -> None:
    """Waits until a run's process has ended, and passes on to it what asks this one to stop."""
    is_told = False
    while process.exitcode is None:
        process.join(0.5)
        if asked_by() and not is_told and process.exitcode is None:
            process.terminate()  # SIGTERM
            is_told = True


def start(job: Job, args: argparse.Namespace) -> None:
    """Makes one run in a process of its own; its progress bars are on this one's standard error where no other run is beside it.

    Raises:
        UserError: it failed; what went wrong stands on standard error.
        Interrupted: it was asked to stop, and did.
    """
    alone = args.jobs == 1
    with contextlib.nullcontext() if alone else tempfile.NamedTemporaryFile("r") as errors:
        threads = None if alone else max(1, torch.get_num_threads() // args.jobs)
        process = PROCESSES.Process(target=make_run, args=(job.arguments(args.root, args.opts), None if errors is None else errors.name, threads))
        process.start()
        wait_for(process)
        if process.exitcode == REQUEUE:
            raise Interrupted(f"the run {job.folder} was asked to stop (exit code {REQUEUE}): the same command goes on from where it is")
        if process.exitcode or read_record(job.folder) is None:
            if errors is not None:
                sys.stderr.write(errors.read())
            log_file = os.path.join(job.folder, "log.txt")
            where = f"what it printed is in {log_file}" if os.path.isfile(log_file) else "the line above says why"
            raise UserError(f"the run {job.folder} failed (exit code {process.exitcode}); {where}, and the same command goes on from where it "
                            "stopped")


def make_all(configs: Mapping[Job, CfgNode], args: argparse.Namespace) -> None:
    """Makes those runs that are not done, ``args.jobs`` at a time; configs: job → its config.

    Raises:
        UserError: one failed, or has a folder with other settings; those that are under way are finished first, no other is begun.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])  # where the processes find train.py
    start_server()
    jobs = list(configs)
    numbers = {job: number for number, job in enumerate(jobs, 1)}
    bar = tqdm(total=len(jobs), unit="run", dynamic_ncols=True, disable=args.jobs == 1)

    def make_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            if asked_by():
                raise Interrupted(f"{asked_by()}: {job.folder} is not begun; the same command goes on from here (exit code {REQUEUE})")
            make(job, configs[job], lambda: start(job, args), lambda line: log.info("[%d/%d] %s", numbers[job], len(jobs), line))
            bar.update()

    with bar, logging_redirect_tqdm([logging.getLogger()]), ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(make_chain, chain) for chain in chains(jobs)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run(args: argparse.Namespace) -> None:
    """All runs of the protocol for all trainers and data sets.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    output = args.output or default_output(args.protocol)
    request = Request(args.protocol, args.trainer, args.dataset, args.seeds, output, args.shots, args.config, args.rows, args.root, args.opts)
    if args.plan:
        sys.stdout.write(request.plan())
        return
    jobs = [job for job in request.jobs() if args.stage in (None, "test" if job.model else "train")]
    configs = {job: request.wanted_config(job) for job in jobs}
    done = sum(is_done(job, cfg) for job, cfg in configs.items())
    log.info("%s: %d runs, %d done already", args.protocol, len(jobs), done)
    make_all(configs, args)
    if args.stage is None:
        text, curves = summary(args.protocol, output)
        sys.stdout.write(text)
        for path in curves:
            log.info("curve: %s", path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    try:
        with noticed():
            return run_tool(run, parse_arguments(arguments), log)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return REQUEUE


if __name__ == "__main__":
    sys.exit(main())
