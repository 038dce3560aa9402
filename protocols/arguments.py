"""The config that follows from the arguments of ``train.py`` and the files they name."""

import argparse
import os

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import Registry
from yacs.config import CfgNode

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.drawn.factors import add_factors_config
from trainers import METHODS, config_function
from trainers.common.config_files import check_types, merge
from trainers.common.errors import UserError, nearest
from trainers.descriptions import note_content
from trainers.settings import add_run_settings

from .plan import CONFIGS, merge_rules, recipe_path
from .recipes import KEY, Rule

CONFIG_FUNCTIONS = [config_function(method) for method in METHODS]  # registers the trainers
SHOTS = 16  # training images a class of one's own folder


def expand_images(args: argparse.Namespace) -> argparse.Namespace:
    """``--images FOLDER`` written out in the other arguments, as far as they are not given; without it the arguments as they are.

    Raises:
        UserError: no such folder, another data set is given as well, the trainer is unknown or has no recipe, or the output would be where
            it is taken for a class or takes a training's place.
    """
    if not args.images:
        return args
    folder = os.path.abspath(os.path.expanduser(args.images))
    if args.root or args.dataset_config_file:
        raise UserError(
            "--images is a data set of its own: leave out --root and --dataset-config-file"
        )
    if not os.path.isdir(folder):
        raise UserError(
            f"--images {args.images} is no folder: give the one that holds the class folders, or train and test"
        )
    if args.eval_only and not args.output_dir:
        raise UserError(
            "--images with --eval-only needs --output-dir: without it the test would take the place of the training"
        )
    check_registered("trainer", args.trainer, TRAINER_REGISTRY)
    seed = args.seed if args.seed >= 0 else 1
    output = args.output_dir or os.path.join(
        "output", os.path.basename(folder), args.trainer, f"seed{seed}"
    )
    if os.path.abspath(output).startswith(os.path.join(folder, "")):
        raise UserError(
            f"the results would go to {output}, which lies in {folder}, where they pass for a class: give another --output-dir"
        )
    return argparse.Namespace(
        **{
            **vars(args),
            "root": folder,
            "seed": seed,
            "output_dir": output,
            "dataset_config_file": os.path.join(CONFIGS, "datasets", "image_folder.yaml"),
            "config_file": args.config_file
            or recipe_path(args.trainer, recipe_for(args.trainer, args.backbone)),
            "opts": ["DATASET.NUM_SHOTS", str(SHOTS), *args.opts],
        }
    )  # of pairs the later ones win


def recipe_for(trainer: str, backbone: str) -> str:
    """Name of the trainer's recipe for a CLIP: the one called like it (``RN50``: rn50 or rn50_text), else vit_b16; tiny without a CLIP."""
    own = (backbone or "tiny").lower().replace("-", "_").replace("/", "")
    names = (
        name
        for name in (own, f"{own}_text")
        if os.path.isfile(os.path.join(CONFIGS, "trainers", trainer, f"{name}.yaml"))
    )
    return next(names, "vit_b16")


def check_registered(kind: str, name: str, registry: Registry) -> None:
    known = registry.registered_names()
    if not name:
        flag = (
            "--trainer"
            if kind == "trainer"
            else "--dataset-config-file (or --images, a folder of your own)"
        )
        raise UserError(f"no {kind} is given: give {flag}; known: {', '.join(sorted(known))}")
    if name not in known:
        raise UserError(
            f"unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(sorted(known))}"
        )


def extend_config(cfg: CfgNode) -> None:
    """Adds what Dassl's defaults lack: base/new classes, descriptions of classes, broken images, kept features, checkpoints in the middle of epochs,
    image sizes, the factors of a composed set, and each trainer's own node.
    """
    add_run_settings(cfg)
    add_factors_config(cfg)
    for add_config in CONFIG_FUNCTIONS:
        add_config(cfg)


def build_config(args: argparse.Namespace) -> CfgNode:
    """Defaults, data set file, trainer file, its rules, flags, pairs: later ones win.

    Raises:
        UserError: see ``merge``; also for an unknown trainer or data set.
    """
    return config_and_rules(args)[0]


def config_and_rules(args: argparse.Namespace) -> tuple[CfgNode, list[Rule]]:
    """The config, see ``build_config``, and those of the recipe's rules that hold."""
    cfg = get_cfg_default()
    extend_config(cfg)
    defaults = cfg.clone()
    if args.dataset_config_file:
        merge(cfg, args.dataset_config_file, "data set config file")
    rules = []
    if args.config_file:
        merge(cfg, args.config_file, "config file", leave_out=KEY)
        merge(
            cfg, args.opts, "options after the flags"
        )  # rules ask for the shots and the classes; below once more, over the rules
        rules = merge_rules(cfg, args.config_file, args.dataset_config_file, args.protocol)
    flags = {
        "root": (cfg.DATASET, "ROOT"),
        "output_dir": (cfg, "OUTPUT_DIR"),
        "resume": (cfg, "RESUME"),
        "source_domains": (cfg.DATASET, "SOURCE_DOMAINS"),
        "target_domains": (cfg.DATASET, "TARGET_DOMAINS"),
        "transforms": (cfg.INPUT, "TRANSFORMS"),
        "trainer": (cfg.TRAINER, "NAME"),
        "backbone": (cfg.MODEL.BACKBONE, "NAME"),
        "head": (cfg.MODEL.HEAD, "NAME"),
    }
    for flag, (node, key) in flags.items():
        if getattr(args, flag):
            setattr(node, key, getattr(args, flag))
    if args.seed >= 2**32:
        raise UserError(f"--seed is {args.seed}, it must be below {2**32}")
    cfg.SEED = args.seed
    merge(cfg, args.opts, "options after the flags")
    check_types(cfg, defaults)
    note_content(cfg)
    check_registered("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY)
    check_registered("data set", cfg.DATASET.NAME, DATASET_REGISTRY)
    cfg.freeze()
    return cfg, rules
