"""The import contract of trainers/ names all that is there; a method of one's own needs no line. And what
is imported from dassl-lite is in Dassl."""

import ast
import re

import yaml
from importlinter import api

from tests.runs import REPOSITORY
from trainers import METHODS


def test_the_layers_of_trainers_name_every_module():
    contracts = api.read_configuration(f"{REPOSITORY}/pyproject.toml")["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "trainers")
    named = set(re.findall(r"\w+", " ".join(layers)))
    there = {path.stem for path in (REPOSITORY / "trainers").glob("[a-z]*")} - {"py"}  # py.typed
    assert named <= there
    assert there - named <= {module.strip(".") for module in METHODS.values()}


def test_our_trainers_import_only_what_dassl_has():
    imported = [
        (node.module, alias.name)
        for path in (REPOSITORY / "trainers").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dassl"
        for alias in node.names
    ]
    assert imported
    names = yaml.safe_load((REPOSITORY / "dassl-lite/tests/names.yaml").read_text("utf-8"))
    assert [pair for pair in imported if pair[1] not in names.get(pair[0], "").split()] == []
