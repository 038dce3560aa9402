"""From formula to line: the functions and tests that docs/method.md and docs/faithfulness name exist, and every trainer has
its section."""

import ast
import re

import pytest
import torch

from tests.conftest import REPOSITORY
from trainers import METHODS
from trainers.evaluation.open_world import open_world
from trainers.evaluation.prediction import Prediction, measure

DOCS = REPOSITORY / "docs"
FAITHFULNESS = [DOCS / "faithfulness.md", *sorted((DOCS / "faithfulness").glob("*.md"))]
PAGES = [DOCS / "method.md", *FAITHFULNESS]
FUNCTION = re.compile(
    r"\[`([\w.]+)`\]\(([^)#]+\.py)\)"
)  # [`name`](file.py), a method as Class.name
TEST = re.compile(r"`([\w/.…]+)::(test_\w+)`")  # `file::test`, … standing for the file named before


def defined(path):
    """Names of the functions, classes and methods of a Python file."""
    names = set()

    def visit(nodes, prefix=""):
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(path.read_text(encoding="utf-8")).body)
    return names


def missing(page):
    """Functions and tests that a page names and that are not there."""
    text, file, lacking = page.read_text(encoding="utf-8"), None, []
    for name, target in FUNCTION.findall(text):
        path = page.parent / target
        if not path.is_file() or name not in defined(path):
            lacking.append(f"{name} in {target}")
    for place, test in TEST.findall(text):
        file = file if place == "…" else place
        path = REPOSITORY / ("" if file.startswith("tests/") else "tests/trainers") / file
        if not path.is_file() or test not in defined(path):
            lacking.append(f"{file}::{test}")
    return lacking


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_function_and_test_that_a_page_names_exists(page):
    assert missing(page) == []


def test_what_a_page_names_and_what_is_not_there_is_found(tmp_path):
    (tmp_path / "code.py").write_text("class A:\n    def b(self): ...\n")
    (tmp_path / "page.md").write_text(
        "[`A.b`](code.py) [`b`](code.py) [`A`](none.py) `test_cdc_evidence.py::test_fusion_rules` `…::test_no`"
    )
    assert missing(tmp_path / "page.md") == [
        "b in code.py",
        "A in none.py",
        "test_cdc_evidence.py::test_no",
    ]


def test_every_term_of_the_table_has_a_function_and_a_test():
    section = (DOCS / "method.md").read_text(encoding="utf-8").split("## From formula to line")[1]
    rows = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row for row in rows if not (FUNCTION.search(row) and TEST.search(row))] == []


def test_every_trainer_has_its_section():
    headings = [
        name.strip(",")
        for page in FAITHFULNESS
        for heading in re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        for name in heading.split()
    ]
    assert {name: headings.count(name) for name in METHODS} == dict.fromkeys(METHODS, 1)


def test_every_figure_of_a_record_has_its_definition():
    """Of a method that has all of them: one with templates that vote with evidence, asked with base and new classes."""
    votes = torch.full((2, 4, 4), 0.25)
    prediction = Prediction(votes[0], votes, *torch.full((3, 4), 0.5))
    found = measure(prediction, torch.arange(4), "abcd")
    doubts = found.pop("uncertainty")
    names = [*found, *doubts, *doubts["vacuity"], *open_world(prediction, torch.arange(4), 2)]
    page = (DOCS / "faithfulness" / "figures.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in page] == ["images"]
