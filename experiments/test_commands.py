"""The experiments' commands: what their docstrings show is read by their own programs, and they prepare
their process and refuse as the product's do."""

import ast
import importlib

import pytest

from experiments.lab import factors, templates, uncertainty
from tests import test_bad_input, test_environment
from tests.commands import check, shell_in
from tests.results import test_table
from tests.runs import REPOSITORY

FILES = sorted((REPOSITORY / "experiments").rglob("*.py"))
WITH_COMMANDS = {
    str(path.relative_to(REPOSITORY)): text
    for path in FILES
    if (text := shell_in(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""))
}
PROGRAMS = [path for path in FILES if test_environment.GUARD in path.read_text("utf-8")]
OF_RUNS = [module.main for module in (factors, templates, uncertainty)]


@pytest.mark.parametrize("text", WITH_COMMANDS.values(), ids=WITH_COMMANDS)
def test_a_docstrings_command_is_read_by_its_own_program(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    check(text, tmp_path)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_command_prepares_its_process_before_it_imports_anything(path):
    test_environment.test_every_command_prepares_its_process_before_it_imports_anything(path)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_command_is_a_module_of_the_package(path):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    assert callable(importlib.import_module(name).main)


def test_a_wrong_argument_is_answered_before_what_takes_seconds_is_imported():
    test_bad_input.test_a_wrong_argument_is_answered_before_what_takes_seconds_is_imported(
        "-m experiments.lab.uncertainty --wrong"
    )


@pytest.mark.parametrize("command", OF_RUNS, ids=lambda command: command.__module__)
def test_every_table_says_in_one_line_that_there_is_nothing_for_it(command, tmp_path, error_of):
    test_table.test_every_command_says_in_one_line_that_there_is_nothing_for_it(
        command, tmp_path, error_of
    )
