"""Whose file is it: nobody's file is overwritten, and a run's answers and prompts are its own."""

import ast
import shutil
import sqlite3
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import numpy
import pytest
import torch
from matplotlib.figure import Figure as Canvas
from pandas import DataFrame

import predict
import train
from labelling import export
from labelling.answers.part_file import part_file
from labelling.classifier import PromptedClassifier
from labelling.commands import predict as labelling
from report import __main__ as report
from report.figures import Figure, write_figure
from report.gallery import write_lists
from report.page import make_report
from report.tasks import shown_of
from results import compare, kept, render
from results.published import PUBLISHED
from results.runs import collect, group
from tests.conftest import GOLDEN, slow_but_for
from tests.results.conftest import make_answers, write_run
from tests.runs import REPOSITORY, change_record, code_files, contents_of, record_of, refuses
from trainers.engine.folder import FILES_OF_RUN as NAMES_OF_RUN
from trainers.engine.folder import folder_of_run

NAMES = {"write_text", "write_bytes", "save", "save_file", "savefig", "to_csv", "dump", "tofile"}
NAMES |= {"touch", "unlink"}
for reasons in GOLDEN["writers"].values():
    NAMES |= {name for name, reason in reasons.items() if reason == "for others"}
OF_MODULES = {
    "os": {"remove", "rename", "replace", "rmdir", "removedirs", "unlink"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
    "numpy": {"save", "savez", "savez_compressed"},
}
CHECKS = {"check_output", "check_folder"}


def writes(call):
    """Whether a call can replace, delete or extend a file."""
    function = call.func
    if isinstance(function, ast.Attribute):
        module = getattr(function.value, "id", "")
        return function.attr in OF_MODULES.get(module, NAMES)
    name = getattr(function, "id", "")
    if name == "open":
        mode = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
        return any(not isinstance(m, ast.Constant) or set(m.value) & {*"wax+"} for m in mode)
    return name in NAMES


def functions_that_write():
    """The file and the name of each, and whether it looks first whose file it is."""
    for path in code_files():
        place = str(path.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
                looks = any(getattr(call.func, "id", "") in CHECKS for call in calls)
                if looks or any(map(writes, calls)):
                    yield place, node.name, looks


def test_every_function_that_writes_looks_whose_file_it_is_or_is_known_not_to_need_to():
    """A new one is found, and red until it is tested here, or is listed with its reason."""
    found = set()
    looking = set()
    for place, name, looks in functions_that_write():
        if looks and not place.startswith("experiments/"):
            looking.add(place)
        elif not looks and not place.startswith("dassl-lite/"):  # which writes where Dassl does
            found.add((place, name))
    listed = {(file, name) for file, reasons in GOLDEN["writers"].items() for name in reasons}
    assert found == listed, "an entry too many is as wrong as one too few"
    assert looking == {*FOLDERS, *(module for _, module in WRITERS.values())}


# ---- nobody's file is overwritten ----


def write_table(style):
    def write(folder):
        cells = DataFrame({"trainer": ["CDC"], "accuracy": [1.5]})
        render.write_out(render.write_cells(cells, style, 1), f"{folder}/table.{style}")

    return write


def runs_of(folder):
    if not (folder / "runs").exists():
        write_run(folder / "runs", "train_all", "CDC", 1, arrays=make_answers(1))
    return folder / "runs"


def write_page(folder):
    make_report([runs_of(folder)], folder / "report.html", {})


def write_image_lists(folder):
    galleries = [shown_of(entry).gallery(entry, {}) for entry in group(collect(runs_of(folder)))]
    write_lists(galleries, f"{folder}/report")


def draw_curve(folder):
    write_figure(Figure("curve", "title", "reading", "alt", lambda axes: None), folder, Counter())


def draw_ranks(folder):
    asked = {"trainers": ["MaPLe", "CoOp", "PromptSRC"], "sources": [str(PUBLISHED)]}
    figure = f"{folder}/ranks.svg"
    compare.compare(SimpleNamespace(**asked, metric="accuracy", figure=figure))


def label(option, name):
    def write(folder):
        words = ["--run", folder / "run", folder / "photo.png", option, folder / name]
        labelling.run(labelling.parse_arguments([*map(str, words)]))

    return write


def stop_labelling(folder):
    """Leaves what the same command goes on from."""
    with (
        suppress(KeyboardInterrupt),
        part_file(f"{folder}/labels.csv", {}, ["photo.png"]) as part,
    ):
        part.add({0: {"uncertainty": 0.5, "doubtful": None}}, {})
        raise KeyboardInterrupt


WRITERS = {  # file → what writes it into a folder, and the module that looks whose it is
    **{f"table.{style}": (write_table(style), "results/render.py") for style in render.STYLES},
    "ranks.svg": (draw_ranks, "results/compare.py"),
    "curve.svg": (draw_curve, "report/figures.py"),
    "report.html": (write_page, "report/page.py"),
    "report_wrong_labels.csv": (write_image_lists, "report/gallery.py"),
    "report_least_certain.csv": (write_image_lists, "report/gallery.py"),
    "labels.csv": (label("--csv", "labels.csv"), "labelling/answers/writers.py"),
    "labels.json": (label("--label-studio", "labels.json"), "labelling/answers/writers.py"),
    "labels.parquet": (label("--parquet", "labels.parquet"), "labelling/answers/writers.py"),
    "labels.csv.part": (stop_labelling, "labelling/answers/part_file.py"),
}
ALIKE = {  # of one kind
    "ranks.svg": "curve.svg",
    "report_wrong_labels.csv": "report_least_certain.csv",
    "report_least_certain.csv": "report_wrong_labels.csv",
}
FOLDERS = ["trainers/engine/folder.py", "results/kept.py", "labelling/export.py"]  # see below
SOMEBODYS = {  # files that look like ours
    "text": b"mine\n",
    "table": b"image,label\nbee.png,bee\n",
    "accuracies": b"trainer,seeds\nmine,1\n",
    "page": b"<!DOCTYPE html>\n<html><title>Report on bees</title></html>\n",
    "table of a page": b"<table>\n<thead>\n<tr><th>bee</th></tr>\n</thead>\n</table>\n",
    "LaTeX": b"\\begin{tabular}{lr}\n\\toprule\n bee & 1 \\\\\n\\end{tabular}\n",
    "tasks": b'[\n{"image": "bee.png"}\n]\n',
    "Parquet": b"PAR1mine",
}


@pytest.fixture
def folder(copied, data_root, tmp_path):
    """With a run and a photo to be labelled."""
    copied("CDC").rename(tmp_path / "run")
    shutil.copy(f"{data_root}/dtd/images/woven/13.png", tmp_path / "photo.png")
    return tmp_path


@pytest.fixture(scope="module")
def somebodys(tmp_path_factory):
    """``SOMEBODYS``, a picture of Matplotlib's, another program's database, and what our writers write
    that need neither a model nor seconds: name → content."""
    folder = tmp_path_factory.mktemp("products")
    contents = dict(SOMEBODYS)
    Canvas().savefig(folder / "matplotlib.svg")
    database = sqlite3.connect(folder / "other.sqlite")
    database.execute("CREATE TABLE bees (name TEXT)")
    database.close()
    for style in render.STYLES:
        write_table(style)(folder)
    for write in (draw_curve, write_page, write_image_lists, stop_labelling):
        write(folder)
    for path in folder.iterdir():
        if path.is_file():
            contents[path.name] = path.read_bytes()
    return contents


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_replaced_by_the_command_that_has_written_it_and_by_nobody_else(
    folder, somebodys, name
):
    if name == "labels.parquet":
        pytest.importorskip("pyarrow")
    write, _ = WRITERS[name]
    for _ in range(2):
        write(folder)
    path = folder / name
    own = path.read_bytes()
    others = {**somebodys, name: b"mine\n" + own}
    others.pop(ALIKE.get(name), None)
    for content in others.values():
        path.write_bytes(content)
        with refuses(f"{name} exists already, and was not written by this"):
            write(folder)
        assert path.read_bytes() == content


def write_measures(folder):
    record = dict.fromkeys(("prompts_hash", "backbone_hash", "split_hash", "finished"), "x")
    kept.write_kept(folder, record, {"a": 1}, {"b": numpy.arange(2)})


@pytest.mark.parametrize(
    "what, name",
    [
        *(("--output-dir", name) for name in NAMES_OF_RUN),
        *(
            ("export to", name)
            for name in ("model.onnx", "prompts.safetensors", "clip.safetensors", "README.md")
        ),
        *(("the run's folder", name) for name in (kept.KEPT_FILE, kept.UNCERTAINTY_FILE)),
    ],
)
def test_what_writes_many_files_replaces_nobodys(run, loaded, tmp_path, what, name):
    (tmp_path / name).write_text('{"accuracy": 3, "format": 1, "trainer": "mine"}\n')
    before = contents_of(tmp_path)
    writers = {
        "--output-dir": lambda folder: run("CoOp", "OUTPUT_DIR", str(folder)),
        "export to": loaded("CoOp").export,
        "the run's folder": write_measures,
    }
    with refuses(f"^{what}.*{tmp_path}/{name} exists already, and was not written by this"):
        writers[what](tmp_path)
    assert contents_of(tmp_path) == before


def test_in_a_folder_of_its_own_a_run_makes_damaged_files_again(tmp_path):
    """Also where it was killed before it could mark the folder."""
    (tmp_path / ".lock").touch()
    for _ in range(2):
        with folder_of_run("--output-dir", str(tmp_path)):
            for name in NAMES_OF_RUN:
                (tmp_path / name).write_text("damaged")
    write_measures(tmp_path)
    for name in (kept.KEPT_FILE, kept.UNCERTAINTY_FILE):
        (tmp_path / name).write_text("damaged")
    write_measures(tmp_path)
    assert b"damaged" not in (tmp_path / kept.KEPT_FILE).read_bytes()


def test_an_export_replaces_the_files_of_an_export(loaded, tmp_path, monkeypatch):
    """What it leaves: test_export.py."""
    (tmp_path / export.EXPORT_OWNER).touch()
    for name in ("README.md", "model.onnx"):
        (tmp_path / name).write_text("damaged")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # it has begun
        loaded("CoOp").export(tmp_path)


# ---- answers, records and choices of another run ----


@pytest.mark.parametrize("split", ["val", "test"])
def test_another_runs_answers_are_not_taken_and_made_anew_by_the_same_command(
    copied, trained, arguments, error_of, data_root, tmp_path, split
):
    folder = copied("CoOp")
    name = f"predictions-{split}.npz"
    own = (folder / name).read_bytes()
    shutil.copy(trained("GDA") / name, folder / name)
    if split == "val":
        words = "--run", folder, "--max-error", "0.9", f"{data_root}/dtd/images/woven"
        line = error_of(predict.main, *words)
    else:
        line = error_of(report.main, folder, "--output", tmp_path / "report.html")
    assert f"{name} can't be read" in line
    assert "not as this run has left it" in line
    assert "again" in line
    assert train.main(arguments("CoOp", folder=folder)) == 0
    assert (folder / name).read_bytes() == own, "they are made anew"


@slow_but_for(("GDA", "CDC"), ["GDA", "LinearProbe", "TipAdapter", "CDC", "CoOp"], "trainer")
def test_a_record_of_other_classes_is_not_taken(copied, trainer):
    folder = copied(trainer)
    names = record_of(folder)["classnames"]
    for others in ([f"other {name}" for name in names], names[::-1]):
        change_record(folder, classnames=others)
        with refuses("was trained on other classes, or in another order"):
            PromptedClassifier.load(folder)
