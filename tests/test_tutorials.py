"""The tutorials do what they say: every command and program of theirs, in order; tutorials.py
follows them."""

import os
import re
import shutil
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests import killed, tutorials
from tests.runs import PATIENCE, REPOSITORY
from tests.same_run import assert_same_run
from tests.tutorials import blocks, checkout, follow

# What a reader goes through in one folder; plug_in.md is another folder's, in another environment:
# test_wheels.py.
COURSES = ["own_trainer", "first_run cluster", "own_images report", "bioclip"]
TABLES = ("next.csv", "tasks.json", "next4.csv", "next5.csv")  # that rounds.md asks a person about


@pytest.mark.slow
@pytest.mark.parametrize("course", COURSES)
def test_the_tutorials_do_what_they_say(course, tmp_path, monkeypatch):
    """The generated tests of every trainer and the checks of code and documentation also pass for
    the tutorial's own."""
    folder, is_own = checkout(tmp_path / "repository"), "own_trainer" in course

    def start(*command):
        tutorials.run([sys.executable, *command], folder, sys.executable)

    if is_own:
        programs = [block.text for block in blocks("own_images") if block.language == "python"]
        start("-c", programs[0])  # draws shapes
    for tutorial in course.split():
        follow(tutorial, folder)
    if is_own:
        words = "-m pytest -q -p no:cacheprovider tests/trainers tests/test_documentation.py"
        words += " tests/test_faithfulness.py tests/test_contracts.py -k"
        start(*words.split(), "LowRankCoOp or documentation or faithfulness or contracts")
        # of all but the tutorial's own files
        monkeypatch.setenv("MYPY_CACHE_DIR", f"{REPOSITORY}/.mypy_cache")
        tutorials.run(["bash", "scripts/check.sh"], folder, sys.executable)


@pytest.mark.slow
def test_rounds_whose_commands_are_killed_are_those_that_are_not(tmp_path):
    """Five rounds, followed to the letter, and once more with two kills of each command."""
    folder = checkout(tmp_path / "repository")
    follow("rounds", folder)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("output", "photos", *TABLES):
        shutil.move(folder / name, plain)
    python = tmp_path / "killed/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {killed.__file__} "$@"\n')
    python.chmod(0o755)
    follow("rounds", folder, python)
    kills = (folder / killed.KILLED).read_text().splitlines()
    for command in killed.COMMANDS:
        assert sum(command in kill for kill in kills) > 4
    for name in TABLES:
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    for place in ("", *(f"rounds/{number}" for number in range(1, 5))):
        assert_same_run(folder / "output/rounds" / place, plain / "output/rounds" / place)


def test_every_tutorial_is_followed():
    assert {*" ".join(COURSES).split(), "rounds", "plug_in"} == {
        path.stem for path in tutorials.FOLDER.glob("*.md")
    }


# ---- the notebook ----


NOTEBOOK = REPOSITORY / "docs/tutorials/quickstart.ipynb"


def shown(notebook):
    """The kinds of its cells' outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return {kind for output in outputs for kind in output.get("data", ())}


@pytest.mark.slow
def test_the_notebook_goes_from_pictures_to_labels_and_a_diagram():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert shown(notebook) >= {"image/png", "text/html"}, "it is kept with what a code host shows"
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    # nothing can be installed: where the first cell tried to, pip would fail
    client = NotebookClient(notebook, timeout=PATIENCE, resources=resources)
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "".join(output.get("text", "") for output in outputs)
    for pattern, least in (
        (r"([\d.]+) % of 18 test images are labelled correctly", 80),
        (r"(\d+)% of 200 pictures are labelled correctly", 50),  # chance is 33 %
    ):
        assert float(re.search(pattern, texts)[1]) > least
    assert shown(notebook) >= {"image/png", "text/html"}, "a picture, and a table"
