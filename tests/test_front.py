"""The front: how long README and the documents are, and what a snippet imports."""

import re
from pathlib import Path

import nbformat
import pytest

from tests.runs import REPOSITORY, python
from tests.test_documentation import DOCS, DOCUMENTS
from tests.tutorials import blocks_of

README = REPOSITORY / "README.md"
# without pages that are filled from docstrings, and the lab book, a history like CHANGELOG: what
# still holds of it stands on the pages
COUNTED = {
    README,
    *DOCS.glob("*.md"),
    *DOCS.glob("tutorials/*.md"),
    *DOCS.glob("faithfulness/*.md"),
} - {DOCS / "log.md"}
IMPORT = re.compile(r"(?m)^\s*(?:from|import) (labelling|trainers)\b")


def words(path: Path) -> int:
    """As ``wc -w`` counts, but for signs that are no words: bars of tables, dashes, equals signs."""
    return sum(any(map(str.isalnum, word)) for word in path.read_text("utf-8").split())


def test_readme_is_read_in_minutes_and_says_where_what_is():
    text = README.read_text("utf-8")
    assert len(text.split()) <= 1400
    first = " ".join(text.partition("\n## ")[0].split())
    for asked_for in (
        *("One or [several labels", "BioCLIP", "SigLIP 2", "Label Studio", "ONNX", "promises"),
        *("pip install .", "cdc-train my_folder", "Research:", "Contents:"),
    ):
        assert asked_for in first, asked_for
    for heading in re.findall(r"(?m)^## (.*)$", text):
        anchor = heading.lower().replace("'", "").replace(" ", "-")
        assert f"](#{anchor})" in first, heading


@pytest.mark.slow
def test_readmes_example_prints_what_its_comments_say(tmp_path):
    """And no warning about its own pictures."""
    (example,) = [block.text for block in blocks_of(README) if block.language == "python"]
    done = python("-c", example, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    said = re.search(r"(\d+) and (\d+) % of 120 pictures", example).groups()
    found = re.findall(r"(?m)^(?:ZeroshotCLIP|LinearProbe) ([\d.]+)$", done.stdout)
    # processors differ in some pictures
    assert [*map(float, found)] == pytest.approx([*map(float, said)], abs=4)
    assert re.findall(r"(?m)^\[.*\]$", done.stdout) == ["['tree', 'tree']", "['tree']"]
    assert "too high" not in done.stdout + done.stderr


def test_the_documents_are_read_in_a_day():
    assert sum(map(words, COUNTED)) <= 20_000


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.is_relative_to(DOCS) or page == README], ids=str
)
def test_snippets_have_the_installed_names(page):
    """In a checkout they are the same modules: test_import_names.py."""
    assert not IMPORT.findall(page.read_text("utf-8"))


def test_the_notebook_has_the_installed_names():
    notebook = nbformat.read(DOCS / "tutorials/quickstart.ipynb", as_version=4)
    assert not [cell.source for cell in notebook.cells if IMPORT.search(cell.source)]
