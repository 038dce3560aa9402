"""Runs a grid of trainers × data sets × seeds × shots × protocols, on all cores or GPUs of this machine or on a cluster with Slurm.

    python sweep.py start configs/sweeps/openmoji.yaml
    python sweep.py start --name mine --protocol base2new fewshot --trainer CoOp CDC --seeds 1 2 3 -- OPTIM.MAX_EPOCH 10
    python sweep.py start configs/sweeps/paper.yaml --executor slurm --partition gpu --gpus 1 --cpus 8 --time 240 --jobs 16
    python sweep.py status|cancel|retry NAME [WORD …]       # of the jobs in whose names these words stand: cancel paper CoOp seed2
    python sweep.py collect NAME

Done runs are skipped, started ones resumed, so the same command goes on where it was interrupted. docs/sweep.md says more. Input that can't work,
and jobs that failed, end with one line on standard error and exit code 2.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from protocols.plan import PROTOCOLS
from trainers.common.errors import UserError, run_tool

log = logging.getLogger("sweep")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser(
        "start", help="make all runs that are missing, and show how far they are"
    )
    begin.add_argument(
        "file",
        nargs="?",
        help="the grid as YAML, see configs/sweeps; the arguments below go over what is in it",
    )
    begin.add_argument("--name", help="of the sweep (default: the file's, or the protocols')")
    begin.add_argument("--protocol", nargs="+", choices=PROTOCOLS)
    begin.add_argument("--trainer", nargs="+")
    begin.add_argument("--dataset", nargs="+", help="files of configs/datasets (openmoji)")
    begin.add_argument("--seeds", nargs="+", type=int, help="(1 2 3)")
    begin.add_argument(
        "--shots",
        nargs="+",
        type=int,
        help="training images a class (the recipe's, else 16; fewshot: 1 2 4 8 16)",
    )
    begin.add_argument(
        "--config",
        help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)",
    )
    begin.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="rows of an ablation, for ablation (all of them) and factors (the recipe)",
    )
    begin.add_argument("--root", help="folder of the data sets (data)")
    begin.add_argument("--output", help="folder of all runs and sweeps (output)")
    begin.add_argument("--dry-run", action="store_true", help="only say what would run")
    begin.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="this machine (default), or a cluster",
    )
    begin.add_argument(
        "--jobs",
        type=int,
        help="jobs at once (local: one a GPU, without GPUs one a core; slurm: as many as the cluster allows)",
    )
    cluster = begin.add_argument_group("slurm", "what sbatch is asked for, for each job")
    cluster.add_argument("--partition")
    cluster.add_argument("--gpus", type=int, help="GPUs of a job")
    cluster.add_argument("--cpus", type=int, help="cores of a job")
    cluster.add_argument("--memory", help="8GB")
    cluster.add_argument(
        "--time",
        type=int,
        default=240,
        metavar="MINUTES",
        help="a job that needs longer is warned, writes a checkpoint, and is queued again (240)",
    )
    cluster.add_argument("--account")
    cluster.add_argument("--qos")
    cluster.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of sbatch: constraint=a100",
    )
    for name, text in (
        ("status", "show how far it is"),
        ("cancel", "end what runs, and make no more"),
        ("retry", "make again what failed or was cancelled"),
        ("collect", "print the tables of what is done, and draw the curves"),
    ):
        other = commands.add_parser(name, help=text)
        other.add_argument("name", help="of the sweep")
        if name != "collect":
            other.add_argument(
                "words",
                nargs="*",
                metavar="WORD",
                help="only jobs whose names have all of these words: CoOp seed2",
            )
        other.add_argument(
            "--output", default="output", help="folder of all runs and sweeps (output)"
        )
    own, dashes, options = arguments_around_dashes(arguments)
    args = parser.parse_args(own)
    if dashes and args.command != "start":
        parser.error(f"{args.command} takes no KEY VALUE pairs")
    return argparse.Namespace(**vars(args), opts=options)


def arguments_around_dashes(arguments: Sequence[str] | None) -> tuple[list[str], bool, list[str]]:
    """Those before ``--``, whether there is one, and those after it: KEY VALUE pairs over all config files, as in train.py."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], at < len(words), words[at + 1 :]


def run(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: what sweeps need is not installed; or see the commands.
    """
    try:
        from sweeps.commands import (
            COMMANDS,
        )  # here, since train.py and run.py do without the libraries that this needs
    except ModuleNotFoundError as error:
        raise UserError(
            f'sweeps need {error.name}, which is not installed: pip install ".[sweep]"'
        ) from error
    COMMANDS[args.command](args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
