"""A finished run's method and config, as its record and prompts have them."""

import sys
from collections.abc import Mapping, Sequence

import torch
from yacs.config import CfgNode

from .. import METHODS, method_class
from ..common.config_files import check_values
from ..common.errors import UserError
from ..common.record_file import Record
from ..engine.build import build_method
from ..host import registered_trainer
from ..method import Method
from ..settings import run_config


def find_method(name: str) -> type[Method]:
    """The method of that name: of this package, or of a trainer that another module has registered
    with Dassl. Importing a module of this package registers its trainers, where there is a Dassl.

    Raises:
        UserError: it is unknown; KeyError: another toolbox has registered one of the same name.
    """
    if name in METHODS:
        return method_class(name)
    if trainer := registered_trainer(name):
        registered: type[Method] = trainer.method
        return registered
    raise UserError(
        f"the run was made by the trainer {name!r}, which is not known here: import the module that registers it first"
    )


def new_config(method: type[Method]) -> CfgNode:
    """A run's config with the method's settings, all of them at their defaults."""
    cfg = run_config()
    getattr(sys.modules[method.__module__], f"add_{method.name().lower()}_config")(cfg)
    return cfg


def config_of(record: Record, method: type[Method]) -> CfgNode:
    """The config that a run was made with.

    Raises:
        UserError: a value is of another kind than its default.
    """
    cfg = new_config(method)
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
    return build_method(find_method(cfg.TRAINER.NAME), cfg, classnames, device)
