"""The default config: every key of `defaults.yaml`, which lies beside this file."""

from pathlib import Path

import yaml
from yacs.config import CfgNode


class _Loader(yaml.SafeLoader):
    """YAML with `!tuple [...]`."""


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[object, ...]:
    assert isinstance(node, yaml.SequenceNode)
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor("!tuple", _tuple)
_C = CfgNode(yaml.load(Path(__file__).with_suffix(".yaml").read_text("utf-8"), _Loader))
