"""The config that follows from the arguments of ``train.py`` and the files they name."""

import argparse

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import Registry
from yacs.config import CfgNode

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.drawn.factors import add_factors_config
from trainers import METHODS, config_function
from trainers.common.config_files import check_values, merge
from trainers.common.errors import UserError
from trainers.descriptions import note_content
from trainers.settings import add_run_settings

from .plan import check_known, conditions_of, read_recipe, stem
from .recipes import EXPERIMENTS, KEY, Rule

CONFIG_FUNCTIONS = [config_function(method) for method in METHODS]  # registers the trainers


def check_registered(noun: str, flag: str, name: str, registry: Registry) -> None:
    """
    Args:
        flag: that gives the name, for the message.

    Raises:
        UserError: no name is given, or the registry has none like it.
    """
    known = registry.registered_names()
    if not name:
        raise UserError(f"no {noun} is given: give {flag}; known: {', '.join(sorted(known))}")
    check_known(noun, name, known)


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
        is_whole = cfg.DATASET.SUBSAMPLE_CLASSES == "all"
        experiment = EXPERIMENTS[args.protocol or ("fewshot" if is_whole else "base2new")]
        dataset = stem(args.dataset_config_file)
        conditions = conditions_of(experiment, dataset, cfg.DATASET.NUM_SHOTS)
        rules = read_recipe(args.config_file).merge(cfg, **conditions)
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
    check_values(cfg, defaults)
    note_content(cfg)
    check_registered("trainer", "--trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY)
    data_flag = "--dataset-config-file (or --images, a folder of your own)"
    check_registered("data set", data_flag, cfg.DATASET.NAME, DATASET_REGISTRY)
    cfg.freeze()
    return cfg, rules
