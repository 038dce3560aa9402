"""Reads a finished run's folder: record, trainer, config, class names."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

import torch
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .. import METHODS, config_function
from ..common.config_files import check_values
from ..common.errors import UserError
from ..common.record_file import FILE_NAME, Record
from ..common.record_file import read_record as read_record_file
from ..engine.checkpoint import MODEL_NAME, load, newest
from ..method import Method
from ..settings import add_run_settings
from ..trainer import MethodTrainer


def read_record(folder: str) -> Record:
    """``results.json`` of a run.

    Raises:
        UserError: it is not there, or see ``record_file.read_record``.
    """
    path = f"{folder}/{FILE_NAME}"
    if not os.path.isfile(path):
        raise UserError(
            f"{folder} holds no finished run, there is no {FILE_NAME}: give the --output-dir of a training that has ended"
        )
    return read_record_file(path)


def find_trainer(name: str) -> type[MethodTrainer]:
    """The trainer of that name; imports its module of this package if it is not registered yet.

    Raises:
        UserError: it is unknown, or another toolbox's.
    """
    if name in METHODS and name not in TRAINER_REGISTRY.registered_names():
        config_function(name)
    if name not in TRAINER_REGISTRY.registered_names():
        raise UserError(
            f"the run was made by the trainer {name!r}, which is not known here: import the module that registers it first"
        )
    trainer = TRAINER_REGISTRY.get(name)
    if not issubclass(trainer, MethodTrainer):
        raise UserError(
            f"the trainer {name} that is registered here is {trainer.__module__}'s, not {__name__.partition('.')[0]}'s: load the run in a "
            "program of its own"
        )
    return trainer


def config_of(record: Record, trainer: type[MethodTrainer]) -> CfgNode:
    """The config that a run was made with; settings that came after it have their defaults.

    Raises:
        UserError: a value is of another kind than its default.
    """
    cfg, name = get_cfg_default(), record["trainer"]
    add_run_settings(cfg)
    declare = getattr(sys.modules[trainer.__module__], f"add_{name.lower()}_config", None)
    if declare is not None:
        declare(cfg)
    defaults = cfg.clone()
    overlay(cfg, record["config"])
    check_values(cfg, defaults)
    return cfg


def overlay(node: CfgNode, values: Mapping[str, object]) -> None:
    """Puts plain values into a config node as they are (yacs would evaluate strings); JSON has no tuples, the defaults have."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if not isinstance(node.get(key), CfgNode):
                node[key] = CfgNode()
            overlay(node[key], value)
        else:
            node[key] = (
                tuple(value)
                if isinstance(node.get(key), tuple) and isinstance(value, list)
                else value
            )


def class_names(folder: str, record: Record, trainer: type[MethodTrainer]) -> list[str]:
    """The class names of a run: those of its checkpoint, or, where nothing is learned, of its record.

    Raises:
        UserError: the folder holds no prompts, or the record is older than its class names.
    """
    if trainer.method.learns:
        file_name = newest(f"{folder}/{MODEL_NAME}")
        if file_name is None:
            raise UserError(
                f"{folder} holds no prompts: it tested those of another run, give the folder of that training"
            )
        return load(f"{folder}/{MODEL_NAME}/{file_name}")["classnames"]
    if "classnames" not in record:
        raise UserError(
            f"{folder}/{FILE_NAME} does not say which classes there were: it was written by an earlier version, run it again"
        )
    return record["classnames"]


def silence() -> contextlib.AbstractContextManager[None]:
    """Hides what Dassl prints: standard output is the calling program's."""
    return contextlib.redirect_stdout(None)


def untrained(cfg: CfgNode, classnames: Sequence[str]) -> Method:
    """The method of a run's config, for any class names and without the run's prompts.

    Raises:
        UserError: the config can't work, or its CLIP is not found.
    """
    trainer = find_trainer(cfg.TRAINER.NAME)
    device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
    with silence():
        return trainer.build_method(cfg, classnames, device)


def rebuilt(method: Method, cfg: CfgNode, classnames: Sequence[str]) -> Method:
    """A method with this one's prompts, for another config or other class names."""
    other = untrained(cfg, classnames)
    if method.learner is not None:
        other.load(method.learner.state_dict(), method.classnames)
    return other
