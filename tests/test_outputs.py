"""What leaves the program: files that overwrite nobody's, names that can't move a cursor or start a
formula, letters in any locale."""

import csv
import io
import logging
import os
import shutil
import subprocess
import sys

import pytest

import predict
from tests.datasets.miniatures import image_folder
from tests.datasets.test_every_dataset import build
from tests.runs import REPOSITORY, call, contents_of, refuses
from trainers.common.console import Lines, logged_to, printable
from trainers.common.errors import UserError
from trainers.common.files import check_output, write_text


@pytest.fixture
def photos(data_root, tmp_path):
    shutil.copytree(f"{data_root}/dtd/images/woven", f"{tmp_path}/photos")
    return sorted(map(str, (tmp_path / "photos").iterdir()))


@pytest.fixture
def own_run(copied):
    return str(copied("CDC"))


# ---- nothing of the user's is overwritten ----


def test_predict_overwrites_neither_photographs_nor_a_run(own_run, photos, tmp_path, error_of):
    notes = tmp_path / "notes.csv"
    notes.write_text("my notes\nimage,label,doubtful,uncertainty\n")  # a table's mark, too late
    os.link(photos[1], f"{tmp_path}/linked.png")
    os.symlink(photos[1], f"{tmp_path}/link.png")
    before = contents_of(tmp_path)
    links = [f"{tmp_path}/linked.png", f"{tmp_path}/link.png"]
    for output in (*photos[:2], notes, f"{own_run}/results.json", f"{own_run}/log.txt", *links):
        line = error_of(predict.main, "--run", own_run, *photos[1:], "--csv", output)
        assert line.startswith(f"error: --csv {output} ")
        assert "delete it first" in line or "files to read" in line
    assert contents_of(tmp_path) == before


def test_what_can_be_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        path = f"{tmp_path}/{name}"
        with refuses("is no file: move it away, or give another"):
            write_text(path, "x")
        with refuses("is no file: move it away, or give another"):
            check_output("--csv", path, "x")
    with refuses("File name too long"):
        check_output("--csv", "x" * 300, "x")


# ---- names ----

ESCAPE = "a\x1b[31m\nb\r\x07\x9b\u202e.png"
ESCAPED = r"a\x1b[31m\nb\r\x07\x9b\u202e.png"


def test_control_characters_are_shown_escaped_in_lines_and_logs(own_run, photos, tmp_path, capsys):
    odd = tmp_path / ESCAPE
    shutil.copy(photos[0], odd)
    assert call(predict.main, "--run", own_run, odd) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{tmp_path}/{ESCAPED}\t")
    odd.write_bytes(b"no image")
    assert call(predict.main, "--run", own_run, odd, photos[0]) == 1
    assert f"image {tmp_path}/{ESCAPED} can't be read" in capsys.readouterr().err.splitlines()[-1]
    assert str(UserError(f"no {ESCAPE}")) == f"no {ESCAPED}"


def test_a_message_may_have_lines_and_a_name_in_it_may_not():
    def line(*message):
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, message[0], message[1:], None)
        return Lines().format(record)

    assert line("%d of %s", 3, "a\nb\x1b") == r"3 of a\nb\x1b"
    assert line("a\tb\n") == "a\tb\n"
    assert line("ä → €  '%s'", "ß 👩\u200d🎨") == "ä → €  'ß 👩\u200d🎨'"


def test_a_name_is_one_row_of_a_table_and_no_formula(own_run, photos, tmp_path, monkeypatch):
    """In any reader of lines, and in one of CSV."""
    monkeypatch.chdir(tmp_path)
    paths = [f"{name}.png" for name in ("a\rb", "c\nd", "e\u2028f", "=HYPERLINK(1)")]
    for path in paths:
        shutil.copy(photos[0], path)
    words = "--csv", "a.csv", *paths, "--classes", "@SUM(1)", "+1"
    for _ in range(2):  # what it has written before it replaces
        assert call(predict.main, "--run", own_run, *words) == 0
    content = (tmp_path / "a.csv").read_bytes().decode("utf-8-sig")
    assert len(content.splitlines()) == 1 + len(paths)
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["image"] for row in rows] == [*map(printable, paths[:3]), "'=HYPERLINK(1).png"]
    assert {rows[0]["class_1"], rows[0]["class_2"]} == {"'@SUM(1)", "'+1"}


def test_names_that_differ_in_case_or_form_only_are_warned_of(tmp_path, caplog):
    names = ("Zebra", "zebra", "caf\u00e9", "cafe\u0301", "dog")
    image_folder(tmp_path, dict.fromkeys(names, 4))
    build("ImageFolder", tmp_path)
    assert [message for message in caplog.messages if "differ in case" in message] == [
        "Class names that differ in case or Unicode form only: 'Zebra' 'zebra'",
        r"Class names that differ in case or Unicode form only: 'cafe\u0301' 'caf\xe9'",
    ]


# ---- surroundings ----


def test_a_list_of_files_may_hold_names_of_any_bytes_and_output_works_in_any_locale(
    own_run, tmp_path, photos
):
    """The list as ``find`` gives it, where files' names are UTF-8 and letters in output are not."""
    names = [os.fsencode(tmp_path) + b"/caf\xe9 \xff.png", os.fsencode(f"{tmp_path}/ö→.png")]
    for name in names:
        shutil.copy(photos[0], name)
    done = subprocess.run(
        [sys.executable, "predict.py", "--run", own_run, "-"],
        cwd=REPOSITORY,
        input=b"\n".join(names),
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert rb"/caf\udce9 \udcff.png" in first
    assert "/ö".encode("latin-1") + rb"\u2192.png" in second


@pytest.mark.parametrize(
    "closed, message", [(">&-", "standard output is closed"), ("> /dev/full", "make room")]
)
def test_output_that_takes_nothing_is_a_line(closed, message):
    plan = "run.py --protocol zeroshot --trainer ZeroshotCLIP --plan"
    command = ["bash", "-c", f"{sys.executable} {plan} {closed}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in line


def test_a_log_that_is_closed_is_collected_without_a_complaint(tmp_path):
    with logged_to(str(tmp_path / "log.txt")) as log:
        pass
    log.close()  # as Python does when it collects a stream; from 3.13 on it says what fails there
