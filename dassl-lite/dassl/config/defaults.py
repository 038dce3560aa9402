"""The default config: every key of `data/defaults.yaml`."""

from pathlib import Path

import yaml
from yacs.config import CfgNode

_C = CfgNode(yaml.full_load((Path(__file__).parent / "data/defaults.yaml").read_text("utf-8")))
