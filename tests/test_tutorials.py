"""The tutorials do what they say: every command and program of theirs, in order; tutorials.py follows them."""

import sys

import pytest

from tests import tutorials
from tests.conftest import REPOSITORY, in_turn
from tests.tutorials import Block, apply, assert_shows, blocks, checkout, follow

# What a reader goes through in one folder; plug_in.md is another folder's, in another environment: test_wheels.py.
COURSES = ["install own_trainer", "first_run cluster", "own_images report"]


@pytest.mark.slow
@pytest.mark.parametrize("course", in_turn(COURSES, always=COURSES[:1]))
def test_the_tutorials_do_what_they_say(course, tmp_path, monkeypatch):
    """The generated tests of every trainer and the checks of code and documentation also pass for the tutorial's own."""
    folder = checkout(tmp_path / "repository")
    if "own_trainer" in course:
        draw_shapes, *_ = (
            block.text for block in blocks("own_images") if block.language == "python"
        )
        tutorials.run([sys.executable, "-c", draw_shapes], folder, sys.executable)
    for tutorial in course.split():
        follow(tutorial, folder)
    if "own_trainer" in course:
        tutorials.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "tests/trainers",
                "tests/test_faithfulness.py",
                "-k",
                "LowRankCoOp or faithfulness",
            ],
            folder,
            sys.executable,
        )
        monkeypatch.setenv(
            "MYPY_CACHE_DIR", str(REPOSITORY / ".mypy_cache")
        )  # of all but the tutorial's own files
        tutorials.run(["bash", "scripts/check.sh"], folder, sys.executable)


def test_every_tutorial_is_followed():
    assert {*" ".join(COURSES).split(), "plug_in"} == {
        path.stem for path in tutorials.FOLDER.glob("*.md")
    }


def test_the_trainer_of_the_tutorial_has_at_most_100_lines():
    (trainer,) = (
        block.text for block in blocks("own_trainer") if block.comment.endswith("lowrankcoop.py")
    )
    assert len(trainer.splitlines()) <= 100


@pytest.mark.parametrize(
    "shown",
    [
        "accuracy 80.0 % of 18",
        "accuracy 87.5 % of 18\nthe end",
        "accuracy  80.0 % … end",
        "80.0 % of …",
    ],
)
def test_what_is_shown_may_be_a_passage_and_a_little_off(shown):
    assert_shows(shown, "begin\naccuracy 80.0 % of 18\nthe end\n")


@pytest.mark.parametrize(
    "shown",
    [
        "accuracy 90.0 % of 18",
        "accuracy 80.0 % of 19",
        "accuracy 80.0 … begin",
        "ccuracy 80.0 % of the",
    ],
)
def test_what_was_not_printed_is_seen(shown):
    with pytest.raises(AssertionError, match="shown"):
        assert_shows(shown, "begin\naccuracy 80.0 % of 18\nthe end\n")


def follow_text(text, tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials, "FOLDER", tmp_path)
    (tmp_path / "page.md").write_text(text)
    return follow("page", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nfalse\n```\n",
        "```bash\nfalse | cat\n```\n",
        "```python\nraise SystemExit(1)\n```\n",
        "```bash\necho one\n```\n\n```text\ntwo\n```\n",
        "<!-- shows: docs/tutorials/lowrankcoop.py -->\n```python\nanother = program\n```\n",
        "```console\n$ echo one\n```\n",
    ],
)
def test_a_page_that_does_something_else_is_seen(text, tmp_path, monkeypatch):
    with pytest.raises(AssertionError):
        follow_text(text, tmp_path, monkeypatch)


def test_a_page_is_followed_in_order_and_what_is_left_out_is_not_run(tmp_path, monkeypatch):
    text = (
        "```bash\necho one > file\n```\n\n<!-- tests: leave out, because -->\n```bash\nrm file\n```\n\n```bash\ncat file\n```\n\n"
        "```text\none\n```\n"
    )
    assert follow_text(text, tmp_path, monkeypatch) == "one\n"
    assert list(blocks("page"))[1] == Block("bash", "rm file\n", "tests: leave out, because")


def test_a_diff_changes_the_one_place_that_it_shows(tmp_path):
    file = tmp_path / "program.py"
    file.write_text("one\ntwo\nthree\ntwo\n")
    apply("+++ program.py\n one\n-two\n+2\n three\n", tmp_path)
    assert file.read_text() == "one\n2\nthree\ntwo\n"
    with pytest.raises(AssertionError, match="no longer"):
        apply("+++ program.py\n-four\n+4\n", tmp_path)
