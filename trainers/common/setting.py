"""Settings, each declared in one place: its default, its meaning, and the values that it takes.

A method's file lists its settings by name, and the class of the method names that list, ``declared``;
a run's settings are listed in ``trainers/settings.py``. Config nodes are made of the lists and hold plain
values, so that any toolbox's yacs can copy, merge and dump them. Whoever checks a node names the list
that it must keep to (``config_files.check_values``): nothing is hidden in a node, where a copy might lose
it, and no table is filled by imports, whose order would matter.

Values that depend on other settings, the data or the CLIP are checked where they are used.
"""

import copy
from dataclasses import dataclass, field

from yacs.config import CfgNode

Bounds = dict[str, float]  # "at least", "above", "at most" → a number, or each of a list's
Takes = Bounds | list[object]  # bounds, or all that may be chosen
ANY: Bounds = {}  # value that is of the default's type


def at_least(least: float, most: float | None = None) -> Bounds:
    """Numbers from ``least`` on, up to ``most``."""
    return {"at least": least} if most is None else {"at least": least, "at most": most}


def larger_than(limit: float, most: float | None = None) -> Bounds:
    """Numbers larger than ``limit``, up to ``most``."""
    return {"above": limit} if most is None else {"above": limit, "at most": most}


COUNT = at_least(1, 1000)  # of a prompt's tokens, or of layers


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        default: all values have its type; a list's elements the type of its first one, text where
            it is empty.
        says: its meaning, for the documentation.
        takes: the values of that type that it takes, whatever else is set; also None, if that
            may be chosen.
    """

    default: object
    says: str
    takes: Takes = field(default_factory=dict)


Settings = dict[str, Setting]  # by name, or by ``A.B`` for B in a node A


def declare(cfg: CfgNode, settings: Settings) -> None:
    """Put settings into a config, all at their defaults; settings already there keep their value."""
    for path, setting in settings.items():
        *nodes, key = path.split(".")
        node = cfg
        for name in nodes:
            if name not in node:
                node[name] = CfgNode()
            node = node[name]
        if key not in node:
            node[key] = copy.deepcopy(setting.default)


def node_of(settings: Settings) -> CfgNode:
    """A new config node of settings, all at their defaults."""
    node = CfgNode()
    declare(node, settings)
    return node


def under(path: str, settings: Settings) -> Settings:
    """The settings of the node ``path`` by their names in the whole config, ``path.KEY``."""
    return {f"{path}.{key}": setting for key, setting in settings.items()}
