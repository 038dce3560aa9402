"""The notebook of docs/tutorials runs from its first cell to its last, and shows what it says."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/tutorials/quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.source for cell in cells if cell.get("outputs")] == []


@pytest.mark.slow
def test_the_notebook_goes_from_pictures_to_labels_and_a_diagram():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    # nothing can be installed: where the first cell tried to, pip would fail
    client = NotebookClient(notebook, timeout=600, resources=resources)
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "".join(output.get("text", "") for output in outputs)
    for pattern, least in (
        (r"\* accuracy: ([\d.]+)%", 80),
        (r"(\d+)% of 200 pictures are labelled correctly", 50),  # chance is 33 %
    ):
        assert float(re.search(pattern, texts)[1]) > least
    kinds = {kind for output in outputs for kind in output.get("data", ())}
    assert {"image/png", "text/html"} <= kinds, "a picture, and a table"
