"""Runs whole protocols: trains and tests the missing runs, prints the table.

    python run.py --protocol base2new --trainer CDC --dataset openmoji --seeds 1 2 3
    python run.py --protocol fewshot --trainer CoOp CDC --dataset openmoji --shots 1 4 16 --jobs 2
    python run.py --protocol xd dg --trainer CoOp CDC --dataset imagenet --plan
    python run.py --protocol xd dg --trainer CoOp CDC --dataset imagenet --slurm partition=gpu gpus=1 time=240 --shards 16
    python run.py --protocol xd dg --trainer CoOp CDC --dataset imagenet --ray auto

A run whose results.json exists is done and skipped; any other is started, or resumed from its last
checkpoint. Each run has a process of its own, and each visible GPU has a run; with --jobs several
share it, or the cores. Input that can't work ends with one line on standard error and exit code 2.
Ctrl-C, SIGTERM and SIGUSR1 end the runs at once with exit code 75: the same command resumes from
their last epochs' ends.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import logging
import sys
from collections.abc import Sequence

from protocols import PROTOCOLS
from trainers.common.config_files import settings_in
from trainers.common.device_names import check_device_name
from trainers.common.errors import UserError, run_tool
from trainers.common.interruption import interruptible
from trainers.common.recipes import IMAGE_FOLDER

log = logging.getLogger("run")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        required=True,
        help="the experiments, see docs/protocols.md",
    )
    parser.add_argument(
        "--trainer", nargs="+", required=True, help="registered names: CDC, CoOp, MaPLe …"
    )
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["openmoji"],
        help="names of files in configs/datasets; for xd and dg that of the source (default: openmoji)",
    )
    parser.add_argument(
        "--shots",
        nargs="+",
        type=int,
        help="training images per class (default: the recipe's, else 16; fewshot: 1 2 4 8 16)",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2, 3], help="a run for each (default: 1 2 3)"
    )
    parser.add_argument(
        "--backbone",
        help="a CLIP, and with it the recipes made for it: ViT-B/16, RN50, tiny … (default: tiny for the "
        "embedded data, what train.py --images takes for your own, else ViT-B/16)",
    )
    parser.add_argument(
        "--config",
        help="name of a recipe of configs/trainers/<trainer> (default: the backbone's for the protocol)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="rows of configs/ablations/<trainer>.yaml, or NAME for all of <trainer>_NAME.yaml (default: all of the first for ablation, the recipe alone for factors)",
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
        help="how many runs at the same time on each GPU of --device, or, without one, on the machine; one shows its "
        "progress, several share the CPU's cores (default: 1)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="where to compute: auto, cpu, cuda, cuda:1 or mps, Apple's, untried; cuda takes all GPUs that are visible "
        "(CUDA_VISIBLE_DEVICES), cuda:1 one of them (default: auto, cuda if there is a GPU)",
    )
    parser.add_argument(
        "--stage", choices=("train", "test"), help="only train, or only test what is trained"
    )
    parser.add_argument(
        "--shard",
        type=read_shard,
        default=(1, 1),
        metavar="I/N",
        help="every N-th training from the I-th on, with its tests: N commands with I from 1 to N run all",
    )
    cluster = parser.add_mutually_exclusive_group()
    cluster.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="make the runs on the machines of a Ray cluster, such as auto, which share this folder",
    )
    cluster.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="submit to Slurm, with these options of sbatch; time is in minutes (default: 240)",
    )
    parser.add_argument(
        "--shards",
        type=int,
        help="with --slurm: number of jobs (default: one per training, at most 1000)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print every run with its recipe, CLIP, epochs, learning rate and the recipe's rules "
        "that set them, and what is already done; start nothing",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="after --: pairs that override all config files, as in train.py; an ablation's rows "
        "override them in turn",
    )
    args = parser.parse_args(arguments)
    if args.device != "auto":
        args.opts = ["DEVICE", args.device, *args.opts]
    return args


def read_shard(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers.

    Raises:
        ValueError: it is something else.
    """
    number, count = map(int, text.split("/"))
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text}: I must be from 1 to N")
    return number, count


def run(args: argparse.Namespace) -> None:
    """Plan, submit or make the runs, as the arguments say.

    Raises:
        UserError: the device has another name, or a cluster chooses it; or as ``launch.make`` and ``slurm.submit``.
    """
    options = settings_in(args.opts, "options after --")
    device = options.get("DEVICE", "auto")
    check_device_name(device)
    if device.startswith("cuda:") and (args.ray or args.slurm):
        raise UserError(
            f"the device is {device}, and a cluster chooses the GPU of each run: give --device cuda"
        )
    # imported here: the makers of runs take seconds to import, which a plan need not wait for
    from protocols.runs import plan_runs, show_plan

    if IMAGE_FOLDER in args.dataset and not (args.backbone or args.config):
        args.backbone = options.get("MODEL.BACKBONE.NAME")
        if not args.backbone:
            plan_runs(args)  # mistakes are answered before weights are looked for
            from labelling.own_run import choose_clip

            args.backbone, why = choose_clip(device, args.plan)
            log.info("%s", why)
    if args.plan:
        sys.stdout.write(show_plan(args))
    elif args.slurm:
        from protocols.slurm import submit

        submit(args)
    else:
        from labelling.checkout import image_folder  # noqa: F401  (registers ImageFolder)
        from protocols import launch
        from results.after_runs import tables_of_runs

        sys.stdout.write(tables_of_runs(launch.make(args), args))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 with one line on standard error, or 75 if it was asked to stop."""
    with interruptible():
        return run_tool(run, parse_arguments(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
