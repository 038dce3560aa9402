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
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import forkserver

import torch
from dassl.engine import TRAINER_REGISTRY
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import train
from protocols import PROTOCOLS, SHOTS, plan
from results.ablation import collect_ablations, render_ablations
from results.curve import draw_curves
from results.table import collect, render_all
from trainers.checkpoint import config_of_run
from trainers.errors import UserError, nearest, run_tool
from trainers.interruption import REQUEUE, Interrupted, asked_by, ignored, noticed
from trainers.run_record import FILE_NAME, plain

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.abspath(__file__))
# A run's process is forked off one that has imported everything: what takes seconds is done once, and no run sees another's state.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train"])
FOLDERS = {"xd": "transfer", "dg": "transfer"}  # both test the same training on a source; the others: the protocol's name
# Trainings on all classes that two protocols ask for, by the names of the folders: the same run where recipe and shots are the same.
TWINS = {("transfer", "train_source"): ("fewshot", "train_all"), ("fewshot", "train_all"): ("transfer", "train_source")}
# What may differ between a done run and the one that is asked for: places and things that change no figure.
NO_MATTER = ("OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.TEST.BATCH_SIZE",
             "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_STEPS", "TRAIN.CHECKPOINT_MINUTES")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--trainer", nargs="+", required=True, help="registered names: CDC, CoOp, MaPLe …")
    parser.add_argument("--dataset", nargs="+", default=["openmoji"], help="files of configs/datasets; for xd and dg the source")
    parser.add_argument("--shots", nargs="+", type=int, help="training images a class (16; fewshot: 1 2 4 8 16)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--config", help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows of configs/ablations/<trainer>.yaml (ablation: all of them)")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--output", help="folder of the runs (default: output/<protocol>, for xd and dg output/transfer)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (1, whose progress is shown; more share the CPU's cores)")
    parser.add_argument("--stage", choices=("train", "test"), help="only train, or only test what is trained; no table then")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="behind --: pairs over all config files, as in train.py; the settings of "
                        "an ablation's rows come on top")
    return parser.parse_args(arguments)


def wanted_config(job, args):
    """The config that a run would have.

    Raises:
        UserError: see ``train.build_config``; also for a setting that contradicts the protocol.
    """
    cfg = train.build_config(train.parse_arguments(job.arguments(args.root, args.opts)))
    if job.model and cfg.TRAINER[job.trainer.upper()].get("CSC"):
        raise UserError(f"TRAINER.{job.trainer.upper()}.CSC gives each class a context of its own: those of the classes it was trained on "
                        f"say nothing of others, so {args.protocol} can't be run with it")
    return cfg


def read_record(folder):
    """The run record, or None where the run is not done."""
    path = os.path.join(folder, FILE_NAME)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def is_done(job, cfg):
    """Whether the run need not be made again.

    Raises:
        UserError: its folder holds a run with other settings.
    """
    record = read_record(job.folder)
    if record is None:
        return False
    now, then = (config_of_run(config, NO_MATTER) for config in (json.loads(json.dumps(plain(cfg))), record["config"]))
    changed = [f"{key} {then[key]} → {now[key]}" for key in sorted(now.keys() & then.keys()) if now[key] != then[key]]
    if changed:
        raise UserError(f"{job.folder} holds a run with other settings ({'; '.join(changed[:3])}): give another --output, or delete that folder")
    if job.model:  # it may have tested prompts that have been trained anew since
        trained = read_record(job.model)
        return trained is not None and all(trained[key] == record[key] for key in ("prompts_hash", "backbone_hash"))
    return True


def end_with_parent():
    """Ends this process when the one that started it has ended, however: left behind, it would write where the next command does."""
    multiprocessing.parent_process().join()
    os._exit(1)


def make_run(arguments, errors, threads):
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


def start_server():
    """Starts the process that runs are forked off. Signals to a whole job must not end it: it knows the runs' exit codes."""
    with ignored():
        forkserver.ensure_running()


def wait_for(process):
    """Waits until a run's process has ended, and passes on to it what asks this one to stop."""
    is_told = False
    while process.exitcode is None:
        process.join(0.5)
        if asked_by() and not is_told and process.exitcode is None:
            os.kill(process.pid, signal.SIGTERM)
            is_told = True


def start(job, args):
    """Makes one run in a process of its own; its progress bars are on this one's standard error where no other run is beside it.

    Raises:
        UserError: it failed; what went wrong stands on standard error.
        Interrupted: it was asked to stop, and did.
    """
    alone = args.jobs == 1
    with contextlib.nullcontext() if alone else tempfile.NamedTemporaryFile("r") as errors:
        threads = None if alone else max(1, torch.get_num_threads() // args.jobs)
        process = PROCESSES.Process(target=make_run, args=(job.arguments(args.root, args.opts), None if alone else errors.name, threads))
        process.start()
        wait_for(process)
        if process.exitcode == REQUEUE:
            raise Interrupted(f"the run {job.folder} was asked to stop (exit code {REQUEUE}): the same command goes on from where it is")
        if process.exitcode or read_record(job.folder) is None:
            if not alone:
                sys.stderr.write(errors.read())
            raise UserError(f"the run {job.folder} failed (exit code {process.exitcode}); what it printed is in {job.folder}/log.txt, and the "
                            "same command goes on from where it stopped")


def twin(job):
    """The job in the folder where another protocol would have made the same run; None where none does."""
    parts = os.path.abspath(job.folder).split(os.sep)
    other = TWINS.get(tuple(parts[-7:-5]))  # <protocol's folder>/<part>/<data set>/shots_<N>/<trainer>/<config>/seed<S>
    return other and replace(job, folder=os.sep.join([*parts[:-7], *other, *parts[-5:]]))


def take_over(job, cfg):
    """Copies the run from where another protocol has made it; returns whether there was one, with the same settings in all that matters."""
    other = twin(job)
    if other is None or os.path.exists(job.folder):
        return False
    try:
        if not is_done(other, cfg):
            return False
    except UserError:  # it has other settings
        return False
    os.makedirs(os.path.dirname(job.folder), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(job.folder)) as temporary:
        copy = shutil.copytree(other.folder, os.path.join(temporary, "copy"))
        os.rename(copy, job.folder)
    return True


def chains(jobs):
    """The jobs as lists that don't depend on each other: each a training and the tests of its prompts, or a test alone."""
    found = {}
    for job in jobs:
        found.setdefault(job.model or job.folder, []).append(job)
    return list(found.values())


def make_all(configs, args):
    """Makes those runs that are not done, ``args.jobs`` at a time; configs: job → its config.

    Raises:
        UserError: one failed, or has a folder with other settings; those that are under way are finished first, no other is begun.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])  # where the processes find train.py
    start_server()
    jobs = list(configs)
    numbers = {job: number for number, job in enumerate(jobs, 1)}
    bar = tqdm(total=len(jobs), unit="run", dynamic_ncols=True, disable=args.jobs == 1)

    def make(chain):
        for job in chain:
            if asked_by():
                raise Interrupted(f"{asked_by()}: {job.folder} is not begun; the same command goes on from here (exit code {REQUEUE})")
            if is_done(job, configs[job]):
                log.info("[%d/%d] done already: %s", numbers[job], len(jobs), job.folder)
            elif job.model and read_record(job.model) is None:
                raise UserError(f"{job.model} is not trained to its end: run the protocol's training first")
            elif take_over(job, configs[job]):
                log.info("[%d/%d] the same run is done in %s, copied to %s", numbers[job], len(jobs), twin(job).folder, job.folder)
            else:
                log.info("[%d/%d] %s", numbers[job], len(jobs), job.folder)
                start(job, args)
            bar.update()

    with bar, logging_redirect_tqdm([logging.getLogger()]), ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(make, chain) for chain in chains(jobs)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run(args):
    """All runs of the protocol for all trainers and data sets.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    known = TRAINER_REGISTRY.registered_names()
    for trainer in args.trainer:
        if trainer not in known:
            raise UserError(f"unknown trainer {trainer!r}{nearest(trainer, known)}; known: {', '.join(sorted(known))}")
        if args.protocol == "zeroshot" and getattr(TRAINER_REGISTRY.get(trainer), "learns", True):
            raise UserError(f"zeroshot is for trainers that learn nothing, {trainer} does: its own protocols are {', '.join(PROTOCOLS[:-1])}")
    output = args.output or os.path.join("output", FOLDERS.get(args.protocol, args.protocol))
    shots = args.shots or SHOTS.get(args.protocol, (16,))
    if min(shots) < 1 or min(args.seeds) < 0:
        raise UserError("--shots must be at least 1 and --seeds at least 0")
    if args.rows and args.protocol != "ablation":
        raise UserError(f"--rows are those of --protocol ablation, {args.protocol} has none: leave it out")
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    jobs = [job for dataset in args.dataset for trainer in args.trainer
            for job in plan(args.protocol, trainer, dataset, shots, args.seeds, output, args.config, args.rows)]
    jobs = [job for job in jobs if args.stage in (None, "test" if job.model else "train")]
    configs = {job: wanted_config(job, args) for job in jobs}
    done = sum(is_done(job, cfg) for job, cfg in configs.items())
    log.info("%s: %d runs, %d done already", args.protocol, len(jobs), done)
    make_all(configs, args)
    if args.stage is None and args.protocol == "ablation":
        sys.stdout.write(render_ablations(collect_ablations(output)))
    elif args.stage is None:
        found = collect(output)
        sys.stdout.write(render_all(found))
        if args.protocol == "fewshot":
            for path in draw_curves(next(table for table in found if table.title.startswith("few-shot")), output):
                log.info("curve: %s", path)


def main(arguments=None):
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    try:
        with noticed():
            return run_tool(run, parse_arguments(arguments), log)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return REQUEUE


if __name__ == "__main__":
    sys.exit(main())
