"""The config that follows from the arguments of ``train.py`` and the files they name."""

import argparse
from collections.abc import Sequence

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

import datasets.every  # noqa: F401  (registers the data sets)
from datasets.drawn.factors import SETTINGS as FACTORS
from trainers import METHODS, method_class
from trainers.common.config_files import check_values, settings_in
from trainers.common.errors import UserError
from trainers.common.recipes import check_known, fill_config, usual_experiment
from trainers.common.setting import Settings, declare, under
from trainers.engine.build import take_pixels
from trainers.settings import add_run_settings, settings_of_run
from trainers.texts.descriptions import note_content

from .command_line import KEYS, parse_arguments, value_of
from .plan import PlannedRun, conditions_of


def extensions() -> Settings:
    """Return the settings of a config beside a run's: the factors of a composed set, and the settings of
    every known method."""
    found = under("DATASET.FACTORS", FACTORS)
    for method in METHODS:
        # its import also registers the trainer
        found |= under(f"TRAINER.{method.upper()}", method_class(method).declared)
    return found


def extend_config(cfg: CfgNode) -> None:
    """Declares what Dassl's defaults lack: a run's settings, the factors of a composed set, and each
    trainer's own node."""
    add_run_settings(cfg)
    declare(cfg, extensions())


def build_config(args: argparse.Namespace) -> CfgNode:
    """Defaults, data set file, trainer file, its rules, flags, pairs: later ones win.

    Raises:
        UserError: as ``merge``; also for an unknown trainer or data set.
    """
    cfg = get_cfg_default()
    extend_config(cfg)

    def conditions(cfg: CfgNode) -> dict[str, str | int]:
        protocol = args.protocol or usual_experiment(cfg)
        return conditions_of(protocol, args.dataset_config_file, cfg.DATASET.NUM_SHOTS)

    if args.seed >= 2**32:
        raise UserError(f"--seed is {args.seed}, it must be below {2**32}")
    given = {key: (flag, value) for flag, key in KEYS.items() if (value := value_of(args, flag))}
    given["SEED"] = ("--seed", args.seed)
    options = settings_in(args.opts, "options after the flags")
    fill_config(cfg, args.dataset_config_file, args.config_file, conditions, given, options)
    take_pixels(cfg, options)
    check_values(cfg, {**settings_of_run(cfg), **extensions()})
    note_content(cfg)
    check_known("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    check_known("data set", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    cfg.freeze()
    return cfg


def planned_config(run: PlannedRun, root: str, options: Sequence[str] = ()) -> CfgNode:
    """The config that a planned run has.

    Args:
        root: folder of the data sets; options: KEY, VALUE, KEY … over the recipe.

    Raises:
        UserError: as ``build_config``.
    """
    return build_config(parse_arguments(run.arguments(root, options)))
