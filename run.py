"""Runs a whole protocol: trains what is missing, tests what is trained, prints the table.

    python run.py --protocol base2new --trainer CDC --dataset openmoji --seeds 1 2 3
    python run.py --protocol fewshot --trainer CoOp CDC --dataset openmoji --shots 1 4 16 --jobs 2
    python run.py --protocol ablation --trainer CDC --dataset openmoji --seeds 1 2 3 4 5 --rows full views

A run whose results.json exists is done and skipped; any other is started, or resumed from its last checkpoint. Each run has a process of
its own; with --jobs several go side by side and share the cores. Input that can't work ends with one line on standard error and exit
code 2. Ctrl-C, SIGTERM and SIGUSR1 end the runs at once with exit code 75: the same command goes on from their last epochs' ends.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from protocols.plan import PROTOCOLS
from trainers.common.errors import UserError, run_tool
from trainers.common.interruption import REQUEUE, Interrupted, interruptible

log = logging.getLogger("run")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument(
        "--trainer", nargs="+", required=True, help="registered names: CDC, CoOp, MaPLe …"
    )
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["openmoji"],
        help="files of configs/datasets; for xd and dg the source",
    )
    parser.add_argument(
        "--shots",
        nargs="+",
        type=int,
        help="training images a class (the recipe's, else 16; fewshot: 1 2 4 8 16)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument(
        "--config",
        help="name of a recipe of configs/trainers/<trainer> (default: the protocol's own)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="rows of configs/ablations/<trainer>.yaml (ablation: all of them; factors: the recipe)",
    )
    parser.add_argument("--root", default="data", help="folder of the data sets")
    parser.add_argument(
        "--output",
        help="folder of the runs (default: output/<protocol>, for xd and dg output/transfer)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs side by side (1, whose progress is shown; more share the CPU's cores)",
    )
    parser.add_argument(
        "--stage",
        choices=("train", "test"),
        help="only train, or only test what is trained; no table then",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print every run with its recipe, shots, epochs, learning rate and the recipe's rules "
        "that set them; nothing is started",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="after --: pairs over all config files, as in train.py; the settings of "
        "an ablation's rows come on top",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    """All runs of the protocol for all trainers and data sets.

    Raises:
        UserError: the input can't work, before anything is started; or a run failed.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}, it must be at least 1")
    from protocols.launch import (
        make_all,
    )  # here, since they take seconds to import, and wrong arguments are answered at once
    from protocols.runs import Request, default_output, is_done, summary

    output = args.output or default_output(args.protocol)
    request = Request(
        args.protocol,
        args.trainer,
        args.dataset,
        args.seeds,
        output,
        args.shots,
        args.config,
        args.rows,
        args.root,
        args.opts,
    )
    if args.plan:
        sys.stdout.write(request.plan())
        return
    runs = [run for run in request.runs() if args.stage in (None, "test" if run.model else "train")]
    configs = {run: request.wanted_config(run) for run in runs}
    done = sum(is_done(run, cfg) for run, cfg in configs.items())
    log.info("%s: %d runs, %d done already", args.protocol, len(runs), done)
    make_all(configs, args)
    if args.stage is None:
        text, curves = summary(args.protocol, output)
        sys.stdout.write(text)
        for path in curves:
            log.info("curve: %s", path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    try:
        with interruptible():
            return run_tool(run, parse_arguments(arguments), log)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return REQUEUE


if __name__ == "__main__":
    sys.exit(main())
