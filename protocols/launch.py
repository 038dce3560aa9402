"""Makes the runs of ``run.py`` on this machine, each in a process of its own, and shows what comes of them."""

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver

import torch
from dassl.data.datasets import build_dataset
from tabulate import tabulate
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from trainers.common.console import counted
from trainers.common.errors import UserError
from trainers.common.fingerprints import split_hash
from trainers.common.interruption import REQUEUE, SIGNALS, Interrupted
from trainers.common.record_file import FILE_NAME, Record, nested, read_record
from trainers.engine.same_run import OTHER_IMAGES, changes

from . import training
from .arguments import build_config
from .command_line import parse_arguments
from .plan import PlannedRun
from .runs import LINE, by_line, chains, default_output, is_recorded, planned, seeds_of

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A run's process is forked off one that has imported everything: what takes seconds is done once, and no run sees another's state.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["protocols.training"])
STOPPING = threading.Event()  # whether a signal has come, which ends all runs


def run(args: argparse.Namespace) -> None:
    """Makes what is missing of the runs that ``run.py``'s arguments ask for, and prints the tables.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    runs = [run for run in planned(args) if args.stage in (None, "test" if run.model else "train")]
    configs = {run: wanted_config(run, args) for run in runs}
    hashes: dict[tuple[object, ...], str] = {}
    done = {run for run, cfg in configs.items() if is_done(run, cfg, hashes)}
    number = counted(len(runs), "run")
    log.info("%s: %s, %d done already", " ".join(args.protocol), number, len(done))
    make_all(runs, done, args)
    if args.stage or args.shard != (1, 1):
        sys.stdout.write(accuracies(runs))
        return
    protocols: dict[str, list[str]] = {}
    for protocol in args.protocol:
        protocols.setdefault(args.output or default_output(protocol), []).append(protocol)
    sys.stdout.write("\n".join(summary(names, output) for output, names in protocols.items()))


def wanted_config(run: PlannedRun, args: argparse.Namespace) -> CfgNode:
    """The config that one of the runs would have.

    Raises:
        UserError: see ``build_config``; also for a setting that contradicts the protocol.
    """
    cfg = build_config(parse_arguments(run.arguments(args.root, args.opts)))
    node = f"TRAINER.{run.trainer.upper()}"
    if run.model and cfg.TRAINER[run.trainer.upper()].get("CSC"):
        raise UserError(
            f"{node}.CSC gives each class a context of its own: those of the classes it was trained on "
            f"say nothing of others, so {run.protocol} can't be run with it"
        )
    return cfg


def record_of(folder: str) -> Record | None:
    """The run record in a folder, or None where the run is not done."""
    path = os.path.join(folder, FILE_NAME)
    return read_record(path) if os.path.isfile(path) else None


def is_done(run: PlannedRun, cfg: CfgNode, hashes: dict[tuple[object, ...], str]) -> bool:
    """Whether the run need not be made again.

    Args:
        hashes: few-shot sample of one's own images → its ``split_hash``, for the next run with it.

    Raises:
        UserError: its folder holds a run with other settings.
    """
    record = record_of(run.folder)
    if record is None:
        return False
    changed = changes(cfg, record)
    if not changed and cfg.DATASET.NAME == "ImageFolder":
        # one's own images can change from one run to the next; published data sets don't
        data = cfg.DATASET
        sample = data.ROOT, cfg.SEED, data.NUM_SHOTS, data.SUBSAMPLE_CLASSES
        if sample not in hashes:
            hashes[sample] = split_hash(build_dataset(cfg))
        if record["split_hash"] != hashes[sample]:
            changed = [OTHER_IMAGES]
    if changed:
        raise UserError(
            f"{run.folder} holds a run with other settings ({'; '.join(changed[:3])}): give another --output, or delete that folder"
        )
    if run.model:  # it may have tested prompts that have been trained again since
        trained = record_of(run.model)
        return trained is not None and all(
            trained[key] == record[key] for key in ("prompts_hash", "backbone_hash")
        )
    return True


def make_all(
    runs: Sequence[PlannedRun], done: Iterable[PlannedRun], args: argparse.Namespace
) -> None:
    """Makes those runs that are not done, ``args.jobs`` at a time.

    Raises:
        UserError: one failed, or the prompts that it tests are not trained; those that are under way are finished first, no other is started.
    """
    start_server()
    numbers = {run: number for number, run in enumerate(runs, 1)}
    bar = tqdm(total=len(runs), unit="run", dynamic_ncols=True, disable=args.jobs == 1)

    def make_chain(chain: Sequence[PlannedRun]) -> None:
        again = False
        for run in chain:
            if STOPPING.is_set():
                return
            is_made = run not in done or again
            again = again or is_made  # prompts that are trained again are tested again
            line = run.folder if is_made else f"done already: {run.folder}"
            if is_made and run.model and record_of(run.model) is None:
                raise UserError(
                    f"{run.model} is not trained to its end: run the protocol's training first"
                )
            log.info("[%d/%d] %s", numbers[run], len(runs), line)
            if is_made:
                start(run, args)
            bar.update()

    with bar, logging_redirect_tqdm([logging.getLogger()]), ThreadPoolExecutor(args.jobs) as pool:
        STOPPING.clear()
        futures = [pool.submit(make_chain, chain) for chain in chains(runs)]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            if isinstance(error, Interrupted):
                STOPPING.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def start(run: PlannedRun, args: argparse.Namespace) -> None:
    """Makes one run in a process of its own; its progress bars are on this one's standard error where no other run is beside it.

    Raises:
        UserError: it failed; what went wrong stands on standard error.
        Interrupted: it was asked to stop, and did.
    """
    alone = args.jobs == 1
    with contextlib.nullcontext() if alone else tempfile.NamedTemporaryFile("r") as errors:
        threads = None if alone else max(1, torch.get_num_threads() // args.jobs)
        words = run.arguments(args.root, args.opts)
        code = exit_code_of(words, errors.name if errors else None, threads)
        if code == REQUEUE:
            raise Interrupted(
                f"the run {run.folder} was asked to stop (exit code {REQUEUE}): the same command resumes it"
            )
        if code or not is_recorded(run):
            if errors is not None:
                sys.stderr.write(errors.read())
            log_file = os.path.join(run.folder, "log.txt")
            where = "the line above says why"
            if os.path.isfile(log_file):
                where = f"what it printed is in {log_file}"
            raise UserError(
                f"the run {run.folder} failed (exit code {code}); {where}, and the same command resumes it"
            )


def exit_code_of(arguments: Sequence[str], errors: str | None, threads: int | None) -> int:
    """Exit code of ``train.py`` in a process that ends with this one, however that ends; what asks this one to stop is passed on to it."""
    process = PROCESSES.Process(target=train, args=(arguments, errors, threads))
    process.start()
    is_told = False
    while process.exitcode is None:
        process.join(0.5)
        if STOPPING.is_set() and not is_told and process.exitcode is None:
            process.terminate()  # SIGTERM
            is_told = True
    return process.exitcode


def train(arguments: Sequence[str], errors: str | None, threads: int | None) -> None:
    """What that process does.

    Args:
        arguments: of ``train.py``. What is printed is thrown away: what Dassl prints is kept in a run's log.txt.
        errors: file for what goes to standard error; None: this process's.
        threads: of torch; None: as they are.
    """
    threading.Thread(target=end_with_parent, daemon=True).start()
    for number in SIGNALS:  # which the process that this one is forked off ignores
        if number != signal.SIGINT:  # of Ctrl-C the command hears, and passes on SIGTERM
            signal.signal(number, signal.SIG_DFL)
    for path, descriptor in ((os.devnull, 1), (errors, 2)):
        if path:
            with open(path, "w") as file:
                os.dup2(file.fileno(), descriptor)
    if threads:
        torch.set_num_threads(threads)
    sys.exit(training.main(arguments))


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended for any reason: else it and the next command would write to one folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def start_server() -> None:
    """Starts the process that runs are forked off. Signals to a whole job must not end it: it knows the runs' exit codes."""
    os.environ["PYTHONPATH"] = python_path()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def python_path() -> str:
    """PYTHONPATH of a process that is to find this package."""
    return os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])


def accuracies(runs: Iterable[PlannedRun]) -> str:
    """A table of the runs' accuracies: the mean over the seeds, and the sample standard deviation."""
    rows = []
    for line, group in by_line(filter(is_recorded, runs)).items():
        values = [nested(record_of(run.folder), "metrics", "test", "accuracy") for run in group]
        values = [value for value in values if value is not None]
        figure = f"{statistics.mean(values):.2f}" if values else "not tested"
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        rows.append((*line, seeds_of(group), figure + spread))
    return tabulate(rows, [*LINE, "seeds", "accuracy"], "simple", disable_numparse=True) + "\n"


def summary(protocols: Sequence[str], output: str) -> str:
    """The tables of the protocols whose runs lie in a folder.

    Raises:
        UserError: no run there is done.
    """
    from analysis.ablation import collect_ablations, render_ablations
    from results.render import render_all
    from results.runs import collect
    from results.table import tables

    if "ablation" in protocols:
        return render_ablations(collect_ablations(output))
    # without base-to-new's where only its trainings are done
    return render_all([table for table in tables(collect(output)) if len(table.frame)])
