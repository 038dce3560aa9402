"""Runs a whole protocol: trains what is missing, tests what is trained, prints the table.

    python run.py --protocol base2new --trainer CDC --dataset openmoji --seeds 1 2 3
    python run.py --protocol fewshot --trainer CoOp CDC --dataset openmoji --shots 1 4 16

A run whose results.json exists is done and skipped; any other is begun, or resumed from its last checkpoint. Input that can't
work ends with one line on standard error and exit code 2.
"""
import argparse
import json
import logging
import os
import subprocess
import sys

import train
from dassl.engine import TRAINER_REGISTRY
from protocols import PROTOCOLS, SHOTS, plan
from results.curve import draw_curves
from results.table import collect, render_all
from trainers.checkpoint import config_of_run
from trainers.errors import UserError, nearest
from trainers.run_record import FILE_NAME, plain

log = logging.getLogger("run")

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = {"xd": "transfer", "dg": "transfer"}  # both test the same training on a source; the others: the protocol's name
# What may differ between a done run and the one that is asked for: places and things that change no figure.
NO_MATTER = ("OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.TEST.BATCH_SIZE",
             "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--trainer", nargs="+", required=True, help="registered names: CDC, CoOp, MaPLe …")
    parser.add_argument("--dataset", nargs="+", default=["openmoji"], help="files of configs/datasets; for xd and dg the source")
    parser.add_argument("--shots", nargs="+", type=int, help="training images a class (16; fewshot: 1 2 4 8 16)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--config", help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)")
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument("--output", help="folder of the runs (default: output/<protocol>, for xd and dg output/transfer)")
    parser.add_argument("--stage", choices=("train", "test"), help="only train, or only test what is trained; no table then")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="behind --: pairs over all config files, as in train.py")
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


def start(job, args):
    """Makes one run in a process of its own, its progress bars on this one's standard error.

    Raises:
        UserError: it failed; what went wrong stands on standard error.
    """
    command = [sys.executable, os.path.join(HERE, "train.py"), *job.arguments(args.root, args.opts)]
    finished = subprocess.run(command, stdout=subprocess.DEVNULL)  # what Dassl prints is kept in log.txt
    if finished.returncode or read_record(job.folder) is None:
        raise UserError(f"the run {job.folder} failed (exit code {finished.returncode}); what it printed is in {job.folder}/log.txt, and the "
                        "same command goes on from where it stopped")


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
    jobs = [job for dataset in args.dataset for trainer in args.trainer
            for job in plan(args.protocol, trainer, dataset, shots, args.seeds, output, args.config)]
    jobs = [job for job in jobs if args.stage in (None, "test" if job.model else "train")]
    configs = [wanted_config(job, args) for job in jobs]
    done = sum(is_done(job, cfg) for job, cfg in zip(jobs, configs))
    log.info("%s: %d runs, %d done already", args.protocol, len(jobs), done)
    for number, (job, cfg) in enumerate(zip(jobs, configs), 1):
        if is_done(job, cfg):
            log.info("[%d/%d] done already: %s", number, len(jobs), job.folder)
            continue
        if job.model and read_record(job.model) is None:
            raise UserError(f"{job.model} is not trained to its end: run the protocol's training first")
        log.info("[%d/%d] %s", number, len(jobs), job.folder)
        start(job, args)
    if args.stage is None:
        found = collect(output)
        sys.stdout.write(render_all(found))
        if args.protocol == "fewshot":
            for path in draw_curves(next(table for table in found if table.title.startswith("few-shot")), output):
                log.info("curve: %s", path)


def main(arguments=None):
    """Exit code: 0, or 2 with one line on standard error."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    try:
        run(parse_arguments(arguments))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
