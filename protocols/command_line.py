"""The arguments of ``train.py``; without torch, so that a wrong one is answered at once."""

import argparse
import json
import os
from collections.abc import Sequence

from trainers import METHODS
from trainers.common.config_files import CONFIGS
from trainers.common.errors import UserError
from trainers.common.recipes import SHOTS, check_known

from . import PROTOCOLS

# flag → the config's key that it sets, and its description
FLAGS = {
    "--images": (
        "",
        "your own folder of class folders, in place of --root and --dataset-config-file; "
        "defaults: a CLIP that knows photographs (ViT-B/16 on a GPU, else ViT-B/32; tiny where their weights can't be had), "
        "the trainer LinearProbe, its recipe for the CLIP, seed 1, --output-dir output/<folder>/<trainer>/seed1 "
        "(without a trainer: output/<folder>/seed1)",
    ),
    "--trainer": ("TRAINER.NAME", "a registered name: CDC, CoOp, MaPLe …"),
    "--backbone": (
        "MODEL.BACKBONE.NAME",
        "a CLIP: ViT-B/16, RN50, tiny, a file, open_clip:<model>/<weights> …",
    ),
    "--output-dir": ("OUTPUT_DIR", "folder of this run: log, checkpoints, results.json"),
    "--root": ("DATASET.ROOT", "folder of the data sets"),
    "--config-file": ("", "configs/trainers/<trainer>/<recipe>.yaml"),
    "--dataset-config-file": ("", "configs/datasets/<name>.yaml"),
    "--resume": ("RESUME", "folder of a run to continue from (default: --output-dir)"),
    "--model-dir": ("", "with --eval-only: folder of the training run"),
    "--head": ("MODEL.HEAD.NAME", "Dassl's MODEL.HEAD.NAME"),
}
OWN = ("--images", "--trainer", "--backbone", "--output-dir")  # flags that come first in --help
EXAMPLES = """\
examples:
  python train.py --images my_folder
  python train.py --trainer CoOp --config-file configs/trainers/CoOp/vit_b16.yaml \\
      --dataset-config-file configs/datasets/dtd.yaml --root data --seed 1 --output-dir output/dtd
"""
LISTS = {
    "--source-domains": "DATASET.SOURCE_DOMAINS",
    "--target-domains": "DATASET.TARGET_DOMAINS",
    "--transforms": "INPUT.TRANSFORMS",
}  # the same for flags that take several words


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with ``--images`` written out, see ``expand_images``.

    Raises:
        UserError: the trainer is unknown, or see ``expand_images``.
    """
    parser = argparse.ArgumentParser(
        description="Trains or tests one run: the command that CoOp's users know, arguments unchanged.",
        usage="%(prog)s [options] [KEY VALUE …]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("your own pictures")
    further = parser.add_argument_group("CoOp's further arguments")
    for flag, (_, description) in FLAGS.items():
        group = own if flag in OWN else further
        group.add_argument(flag, default="", help=description)
    own.add_argument(
        "--seed",
        type=int,
        default=-1,
        help="0 or more; -1 leaves the run unseeded (default: -1, with --images 1)",
    )
    own.add_argument(
        "--shots", type=int, default=SHOTS, help="training images per class, at most (default: all)"
    )
    own.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        help="also train prompts (CDCGDA) if these minutes are enough, and take them if they win",
    )
    own.add_argument(
        "--skip-small",
        action="store_true",
        help="leave out classes with fewer than 4 images, which can't be divided",
    )
    for flag, key in LISTS.items():
        further.add_argument(flag, nargs="+", help=f"Dassl's {key}")
    mode = further.add_mutually_exclusive_group()
    mode.add_argument("--eval-only", action="store_true", help="test only")
    mode.add_argument("--no-train", action="store_true", help="build the model without training it")
    further.add_argument(
        "--load-epoch",
        type=int,
        help="with --model-dir: which checkpoint (default: best or newest)",
    )
    further.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, which override all config files"
    )
    # set by run.py: whose rules of the recipe apply (without it: base2new where
    # DATASET.SUBSAMPLE_CLASSES is base or new, else fewshot), a description of the run for
    # results.json, as JSON, and whether it ends when standard input does
    parser.add_argument("--protocol", choices=PROTOCOLS, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(why="", choice=None)  # see ``own_images.choose_what_is_left``
    args = parser.parse_args(arguments)
    if args.trainer:
        check_known("trainer", args.trainer, METHODS)
    if args.images:
        expand_images(args)
    return args


def clip_among(options: Sequence[str]) -> str:
    """The CLIP that KEY VALUE pairs name; "" where they name none."""
    return dict(zip(options[::2], options[1::2])).get("MODEL.BACKBONE.NAME", "")


def expand_images(args: argparse.Namespace) -> None:
    """Writes ``--images FOLDER`` out in the other arguments, as far as they are not given.

    A trainer, a CLIP, and the recipe for it, are left to ``own_images.choose_what_is_left``.

    Raises:
        UserError: no such folder, another data set is given as well, or the output would be where
            it is taken for a class or takes a training's place.
    """
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
    if args.seed < 0:
        args.seed = 1
    if not args.output_dir:
        name = os.path.basename(folder)
        args.output_dir = os.path.join("output", name, args.trainer, f"seed{args.seed}")
    if os.path.abspath(args.output_dir).startswith(os.path.join(folder, "")):
        raise UserError(
            f"the results would go to {args.output_dir}, which lies in {folder}, where they pass for a class: give another --output-dir"
        )
    args.backbone = args.backbone or clip_among(args.opts)
    args.root = folder
    args.dataset_config_file = f"{CONFIGS}/datasets/image_folder.yaml"
    if args.skip_small:
        args.opts = ["DATASET.SKIP_SMALL", "True", *args.opts]
    args.opts = ["DATASET.NUM_SHOTS", str(args.shots), *args.opts]  # of pairs the later ones win
