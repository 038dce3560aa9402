"""What stands in a document runs: Python is run, commands are read word by word (commands.py). The
tutorials are followed from their first block to the last by test_tutorials.py."""

import ast
import doctest
import importlib
import re
import shutil
from itertools import cycle
from pathlib import Path

import pytest
import torch

from protocols.arguments import extensions
from tests.commands import check, shell_in
from tests.runs import REPOSITORY, code_files
from tests.test_documentation import DOCS, DOCUMENTS, tokens_of
from trainers.common.config_files import check_values, leaves, merge
from trainers.common.setting import declare
from trainers.settings import RUN, run_config

OF_EARLIER_COMMITS = "<!-- tests: of earlier commits -->"


def blocks(document):
    """Line, language and text of a page's blocks, without those of earlier commits."""
    before = ""
    for token in tokens_of(document):
        if token.type == "fence" and before != OF_EARLIER_COMMITS:
            yield token.map[0] + 1, token.info.split(" ")[0], token.content
        if token.type in ("fence", "html_block"):
            before = token.content.strip()


BLOCKS = [(document, *block) for document in DOCUMENTS for block in blocks(document)]


def in_language(wanted, without=()):
    """A test for each block in a language, called after its page and line."""
    found = {
        f"{document.relative_to(REPOSITORY)}:{line}": text
        for document, line, language, text in BLOCKS
        if language == wanted and not {document, document.parent} & {*without}
    }
    assert found
    return pytest.mark.parametrize("text", found.values(), ids=found)


@pytest.fixture
def stage(tmp_path, trained, data_root, monkeypatch):
    """Makes an empty folder the current one, but for what the examples take for granted: a run, two
    pictures, and a table of pictures with several labels."""
    shutil.copytree(trained("CDC"), tmp_path / "output/my_run/seed1")
    for name in ("cat.jpg", "dog.png"):
        shutil.copy(f"{data_root}/dtd/images/woven/00.png", tmp_path / name)
    named = zip(
        sorted(Path(data_root, "dtd/images").rglob("*.png"))[::4], cycle(["dog;ball", "dog", ""])
    )
    lines = [f"{path},{labels}\n" for path, labels in named]
    (tmp_path / "labels.csv").write_text("".join(["image,label\n", *lines]))
    monkeypatch.chdir(tmp_path)
    # a training's report, which takes longer than the training
    monkeypatch.setattr("report.page.make_report", lambda *_: [])
    return tmp_path


@in_language("python", without=[DOCS / "tutorials"])
def test_a_python_block_runs(stage, text):
    of_the_text = {  # that docs/uncertainty.md speaks of before its block
        "log_probability": torch.randn(50, 3).log_softmax(dim=1),
        "labels": torch.arange(50) % 3,
        "other_log_probability": torch.randn(20, 3).log_softmax(dim=1),
    }
    short = re.sub(r'("OPTIM.MAX_EPOCH"): \d+', r"\1: 1", text)  # it takes as long as it learns
    exec(compile(short, "block", "exec"), {"__name__": "__main__", **of_the_text})


# the first has a train.py of its own, the second a person.py and a loop: both are followed to the letter
@in_language("bash", without=[DOCS / "tutorials/plug_in.md", DOCS / "tutorials/rounds.md"])
def test_a_command_is_read_word_by_word_by_its_own_program(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    check(text, tmp_path)


SETTING = re.compile(
    r"((?:DATALOADER|DATASET|INPUT|MODEL|OPTIM|TEST|TRAIN|TRAINER)\.[\w.]+)(?: \"?([^\"]+)\"?)?"
)
NAMED = {  # in running text; what others' code calls so is in docs/faithfulness
    found[0]: found.groups()
    for document in DOCUMENTS
    if "faithfulness" not in str(document) and document.stem not in ("log", "CHANGELOG")
    for token in tokens_of(document)
    if token.type == "code_inline" and (found := SETTING.fullmatch(token.content))
}


@pytest.mark.parametrize("key, value", NAMED.values(), ids=NAMED)
def test_a_setting_that_a_text_names_exists_and_takes_that_value(key, value):
    cfg = run_config()
    declare(cfg, extensions())
    defaults = dict(leaves(cfg))
    assert any(known == key or known.startswith(f"{key}.") for known in defaults)
    if value:
        merge(cfg, {key: value}, "the text")
        check_values(cfg, RUN | extensions())


# ---- docstrings ----


def docstrings(path):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


WITH_COMMANDS = {
    str(path.relative_to(REPOSITORY)): text
    for path in code_files()
    if (text := shell_in(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""))
}
WITH_EXAMPLES = [path for path in code_files() if any(">>> " in text for text in docstrings(path))]


@pytest.mark.parametrize("text", WITH_COMMANDS.values(), ids=WITH_COMMANDS)
def test_a_docstrings_command_is_read_by_its_own_program(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    check(text, tmp_path)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.name)
def test_a_docstrings_examples_run(stage, path):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
