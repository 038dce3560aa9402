"""The packages' installed names in a checkout, and the commands' modules."""

import ast
import importlib
import sys

import pytest

from tests.runs import REPOSITORY, code_files

NAMES = {"cdc_labelling": "labelling", "cdc_trainers": "trainers"}


@pytest.mark.parametrize("second, first", NAMES.items())
def test_a_package_is_the_same_under_both_names(second, first):
    assert importlib.import_module(second) is importlib.import_module(first)
    for path in sorted((REPOSITORY / first).rglob("*.py")):
        module = ".".join(path.relative_to(REPOSITORY / first).with_suffix("").parts)
        if module.endswith("__init__") or module.startswith(("page", "checkout")):
            continue
        own = importlib.import_module(f"{first}.{module}")
        spec = own.__spec__
        assert importlib.import_module(f"{second}.{module}") is own
        assert own.__spec__ is spec
        assert own.__name__ == f"{first}.{module}"


def test_a_module_that_neither_name_has_is_named_as_it_was_asked_for():
    with pytest.raises(ModuleNotFoundError, match="labelling.nothing"):
        importlib.import_module("cdc_labelling.nothing")


@pytest.mark.parametrize("second, first", NAMES.items())
def test_both_packages_are_typed_and_say_their_version(second, first):
    assert (REPOSITORY / first / "py.typed").is_file()
    assert sys.modules["trainers"].__version__


def is_guard(statement):
    return isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)


COMMANDS = [
    path
    for path in code_files()
    if any(
        isinstance(node, ast.FunctionDef) and node.name == "main" and "arguments" in ast.dump(node)
        for node in ast.parse(path.read_text("utf-8")).body
    )
]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_with_a_command_starts_it(path):
    """Else python -m would end with 0 and have done nothing."""
    assert any(map(is_guard, ast.parse(path.read_text("utf-8")).body))
