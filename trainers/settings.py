"""The settings that methods share: in their own nodes, and those of a run that Dassl's defaults
lack."""

from yacs.config import CfgNode

from . import config_function


def add_run_settings(cfg: CfgNode) -> None:
    """Declares what the trainers read or advise beyond Dassl's keys; a key that a toolbox has declared
    itself keeps its value."""
    for node, key, default in (
        (cfg.DATASET, "SUBSAMPLE_CLASSES", "all"),  # all | base | new
        (cfg.DATASET, "DESCRIPTIONS", ""),  # file of sentences about each class: descriptions.py
        (cfg.DATASET, "DESCRIPTIONS_HASH", ""),  # of its content; set by itself
        # a colour: transparent pictures are put on it, and all are turned as their EXIF data say;
        # "": as they are stored
        (cfg.INPUT, "BACKGROUND", ""),
        # of the data set's listing: error | skip: images that can't be read or are missing are left out
        (cfg.DATALOADER, "BROKEN_IMAGES", "error"),
        # whether base and new classes are compared among all of them: evaluation/open_world.py
        (cfg.TEST, "OPEN", False),
        # whether INPUT.SIZE may be another than the backbone's
        (cfg.MODEL.BACKBONE, "INTERPOLATE_POSITIONS", False),
    ):
        if key not in node:
            node[key] = default


def add_encoder_settings(node: CfgNode) -> None:
    """Declares ``PREC`` and ``TEXT_CHUNK`` in ``cfg.TRAINER.<NAME>``."""
    node.PREC = "fp16"  # fp32 | amp | fp16, see precision.py
    node.TEXT_CHUNK = 0  # classes in one pass of the text encoder; fewer need less memory and more time; 0: all at once


def method_node(name: str) -> CfgNode:
    """A new node with what ``add_<name>_config`` declares, for methods that go on from another
    one's settings."""
    cfg = bare_config()
    config_function(name)(cfg)
    return cfg.TRAINER[name.upper()]


def bare_config() -> CfgNode:
    """A config that settings can be declared in, without Dassl's own keys."""
    nodes: dict[str, dict[str, object]] = {"MODEL": {"BACKBONE": {}}}
    for name in ("DATASET", "INPUT", "DATALOADER", "TEST", "TRAINER"):
        nodes[name] = {}
    return CfgNode(nodes)
