"""The arguments of ``train.py``; without torch, so that a wrong one is answered at once."""

import argparse
import json
import os
from collections.abc import Sequence

from trainers import METHODS
from trainers.common.errors import UserError, exit_code

from .plan import CONFIGS, check_known, choose_recipe, recipe_path
from .recipes import EXPERIMENTS

SHOTS = 16  # training images a class of one's own folder


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Trains or tests one run: the command that CoOp's users know, arguments unchanged."
    )
    parser.add_argument("--root", default="", help="folder of the data sets")
    parser.add_argument(
        "--output-dir", default="", help="folder of this run: log, checkpoints, results.json"
    )
    parser.add_argument(
        "--resume", default="", help="folder of a run to continue from (default: --output-dir)"
    )
    parser.add_argument(
        "--images",
        default="",
        help="your own folder of class folders, in place of --root and --dataset-config-file; "
        "defaults: a CLIP that knows photographs (ViT-B/16 on a GPU, else ViT-B/32; tiny where their weights can't be had), "
        "the trainer's recipe for it, 16 shots, seed 1, "
        "--output-dir output/<folder>/<trainer>/seed1",
    )
    parser.add_argument(
        "--seed", type=int, default=-1, help="0, 1, 2 …; negative: not seeded (with --images: 1)"
    )
    parser.add_argument("--source-domains", nargs="+", help="Dassl's DATASET.SOURCE_DOMAINS")
    parser.add_argument("--target-domains", nargs="+", help="Dassl's DATASET.TARGET_DOMAINS")
    parser.add_argument("--transforms", nargs="+", help="Dassl's INPUT.TRANSFORMS")
    parser.add_argument(
        "--config-file", default="", help="configs/trainers/<trainer>/<recipe>.yaml"
    )
    parser.add_argument("--dataset-config-file", default="", help="configs/datasets/<name>.yaml")
    parser.add_argument(
        "--protocol",
        choices=EXPERIMENTS,
        help="whose rules of the recipe apply (base2new where "
        "DATASET.SUBSAMPLE_CLASSES is base or new, else fewshot)",
    )
    parser.add_argument(
        "--run",
        type=json.loads,
        default={},
        help="description of the run for results.json (protocol, part, row, recipe …), as JSON; set by run.py",
    )
    parser.add_argument("--trainer", default="", help="a registered name: CDC, CoOp, MaPLe …")
    parser.add_argument(
        "--backbone",
        default="",
        help="a CLIP: ViT-B/16, RN50, tiny, a file, open_clip:<model>/<weights> …",
    )
    parser.add_argument("--head", default="", help="Dassl's MODEL.HEAD.NAME")
    parser.add_argument("--eval-only", action="store_true", help="test only")
    parser.add_argument(
        "--model-dir", default="", help="with --eval-only: folder of the training run"
    )
    parser.add_argument(
        "--load-epoch",
        type=int,
        help="with --model-dir: which checkpoint (default: best or newest)",
    )
    parser.add_argument("--no-train", action="store_true", help="build the model, do not train")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over all config files"
    )
    parser.set_defaults(why="")  # of the CLIP, see ``own_images.with_clip``
    return parser.parse_args(arguments)


def expand_images(args: argparse.Namespace) -> argparse.Namespace:
    """``--images FOLDER`` written out in the other arguments, as far as they are not given; without it the arguments as they are.

    A CLIP, and the recipe for it, are left to ``own_images.with_clip`` where neither is given.

    Raises:
        UserError: no such folder, another data set is given as well, the trainer is unknown or has no recipe, or the output would be where
            it is taken for a class or takes a training's place.
    """
    if args.trainer:
        check_known("trainer", args.trainer, METHODS)
    if not args.images:
        return args
    if not args.trainer:
        raise UserError("no trainer is given: give --trainer, such as CDC")
    folder = os.path.abspath(os.path.expanduser(args.images))
    if args.root or args.dataset_config_file:
        raise UserError(
            "--images is a data set of its own: leave out --root and --dataset-config-file"
        )
    if not os.path.isdir(folder):
        raise UserError(
            f"--images {args.images} is not a folder: give the one that holds the class folders, or train and test"
        )
    if args.eval_only and not args.output_dir:
        raise UserError(
            "--images with --eval-only needs --output-dir: without it the test would take the place of the training"
        )
    seed = args.seed if args.seed >= 0 else 1
    output = args.output_dir or os.path.join(
        "output", os.path.basename(folder), args.trainer, f"seed{seed}"
    )
    if os.path.abspath(output).startswith(os.path.join(folder, "")):
        raise UserError(
            f"the results would go to {output}, which lies in {folder}, where they pass for a class: give another --output-dir"
        )
    pairs = dict(zip(args.opts[::2], args.opts[1::2]))
    backbone = args.backbone or pairs.get("MODEL.BACKBONE.NAME", "")
    return argparse.Namespace(
        **{
            **vars(args),
            "root": folder,
            "seed": seed,
            "output_dir": output,
            "dataset_config_file": os.path.join(CONFIGS, "datasets", "image_folder.yaml"),
            "backbone": backbone,
            "config_file": args.config_file
            or (backbone and recipe_path(args.trainer, choose_recipe(args.trainer, backbone))),
            "opts": ["DATASET.NUM_SHOTS", str(SHOTS), *args.opts],
        }
    )  # of pairs the later ones win


def check_arguments(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 2, with a line on standard error, for what is wrong at first sight, else 0."""
    return exit_code(lambda: expand_images(parse_arguments(arguments)) and None)
