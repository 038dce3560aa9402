"""Runs a grid of trainers × data sets × seeds × shots × protocols, on all cores or GPUs of this machine or on a cluster with Slurm.

    python sweep.py start configs/sweeps/openmoji.yaml
    python sweep.py start --name mine --protocol base2new fewshot --trainer CoOp CDC --seeds 1 2 3 -- OPTIM.MAX_EPOCH 10
    python sweep.py start configs/sweeps/paper.yaml --executor slurm --partition gpu --gpus 1 --cpus 8 --time 240 --jobs 16
    python sweep.py status|cancel|retry NAME [WORD …]       # of the jobs in whose names these words stand: cancel paper CoOp seed2
    python sweep.py collect NAME

Done runs are skipped, begun ones resumed, so the same command goes on where it was interrupted. docs/sweep.md says more. Input that can't work,
and jobs that failed, end with one line on standard error and exit code 2.
"""
import argparse
import logging
import os
import sys

from protocols import PROTOCOLS
from sweeps.grid import make_chains, read_file, requests
from sweeps.store import Sweep
from trainers.errors import UserError, run_tool

log = logging.getLogger("sweep")

GRID = {"protocol": "protocols", "trainer": "trainers", "dataset": "datasets", "seeds": "seeds", "shots": "shots", "config": "config", "rows": "rows"}
EXECUTION = ("executor", "jobs", "partition", "gpus", "cpus", "memory", "time", "account", "qos", "slurm")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="make all runs that are missing, and show how far they are")
    begin.add_argument("file", nargs="?", help="the grid as YAML, see configs/sweeps; the arguments below go over what is in it")
    begin.add_argument("--name", help="of the sweep (default: the file's, or the protocols')")
    begin.add_argument("--protocol", nargs="+", choices=PROTOCOLS)
    begin.add_argument("--trainer", nargs="+")
    begin.add_argument("--dataset", nargs="+", help="files of configs/datasets (openmoji)")
    begin.add_argument("--seeds", nargs="+", type=int, help="(1 2 3)")
    begin.add_argument("--shots", nargs="+", type=int, help="training images a class (16; fewshot: 1 2 4 8 16)")
    begin.add_argument("--config", help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)")
    begin.add_argument("--rows", nargs="+", metavar="NAME", help="rows of an ablation (all of them)")
    begin.add_argument("--root", help="folder of the data sets (data)")
    begin.add_argument("--output", help="folder of all runs and sweeps (output)")
    begin.add_argument("--dry-run", action="store_true", help="only say what would run")
    begin.add_argument("--executor", choices=("local", "slurm"), default="local", help="this machine (default), or a cluster")
    begin.add_argument("--jobs", type=int, help="jobs at once (local: one a GPU, without GPUs one a core; slurm: as many as the cluster allows)")
    cluster = begin.add_argument_group("slurm", "what sbatch is asked for, for each job")
    cluster.add_argument("--partition")
    cluster.add_argument("--gpus", type=int, help="GPUs of a job")
    cluster.add_argument("--cpus", type=int, help="cores of a job")
    cluster.add_argument("--memory", help="8GB")
    cluster.add_argument("--time", type=int, default=240, metavar="MINUTES", help="a job that needs longer is warned, writes a checkpoint, and is "
                         "queued again (240)")
    cluster.add_argument("--account")
    cluster.add_argument("--qos")
    cluster.add_argument("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="any other option of sbatch: constraint=a100")
    for name, text in (("status", "show how far it is"), ("cancel", "end what runs, and make no more"), ("retry", "make again what failed or was "
                       "cancelled"), ("collect", "print the tables of what is done, and draw the curves")):
        other = commands.add_parser(name, help=text)
        other.add_argument("name", help="of the sweep")
        if name != "collect":
            other.add_argument("words", nargs="*", metavar="WORD", help="only jobs whose names have all of these words: CoOp seed2")
        other.add_argument("--output", default="output", help="folder of all runs and sweeps (output)")
    own, dashes, options = arguments_around_dashes(arguments)
    args = parser.parse_args(own)
    if dashes and args.command != "start":
        parser.error(f"{args.command} takes no KEY VALUE pairs")
    return argparse.Namespace(**vars(args), opts=options)


def arguments_around_dashes(arguments):
    """Those before ``--``, whether there is one, and those behind it: KEY VALUE pairs over all config files, as in train.py."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], at < len(words), words[at + 1:]


def settings_of(args):
    """The sweep's settings: the file's, and over them the arguments."""
    settings = read_file(args.file) if args.file else {"name": "-".join(args.protocol or ["sweep"]), "grids": [{}]}
    given = {key: getattr(args, flag) for flag, key in GRID.items() if getattr(args, flag) is not None}
    places = {key: getattr(args, key) for key in ("name", "root", "output") if getattr(args, key) is not None}
    if len(args.opts) % 2:
        raise UserError(f"options behind -- must come in pairs, KEY VALUE: {' '.join(args.opts)}")
    options = dict(zip(args.opts[::2], args.opts[1::2]))
    grids = [{**grid, **given, "options": {**settings.get("options", {}), **grid.get("options", {}), **options}} for grid in settings["grids"]]
    return {**settings, **places, "grids": grids}


def start(args):
    from sweeps.drive import collect, drive, missing_runs
    from sweeps.table import show_plan

    settings = settings_of(args)
    output = os.path.abspath(settings.get("output", "output"))
    chains = make_chains(requests(settings), output)
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    for pair in args.slurm:
        if "=" not in pair:
            raise UserError(f"--slurm {pair}: it must be KEY=VALUE, with the name of an option of sbatch")
    sweep = Sweep(output, settings["name"], chains, {key: getattr(args, key) for key in EXECUTION})
    with sweep.lock():
        executor = make_executor(sweep)
        missing = {chain.name: missing_runs(chain) for chain in chains}
        show_plan(sweep, missing, executor)
        if args.dry_run:
            return
        sweep.save()
        alive = executor.alive()
        for name, runs in missing.items():
            if runs and name not in alive:
                sweep.forget(name)
        drive(sweep, executor, list(sweep.chains))
        sys.stdout.write(collect(sweep))


def make_executor(sweep):
    """
    Raises:
        UserError: submitit is not installed, or there is no such executor here.
    """
    try:
        from sweeps.executors import EXECUTORS
    except ModuleNotFoundError as error:
        raise UserError(f"sweeps need {error.name}: pip install \".[sweep]\"") from error
    return EXECUTORS[sweep.options["executor"]](sweep)


def status(args):
    from sweeps.drive import statuses_of
    from sweeps.table import show

    sweep = Sweep.load(args.output, args.name)
    show(statuses_of(sweep, make_executor(sweep), sweep.chosen(args.words)), sweep.name)


def cancel(args):
    from sweeps.drive import UNFINISHED, statuses_of

    sweep = Sweep.load(args.output, args.name)
    executor = make_executor(sweep)
    names = [status.chain.name for status in statuses_of(sweep, executor, sweep.chosen(args.words)) if status.state in UNFINISHED]
    for name in names:
        sweep.cancel(name)
    executor.cancel(names)
    log.info("%s: %d jobs cancelled; what they have done stays, and sweep.py retry %s goes on with them", sweep.name, len(names), sweep.name)


def retry(args):
    from sweeps.drive import collect, drive, statuses_of

    sweep = Sweep.load(args.output, args.name)
    executor = make_executor(sweep)
    chosen = sweep.chosen(args.words)
    names = [status.chain.name for status in statuses_of(sweep, executor, chosen) if status.state in ("failed", "cancelled", "stopped")]
    if not names:
        raise UserError(f"none of these {len(chosen)} jobs failed, was cancelled or stopped: there is nothing to make again")
    for name in names:
        sweep.forget(name)
    with sweep.lock():
        drive(sweep, executor, names)
        sys.stdout.write(collect(sweep))


def show_tables(args):
    from sweeps.drive import collect

    sys.stdout.write(collect(Sweep.load(args.output, args.name)))


COMMANDS = {"start": start, "status": status, "cancel": cancel, "retry": retry, "collect": show_tables}


def main(arguments=None):
    """Exit code: 0, or 2 with one line on standard error."""
    args = parse_arguments(arguments)
    return run_tool(COMMANDS[args.command], args, log)


if __name__ == "__main__":
    sys.exit(main())
