"""The default config: every key of `defaults.yaml`, which lies beside this file."""

from pathlib import Path

import yaml
from yacs.config import CfgNode


class _Loader(yaml.SafeLoader):
    """YAML with `!tuple [...]`."""


_Loader.add_constructor(
    "!tuple",
    lambda loader, node: tuple(loader.construct_sequence(node)),  # type: ignore[arg-type]
)
_C = CfgNode(yaml.load(Path(__file__).with_suffix(".yaml").read_text("utf-8"), _Loader))
