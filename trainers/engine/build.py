"""A method out of a run's config: the CLIP that it names, under the settings of the method."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from yacs.config import CfgNode

from .. import (
    METHODS,
    MULTI_LABEL_METHODS,
    method_class,
    methods_for,
    multi_label_class,
)
from ..common.errors import UserError
from ..common.setting import Settings, under
from ..host import registered_trainer
from ..method import Method
from ..prompting.backbone import Backbone, load_backbone, pixels_of
from ..settings import RUN
from ..texts.descriptions import read_descriptions


def find_method(name: str, multi_label: bool = False) -> type[Method]:
    """The method of that name: of this package, or of a trainer that another module has registered
    with Dassl. Importing a module of this package registers its trainers, where there is a Dassl.

    multi_label: whether it is to answer yes or no to each label.

    Raises:
        UserError: it is unknown; KeyError: another toolbox has registered one of the same name.
    """
    if multi_label:
        return multi_label_method(name)
    if name in METHODS:
        return method_class(name)
    if trainer := registered_trainer(name):
        registered: type[Method] = trainer.method
        return registered
    raise UserError(
        f"the run was made by the trainer {name!r}, which is not known here: import the module that registers it first"
    )


def multi_label_method(name: str) -> type[Method]:
    """The method of that name that answers yes or no to each label.

    Raises:
        UserError: there is none.
    """
    if name in MULTI_LABEL_METHODS:
        return multi_label_class(name)
    raise UserError(
        f"the run was made by {name}, which is no trainer of multi-label pictures: it was made by another version"
    )


def settings_with(method: type[Method]) -> Settings:
    """The settings of a run without Dassl, and the method's."""
    return {**RUN, **under(f"TRAINER.{method.name().upper()}", method.declared)}


def declared_settings(method: type[Method], cfg: CfgNode) -> CfgNode:
    """The method's settings, ``cfg.TRAINER.<NAME>``.

    Raises:
        UserError: they are not declared.
    """
    name = method.name()
    if name.upper() not in cfg.TRAINER:
        raise UserError(
            f"cfg.TRAINER.{name.upper()} is not declared: call add_{name.lower()}_config(cfg) in "
            "extend_cfg"
        )
    return cfg.TRAINER[name.upper()]


def check_settings(method: type[Method], cfg: CfgNode) -> CfgNode:
    """The method's settings, which it has looked at.

    Raises:
        UserError: they are not declared, or can't work.
    """
    settings = declared_settings(method, cfg)
    method.check(settings, f"TRAINER.{method.name().upper()}")
    return settings


def take_pixels(cfg: CfgNode, options: Iterable[str]) -> None:
    """Set the pixels of the CLIP in ``cfg.INPUT``, over the files' values, which are CLIP's
    own.

    options: keys that somebody has set, which stay as they are.
    """
    given = {*options}
    if cfg.MODEL.BACKBONE.INTERPOLATE_POSITIONS:
        given.add("INPUT.SIZE")
    for key, value in pixels_of(cfg.MODEL.BACKBONE.NAME).items():
        if f"INPUT.{key}" not in given:
            cfg.INPUT[key] = value


def check_pixels(cfg: CfgNode, backbone: Backbone) -> None:
    """Images must have the backbone's size, and its normalisation where that is known."""
    name = cfg.MODEL.BACKBONE.NAME
    size = backbone.image.image_size
    if tuple(cfg.INPUT.SIZE) != (size, size):
        raise UserError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, {name} takes ({size}, {size}): give that, or have its positions "
            "interpolated with MODEL.BACKBONE.INTERPOLATE_POSITIONS True"
        )
    if backbone.normalization is None:
        return
    for key, known in zip(("PIXEL_MEAN", "PIXEL_STD"), backbone.normalization):
        if any(abs(given - wanted) > 1e-3 for given, wanted in zip(cfg.INPUT[key], known)):
            raise UserError(
                f"INPUT.{key} is {list(cfg.INPUT[key])}, {name} was trained with {list(known)}: give that"
            )


def build_method(
    method: type[Method],
    cfg: CfgNode,
    classnames: Sequence[str],
    device: torch.device,
    backbone: Backbone | None = None,
) -> Method:
    """The method of a config for K class names; nothing is loaded into it.

    backbone: the config's CLIP, where another method has it; None: it is loaded.

    Raises:
        UserError: the config can't work, or its CLIP is not found.
    """
    if backbone is None:
        backbone = load_backbone(cfg.MODEL.BACKBONE.NAME)
        if cfg.MODEL.BACKBONE.INTERPOLATE_POSITIONS:
            backbone.image.interpolate_positions(cfg.INPUT.SIZE[0])
    check_pixels(cfg, backbone)
    settings = declared_settings(method, cfg)
    # the others are looked for where there is something to say of them alone: all are imported for it
    name = method.name()
    multi_label = name in MULTI_LABEL_METHODS and multi_label_class(name) is method
    others = partial(methods_for, backbone, multi_label)
    method.check_towers(settings, backbone, f"TRAINER.{name.upper()}", others)
    path = cfg.DATASET.DESCRIPTIONS
    if path and not backbone.has_texts:
        raise UserError(
            f"DATASET.DESCRIPTIONS are sentences, and the backbone is an {backbone.text.kind}: leave them out"
        )
    return method(
        settings,
        classnames,
        backbone.to(device),
        dataset=cfg.DATASET.NAME,
        describe=partial(read_descriptions, path) if path else None,
    )
