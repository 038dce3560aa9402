"""The arguments of ``train.py``; without torch, so that a wrong one is answered at once."""

import argparse
import json
from collections.abc import Callable, Sequence

from trainers import METHODS
from trainers.common import device_names
from trainers.common.recipes import check_known

from . import PROTOCOLS

# flag → the config's key that it sets, and its description
FLAGS = {
    "--images": (
        "",
        "your own folder of class folders, or a file that names images and labels (CSV with the columns image and label, "
        "or Label Studio's JSON export), or several, of which files correct folders, and later files earlier ones; in place "
        "of --root and --dataset-config-file; "
        "defaults: a CLIP that knows photographs (ViT-B/16 on a GPU, else ViT-B/32; tiny where their weights can't be had), "
        "the trainer LinearProbe, its recipe for the CLIP, seed 1, --output-dir output/<images>/<trainer>/seed1 "
        "(without a trainer: output/<images>/seed1), <images> being the name of the folder or of the file",
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
    "--device": ("DEVICE", device_names.HELP),
    "--resume": ("RESUME", "folder of a run to continue from (default: --output-dir)"),
    "--model-dir": ("", "with --eval-only: folder of the training run"),
    "--head": ("MODEL.HEAD.NAME", "Dassl's MODEL.HEAD.NAME"),
}
FIRST_FLAGS = (
    "--images",
    "--trainer",
    "--backbone",
    "--output-dir",
    "--device",
)  # flags that come first in --help
EXAMPLE_COMMANDS = """\
examples:
  python train.py --images my_folder
  python train.py --images my_folder corrected.csv
  python train.py --trainer CoOp --config-file configs/trainers/CoOp/vit_b16.yaml \\
      --dataset-config-file configs/datasets/dtd.yaml --root data --seed 1 --output-dir output/dtd
"""
LISTS = {
    "--source-domains": "DATASET.SOURCE_DOMAINS",
    "--target-domains": "DATASET.TARGET_DOMAINS",
    "--transforms": "INPUT.TRANSFORMS",
}  # the same for flags that take several words
KEYS = {flag: key for flag, (key, _) in FLAGS.items() if key} | LISTS  # flag → key that it sets


def parse_arguments(
    arguments: Sequence[str] | None,
    add_own: Callable[[argparse._ActionsContainer], None] | None = None,
) -> argparse.Namespace:
    """Return the arguments of ``train.py``, with the ones that ``run.py`` gives it.

    add_own: adds what ``--images`` takes besides.

    Raises:
        UserError: the trainer is unknown.
    """
    parser = argparse.ArgumentParser(
        description="Trains or tests one run: the command that CoOp's users know, arguments unchanged.",
        usage="%(prog)s [options] [KEY VALUE …]",
        epilog=EXAMPLE_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("your own pictures")
    further = parser.add_argument_group("CoOp's further arguments")
    for flag, (_, description) in FLAGS.items():
        group = own if flag in FIRST_FLAGS else further
        number = "+" if flag == "--images" else None
        group.add_argument(flag, nargs=number, default="", help=description)
    own.add_argument(
        "--seed",
        type=int,
        default=-1,
        help="0 or more; -1 leaves the run unseeded (default: -1, with --images 1)",
    )
    if add_own is not None:
        add_own(own)
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
    args = parser.parse_args(arguments)
    if args.trainer and not args.images:  # one's own pictures know a further one
        check_known("trainer", args.trainer, METHODS)
    return args


def value_of(args: argparse.Namespace, flag: str) -> object:
    """Return the value of a flag; an empty one, such as "", where it isn't given."""
    return getattr(args, flag.strip("-").replace("-", "_"))
