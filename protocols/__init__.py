"""Protocols: their runs, the done ones, and the rules that vary a recipe."""

from pathlib import Path

from trainers.common.readers import read_yaml

PROTOCOLS = read_yaml(Path(__file__).with_name("protocols.yaml"))  # name → description
