"""Which runs a protocol consists of, which of them are done, and by which rules a recipe varies."""

from pathlib import Path

from trainers.common.readers import read_yaml

PROTOCOLS = read_yaml(Path(__file__).with_name("protocols.yaml"))  # name → see there
