"""From formula to line: the functions and tests that docs/method.md, its docs/data/formulas.csv and
docs/faithfulness name exist, and every trainer of README's table has its section."""

import ast
import csv
import re

import pytest
import torch

from tests.runs import REPOSITORY
from trainers import METHODS
from trainers.evaluation.open_world import open_world
from trainers.evaluation.prediction import Prediction, measure

DOCS = REPOSITORY / "docs"
FAITHFULNESS = [DOCS / "faithfulness.md", *sorted((DOCS / "faithfulness").glob("*.md"))]
PAGES = [DOCS / "method.md", *FAITHFULNESS]
FUNCTION = re.compile(
    r"\[`([\w.]+)`\]\(([^)#]+\.py)\)"
)  # [`name`](file.py), a method as Class.name


def defined(path):
    """Names of the functions, classes and methods of a Python file."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
            for part in getattr(node, "body", []):
                yield f"{node.name}.{getattr(part, 'name', '')}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_function_that_a_page_names_exists(page):
    """Tests: test_documentation.py."""
    for name, target in FUNCTION.findall(page.read_text("utf-8")):
        path = page.parent / target
        assert name in defined(path), f"{name} in {path}"


def test_every_symbol_has_a_function_and_a_test_that_exist():
    """As ``file::name``, separated by spaces."""
    with open(DOCS / "data/formulas.csv", encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) >= 18
    for row in rows:
        for column in ("functions", "tests"):
            assert row[column], row
            for place in row[column].split():
                path, name = place.split("::")
                assert name in defined(REPOSITORY / path), place


def test_every_trainer_of_the_readmes_table_has_its_section():
    """A method of one's own is in neither."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| (`\w+`[^|]*) \|", readme)
    shown = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert {*shown} <= {*METHODS}
    headings = [
        name.strip(",")
        for page in FAITHFULNESS
        for heading in re.findall(r"^## (.*)$", page.read_text("utf-8"), re.MULTILINE)
        for name in heading.split()
    ]
    assert {name: headings.count(name) for name in shown} == dict.fromkeys(shown, 1)


def test_every_figure_of_a_record_has_its_definition():
    """Of a method that has all of them: one with templates that vote with evidence, asked with base
    and new classes."""
    votes = torch.full((2, 4, 4), 0.25)
    prediction = Prediction(votes[0], votes, *torch.full((3, 4), 0.5))
    found = measure(prediction, torch.arange(4), "abcd")
    doubts = found.pop("uncertainty")
    names = [*found, *doubts, *doubts["vacuity"], *open_world(prediction, torch.arange(4), 2)]
    page = (DOCS / "measures.md").read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in page] == ["images"]
