"""A finished run's trainer, config and method, as its record and prompts have them."""

import contextlib
import sys
from collections.abc import Mapping, Sequence

import torch
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .. import METHODS, config_function
from ..common.config_files import check_values
from ..common.errors import UserError
from ..common.record_file import Record
from ..method import Method
from ..settings import add_run_settings
from ..trainer import MethodTrainer


def find_trainer(name: str) -> type[MethodTrainer]:
    """The trainer of that name; imports its module of this package, which registers it.

    Raises:
        UserError: it is unknown; KeyError: another toolbox has registered one of the same name.
    """
    if name in METHODS:
        config_function(name)
    if name not in TRAINER_REGISTRY.registered_names():
        raise UserError(
            f"the run was made by the trainer {name!r}, which is not known here: import the module that registers it first"
        )
    trainer: type[MethodTrainer] = TRAINER_REGISTRY.get(name)
    return trainer


def config_of(record: Record, trainer: type[MethodTrainer]) -> CfgNode:
    """The config that a run was made with.

    Raises:
        UserError: a value is of another kind than its default.
    """
    cfg = get_cfg_default()
    add_run_settings(cfg)
    getattr(sys.modules[trainer.__module__], f"add_{record['trainer'].lower()}_config")(cfg)
    defaults = cfg.clone()
    overlay(cfg, record["config"])
    check_values(cfg, defaults)
    return cfg


def overlay(node: CfgNode, values: Mapping[str, object]) -> None:
    """Puts plain values into a config node as they are (yacs would evaluate strings); JSON has no
    tuples, the defaults have."""
    for key, value in values.items():
        known = node.get(key)
        if isinstance(value, Mapping):
            node[key] = known if isinstance(known, CfgNode) else CfgNode()
            overlay(node[key], value)
        else:
            if isinstance(known, tuple) and isinstance(value, list):
                value = tuple(value)
            node[key] = value


def method_of(cfg: CfgNode, classnames: Sequence[str]) -> Method:
    """The method of a run's config, for any class names; no prompts are loaded.

    Raises:
        UserError: the config can't work, or its CLIP is not found.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
    with contextlib.redirect_stdout(None):  # which is the calling program's
        return find_trainer(cfg.TRAINER.NAME).build_method(cfg, classnames, device)
