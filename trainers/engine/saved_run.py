"""A finished run's method and config, as its record and prompts have them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yacs.config import CfgNode

from ..common.config_files import check_values
from ..common.console import first_few
from ..common.errors import UserError
from ..common.record_file import RECORD_FILE, Record, finished_record, is_multi_label
from ..common.same_run import config_of_run, differing
from ..common.setting import node_of
from ..common.trained_on import TrainedOn
from ..devices import AUTO, device_of
from ..method import Method
from .build import build_method, check_settings, find_method, settings_with
from .checkpoint import MODEL_NAME, Training, load_trained


def config_of(record: Record, method: type[Method]) -> CfgNode:
    """The config that a run was made with.

    Raises:
        UserError: a value is of another kind than its default.
    """
    settings = settings_with(method)
    cfg = node_of(settings)
    overlay(cfg, record["config"])
    check_values(cfg, settings)
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


def method_of(cfg: CfgNode, classnames: Sequence[str], multi_label: bool = False) -> Method:
    """The method of a run's config, for any class names; no prompts are loaded.

    multi_label: as in ``find_method``.

    Raises:
        UserError: the config can't work, or its CLIP is not found.
    """
    kind = find_method(cfg.TRAINER.NAME, multi_label)
    return build_method(kind, cfg, classnames, device_of(cfg))


@dataclass(frozen=True)
class SavedRun:
    """A finished run: its trained method, its config, its record, and the images that it was trained on."""

    method: Method
    cfg: CfgNode
    record: Record
    images: TrainedOn


def load_run(folder: str, backbone: str = "", device: str = AUTO) -> SavedRun:
    """The run of a folder with its trained method.

    Args:
        folder: the run's output folder, with ``results.json`` and, where anything was learned,
            ``prompt_learner``.
        backbone: name or file of the CLIP, where it is not where the run found it any more; its
            weights have to be the same.
        device: what it is to answer on, whatever it was trained on: auto, cpu, cuda:1 or mps.

    Raises:
        UserError: it holds no finished training of this toolbox or the prompts of another one, or
            its record tells of other settings than its prompts were trained with, or its CLIP is
            not found or has other weights.
    """
    path = f"{folder}/{RECORD_FILE}"
    record = finished_record(folder)
    multi_label = is_multi_label(record)
    kind = find_method(record["trainer"], multi_label)
    cfg = config_of(record, kind)
    told = config_of_run(cfg)
    if backbone:
        cfg.MODEL.BACKBONE.NAME = backbone
    cfg.DEVICE = device
    cfg.freeze()
    check_settings(kind, cfg)
    prompts = f"{folder}/{MODEL_NAME}"
    if kind.learns and not os.path.isdir(prompts):
        raise UserError(
            f"{folder} holds no prompts: it tested those of another run, give the folder of that training"
        )
    method = method_of(cfg, record["classnames"], multi_label)
    training = Training(method.classnames, {})
    if method.learner is not None:
        training = load_trained(method, folder, cfg)
    again = "put the run's own record there again, or give the run's command again"
    if training.classnames != method.classnames:
        raise UserError(
            f"{prompts} was trained on other classes, or in another order, than {path} names: {again}"
        )
    # the CLIP may lie elsewhere by now: its weights are held against their hash
    keys = settings_with(kind).keys() & training.settings.keys() - {"MODEL.BACKBONE.NAME"}
    if changed := differing(told, training.settings, keys):
        raise UserError(
            f"{prompts} was trained with other settings than {path} tells of ({first_few(changed)}): "
            f"{again}"
        )
    if method.prompts_hash() != record["prompts_hash"]:
        raise UserError(
            f"{prompts} holds other prompts than those that {path} tells of: put the run's own there again, or train it again"
        )
    return SavedRun(method, cfg, record, training.images)
