"""The import contract of trainers/ names all that is there; a method of one's own needs no line."""

import re

from importlinter import api

from tests.runs import REPOSITORY
from trainers import METHODS


def test_the_layers_of_trainers_name_every_module():
    contracts = api.read_configuration(f"{REPOSITORY}/pyproject.toml")["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "trainers")
    named = set(re.findall(r"\w+", " ".join(layers)))
    there = {path.stem for path in (REPOSITORY / "trainers").glob("[a-z]*")} - {"py"}  # py.typed
    assert named <= there
    assert {f".{name}" for name in there - named} <= set(METHODS.values())
