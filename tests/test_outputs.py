"""What leaves the program: files that overwrite nobody's, names that can't move a cursor or start a
formula, letters in any locale."""

import csv
import io
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pandas import DataFrame

import predict
from results import render
from results.report import __main__ as report
from results.report.figures import Figure, write_figure
from tests.datasets.miniatures import image_folder
from tests.datasets.test_every_dataset import build
from tests.runs import REPOSITORY, call, contents_of, python, refuses
from trainers.common.console import Lines, printable, table_cell
from trainers.common.errors import UserError, exit_code
from trainers.common.files import check_output, write_atomically, write_text
from trainers.common.image_files import left_out
from trainers.coop import CoOpMethod
from trainers.data.fewshot import match

ESCAPE = "a\x1b[31m\nb\r\x07\x9b\u202e.png"
ESCAPED = r"a\x1b[31m\nb\r\x07\x9b\u202e.png"


@pytest.fixture
def photos(data_root, tmp_path):
    shutil.copytree(f"{data_root}/dtd/images/woven", f"{tmp_path}/photos")
    return sorted(map(str, (tmp_path / "photos").iterdir()))


@pytest.fixture
def own_run(copied):
    return str(copied("CDC"))


# ---- nothing of the user's is overwritten ----


def test_predict_overwrites_neither_photographs_nor_a_run(own_run, photos, tmp_path, error_of):
    (tmp_path / "notes.csv").write_text("image,mine\n")
    os.link(photos[1], f"{tmp_path}/linked.png")
    os.symlink(photos[1], f"{tmp_path}/link.png")
    before = contents_of(tmp_path)
    kept = [f"{own_run}/{name}" for name in ("results.json", "log.txt", "predictions-test.npz")]
    outputs = [photos[0], photos[3], f"{tmp_path}/notes.csv", *kept]
    outputs += [f"{tmp_path}/linked.png", f"{tmp_path}/link.png"]
    for output in outputs:
        for words in (["--csv", output, *photos[1:]], [*photos, "--csv", output]):
            line = error_of(predict.main, "--run", own_run, *words)
            assert line.startswith(f"error: --csv {output} ")
            assert "delete it first" in line or "files to read" in line
    assert contents_of(tmp_path) == before


def test_a_command_replaces_what_it_has_written_before(own_run, photos, tmp_path):
    table = tmp_path / "a.csv"
    for paths in (photos[:1], photos[:2]):
        assert call(predict.main, "--run", own_run, "--csv", table, *paths) == 0
        assert len(table.read_text().splitlines()) == 1 + len(paths)


def test_a_report_replaces_a_report_only(own_run, tmp_path, error_of):
    page, before = tmp_path / "report.html", contents_of(tmp_path)
    checkpoint = next(path for path in before if "model.pth" in path.name)
    for output in (f"{own_run}/results.json", checkpoint, own_run):
        line = error_of(report.main, own_run, "--output", output)
        assert line.startswith(f"error: --output {output} ")
    assert contents_of(tmp_path) == before
    page.write_text("<!DOCTYPE html>\n<title>Report on 3 runs</title>\n")
    check_output("--output", str(page), "<title>Report on ")
    with refuses("delete it first"):
        check_output("--output", str(page), "<title>Another")


@pytest.mark.parametrize(
    "path, message",
    [
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null"),
        ("folder", "is no file: move it away, or give another"),
        ("pipe", "is no file: move it away, or give another"),
        ("/dev/null", "is no file: move it away, or give another"),
    ],
)
def test_what_can_be_no_file_is_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(f"{tmp_path}/pipe")
    with refuses(message):
        check_output("--csv", path, "x")
    if os.path.lexists(path):
        with refuses(message):
            write_text(path, "text")
        assert os.path.lexists(path) and not os.path.isfile(path)
    check_output("--csv", "new/file", "x")


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    """Users who may write to the folder know the name."""
    seen = []
    write_atomically(f"{tmp_path}/a.txt", lambda path: seen.append(path) or Path(path).touch())
    (tmp_path / "victim").write_text("somebody's")
    for target in ("victim", "nowhere"):
        os.symlink(tmp_path / target, seen[0])
        write_text(f"{tmp_path}/a.txt", target)
    assert (tmp_path / "victim").read_text() == "somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "victim"]
    assert (tmp_path / "a.txt").read_text() == "nowhere" and not (tmp_path / "a.txt").is_symlink()


@pytest.mark.parametrize("style", render.FORMATS)
def test_a_table_replaces_a_table_only_and_has_no_formula(tmp_path, style):
    def text(*names):
        numbers = [-1.5] * len(names)
        return render.write_cells(DataFrame({"data set": names, "accuracy": numbers}), style, 1)

    path = tmp_path / "table"
    for content in (text("a"), text("another", "=1+1")):
        render.write_out(content, str(path))
        assert path.read_text() == content
    assert ("\n'=1+1,-1.5000\n" in content) is (style == "csv")
    for notes in ("", "# data set\nmine\n", "| mine | data set | accuracy |\n"):
        path.write_text(notes)
        with refuses("--output .* was not written by this command"):
            render.write_out(content, str(path))
        assert path.read_text() == notes


def test_a_figure_replaces_a_figure_only(tmp_path):
    figure = Figure("curve", "title", "reading", "alt", lambda axes: None)
    for _ in range(2):
        write_figure(figure, str(tmp_path), Counter())
    for mine in ("<svg>mine", "<svg><dc:title>Matplotlib, https://matplotlib.org/</dc:title>"):
        (tmp_path / "curve.svg").write_text(mine)
        with refuses("figure .* was not written by this command"):
            write_figure(figure, str(tmp_path), Counter())
        assert (tmp_path / "curve.svg").read_text() == mine


@pytest.mark.parametrize(
    "name", ["log.txt", "metrics.jsonl", "results.json", "predictions-val.npz"]
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_training_names_what_stands_in_its_files_place(refusal, tmp_path, name, kind):
    folder = tmp_path / "taken"
    folder.mkdir()
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/full")
    message = refusal("OUTPUT_DIR", folder, trainer="CoOp")
    assert message == f"error: --output-dir {path} is no file: move it away, or give another"
    assert [entry.name for entry in folder.iterdir()] == [name]


@pytest.mark.parametrize("folder", ["x" * 300, "file/x", "loop/x"])
def test_what_can_be_no_folder_is_a_line(refusal, tmp_path, folder):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert "can't be written: [Errno" in refusal("OUTPUT_DIR", tmp_path / folder)


def test_a_folder_that_is_deleted_while_training_is_a_line_or_made_again(
    refusal, tmp_path, monkeypatch
):
    loss, folder = CoOpMethod.loss, tmp_path / "gone"

    def deleted(*given):
        shutil.rmtree(folder, ignore_errors=True)
        return loss(*given)

    monkeypatch.setattr(CoOpMethod, "loss", deleted)
    message = refusal("OUTPUT_DIR", folder, trainer="CoOp")
    assert message.startswith(f"error: {folder}") and "give another place" in message


# ---- names ----


def test_control_characters_are_shown_escaped_in_lines_and_logs(own_run, photos, tmp_path, capsys):
    odd = tmp_path / ESCAPE
    shutil.copy(photos[0], odd)
    assert call(predict.main, "--run", own_run, odd) == 0
    (line,) = capsys.readouterr().out.splitlines()[-1:]
    assert line.startswith(f"{tmp_path}/{ESCAPED}\t") and printable(line, "\t") == line
    odd.write_bytes(b"no image")
    assert call(predict.main, "--run", own_run, odd, photos[0]) == 1
    assert f"image {tmp_path}/{ESCAPED} can't be read" in capsys.readouterr().err.splitlines()[-1]
    assert left_out([f"{tmp_path}/\x1b[0m\n.svg"]) == r"Left out: 1 .svg (\x1b[0m\n.svg)"
    assert exit_code(lambda: (_ for _ in ()).throw(UserError(f"no {ESCAPE}"))) == 2
    assert capsys.readouterr().err == f"error: no {ESCAPED}\n"


def test_a_message_may_have_lines_and_a_name_in_it_may_not():
    def line(*message):
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, message[0], message[1:], None)
        return Lines().format(record)

    assert line("%d of %s", 3, "a\nb\x1b") == r"3 of a\nb\x1b"
    assert line("%s", "a\nb\x1b") == "a\nb\\x1b" and line("a\tb\n") == "a\tb\n"
    assert line("ä → €  '%s'", "ß 👩\u200d🎨") == "ä → €  'ß 👩\u200d🎨'"


@pytest.mark.parametrize("path", ["x" * 6000, "x/" * 3000, "x " * 3000, "\0" * 6000])
def test_a_message_on_a_long_path_is_short_and_says_what_is_wrong(own_run, path, error_of):
    for words in (["--csv", path, "x.png"], [path], ["-"]):
        line = error_of(predict.main, "--run", own_run, *words)
        assert len(line) < 2100
    line = error_of(predict.main, "--run", path, __file__)
    assert len(line) < 2100 and "holds no finished run" in line
    image = str(
        UserError(f"image {path} can't be read ([Errno 36] too long: '{path}'): replace it")
    )
    assert len(image) < 2100 and image.endswith("replace it")


def test_no_cell_is_a_formula(own_run, photos, tmp_path, monkeypatch):
    for start in "=+-@":
        assert table_cell(f"{start}1") == f"'{start}1"
    assert [table_cell(value) for value in ("a=1", -1.5, None, "")] == ["a=1", -1.5, None, ""]
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos[0], "=HYPERLINK(1).png")
    words = "--csv a.csv =HYPERLINK(1).png --classes @SUM(1) circle".split()
    assert call(predict.main, "--run", own_run, *words) == 0
    (row,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text("utf-8-sig")))
    assert row["image"] == "'=HYPERLINK(1).png" and float(row["uncertainty"]) >= 0
    assert {row["class_1"], row["class_2"]} == {"'@SUM(1)", "circle"}


def test_a_name_with_ends_of_lines_is_one_row_of_a_table(own_run, photos, tmp_path):
    """In any reader of lines, and in one of CSV."""
    names = ["a\rb", "c\nd", "e\u2028f", "\tg", "\x1b[31mh"]
    for name in names:
        shutil.copy(photos[0], f"{tmp_path}/{name}.png")
    paths = [f"{tmp_path}/{name}.png" for name in names]
    assert call(predict.main, "--run", own_run, "--csv", tmp_path / "a.csv", *paths) == 0
    content = (tmp_path / "a.csv").read_bytes().decode("utf-8-sig")
    assert len(content.splitlines()) == 1 + len(names)
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["image"] for row in rows] == [printable(path) for path in paths]


def test_the_mark_of_a_table_counts_at_its_start_only(own_run, photos, tmp_path, error_of):
    (tmp_path / "a.csv").write_text("my notes\nimage,label,doubtful,uncertainty\n")
    line = error_of(predict.main, "--run", own_run, "--csv", tmp_path / "a.csv", *photos)
    assert "was not written by this command" in line
    assert (tmp_path / "a.csv").read_text().startswith("my notes")


def test_a_backslash_is_a_letter_where_a_file_has_it_and_windows_separator_else():
    known = {("a\\b/1.png", 0): "letter", ("c/d/2.png", 1): "separator", ("2.png", 2): "short"}
    assert match("a\\b/1.png", 0, known) == match("/data/x/a\\b/1.png", 0, known) == "letter"
    assert match("D:\\data\\c\\d\\2.png", 1, known) == "separator"
    assert match("D:\\data\\c\\d\\2.png", 2, known) == "short" and match("1.png", 0, known) is None


def test_names_that_differ_in_case_or_form_only_are_warned_of(tmp_path, caplog):
    names = ("Zebra", "zebra", "caf\u00e9", "cafe\u0301", "dog")
    image_folder(tmp_path, dict.fromkeys(names, 4))
    build("ImageFolder", tmp_path)
    assert [message for message in caplog.messages if "differ in case" in message] == [
        "Class names that differ in case or Unicode form only: 'Zebra' 'zebra'",
        r"Class names that differ in case or Unicode form only: 'cafe\u0301' 'caf\xe9'",
    ]


# ---- surroundings ----


def test_output_works_in_any_locale(own_run, tmp_path, photos):
    path = f"{tmp_path}/ö→.png"
    shutil.copy(photos[0], path)
    settings = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    done = python("predict.py", "--run", own_run, path, text=False, **settings)
    assert done.returncode == 0, done.stderr
    assert rb"\u2192.png" in done.stdout
    done = python("run.py", "--help", text=False, **settings)  # which has an ellipsis
    assert done.returncode == 0 and b"usage" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "> /dev/full"])
def test_output_that_takes_nothing_is_a_line(own_run, photos, closed):
    words = ["-", sys.executable, "predict.py", "--run", own_run, photos[0]]
    command = ["bash", "-c", f'"$@" {closed}', *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(lines) == 1 and "Traceback" not in done.stderr
    assert ("standard output is closed" if closed == ">&-" else "make room") in lines[0]
