"""The arguments of ``train.py``; without torch, so that a wrong one is answered at once."""

import argparse
import json
from collections.abc import Sequence

from .recipes import EXPERIMENTS


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
        "what else is not given is chosen: the trainer's recipe for the tiny CLIP or for --backbone, 16 shots, seed 1, "
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
        help="which of the recipe's rules hold (base2new where "
        "DATASET.SUBSAMPLE_CLASSES is base or new, else fewshot)",
    )
    parser.add_argument(
        "--run",
        type=json.loads,
        default={},
        help="what results.json says of the run (protocol, part, row, recipe …), as JSON: run.py gives it",
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
    parser.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over all config files"
    )
    return parser.parse_args(arguments)
