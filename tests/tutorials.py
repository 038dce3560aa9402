"""Follows the tutorials of docs/tutorials as a reader would: runs their blocks one after the other
and looks at what they print.

What a block is follows from its language: ``bash`` and ``python`` are run, ``diff`` is applied to
the file it names, and ``text`` is what the block before it printed, as far as it is shown: ``…``
stands for anything, and numbers with a point may differ a little, since they depend on the
processor. A comment before a block, which no reader sees, says what else there is to know:

    <!-- tests: leave out, REASON -->    the block is not run
    <!-- file: PATH -->                  the block is saved as that file

Commands are run as they stand, none is made shorter.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.runs import PATIENCE, REPOSITORY

FOLDER = REPOSITORY / "docs/tutorials"
NOT_COPIED = {"build", "data", "output", "report.html", "report_figures"}
NUMBER = re.compile(r"\d+\.\d+")


@dataclass
class Block:
    """A fenced block: its language, its text, and the comment before it."""

    language: str
    text: str
    comment: str


def blocks(tutorial):
    """The blocks of ``docs/tutorials/<tutorial>.md``, in order."""
    return blocks_of(FOLDER / f"{tutorial}.md")


def blocks_of(page):
    """The blocks of a Markdown file, in order."""
    comment = ""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            comment = token.content.strip().removeprefix("<!-- ").removesuffix(" -->")
        elif token.type == "fence":
            yield Block(token.info.strip(), token.content, comment)
            comment = ""


def checkout(folder):
    """A copy of the repository as somebody finds it who has fetched it."""

    def left_out(path, names):
        ours = NOT_COPIED if Path(path) == REPOSITORY else ()
        hidden = (name for name in names if name.startswith("."))
        # into which another process may be writing
        return {*hidden, *ours, "__pycache__"}

    return shutil.copytree(REPOSITORY, folder, ignore=left_out)


def follow(tutorial, folder, python=sys.executable):
    """Runs a tutorial's blocks in a folder, with an interpreter; returns what the last of them
    printed."""
    printed = ""
    for block in blocks(tutorial):
        if block.comment.startswith("tests: leave out, "):
            continue
        if block.comment.startswith("file: "):
            path = folder / block.comment.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            printed = run(["bash", "-euo", "pipefail", "-c", block.text], folder, python)
        elif block.language == "python":
            printed = run([str(python), "-c", block.text], folder, python)
        elif block.language == "diff":
            apply(block.text, folder)
        elif block.language == "text":
            assert_shows(block.text, printed)
        else:
            raise AssertionError(f"{tutorial}: what is a block of {block.language!r}?")
    return printed


def run(command, folder, python):
    """Standard output of a command in which ``python`` is the interpreter."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    env["VIRTUAL_ENV"] = str(Path(python).parents[1])  # into which a script installs nothing
    env.pop("PYTHONPATH", None)  # what it names would count as installed
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True, timeout=PATIENCE, env=env
    )
    said = f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, f"exit code {done.returncode}: {said}"
    return done.stdout


def apply(diff, folder):
    """Changes the file that a diff names; the lines that it takes out or keeps have to be there,
    once."""
    name, *lines = diff.splitlines()
    path = folder / name.removeprefix("+++ ")
    before, after = (
        "".join(f"\n{line[1:]}" for line in lines if line[0] in kept) + "\n"
        for kept in (" -", " +")
    )
    text = "\n" + path.read_text("utf-8")
    assert text.count(before) == 1, f"{path.name} is no longer as the tutorial says"
    path.write_text(text.replace(before, after).removeprefix("\n"), encoding="utf-8")


def assert_shows(shown, printed):
    """Whether a passage of what was printed reads as it is shown: the same words and integers, and
    numbers with a point within 10 %."""
    numbers = [float(number) for number in NUMBER.findall(shown)]
    pattern = re.escape(NUMBER.sub("#NUMBER#", shown.strip())).replace("…", ".*?")
    pattern = re.sub(r"(\\?\s)+", r"\\s+", pattern).replace(r"\#NUMBER\#", f"({NUMBER.pattern})")
    found = re.search(pattern, printed, re.DOTALL)
    assert found, f"shown:\n{shown}\nprinted:\n{printed[-4000:]}"
    assert [*map(float, found.groups())] == pytest.approx(numbers, rel=0.1), f"shown:\n{shown}"
