"""Whose file is it: what is written replaces only what carries its own mark, and a run's answers,
prompts and choice are its own."""

import ast
import shutil
from collections import Counter

import numpy
import pytest
from pandas import DataFrame

import predict
import train
from labelling.classifier import PromptedClassifier
from report import __main__ as report
from report.figures import Figure, write_figure
from report.page import make_report
from results import kept, render
from tests.conftest import GOLDEN, slow_but_for
from tests.results.conftest import make_answers, write_run
from tests.runs import REPOSITORY, change_record, code_files, contents_of, record_of, refuses
from trainers.common.files import check_folder
from trainers.engine.folder import MARKS

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


def unchecked_writers(path):
    """The names of a file's functions that write, and don't look whose file it is first."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
            called = {getattr(call.func, "id", "") for call in calls}
            if any(map(writes, calls)) and not called & CHECKS:
                yield node.name


def test_every_function_that_writes_looks_whose_file_it_is_or_is_known_not_to_need_to():
    """A new one is found, and red until it looks, or is listed with its reason."""
    found = {}
    for path in code_files():
        place = path.relative_to(REPOSITORY)
        # dassl-lite writes where Dassl does, benchmarks into temporary folders
        if place.parts[0] not in ("dassl-lite", "benchmarks", "experiments"):
            names = {*unchecked_writers(path)}
            if names:
                found[str(place)] = names
    listed = {file: {*reasons} for file, reasons in GOLDEN["writers"].items()}
    assert found == listed, "an entry too many is as wrong as one too few"


# ---- files that somebody else has written ----


def write_table(folder):
    content = render.write_cells(DataFrame({"accuracy": [1.5]}), "markdown", 1)
    render.write_out(content, f"{folder}/table.md")


def write_measures(folder):
    record = dict.fromkeys(("prompts_hash", "backbone_hash", "split_hash", "finished"), "x")
    kept.write_kept(folder, record, {"a": 1}, {"b": numpy.arange(2)})


def write_page(folder):
    if not (folder / "runs").exists():
        write_run(folder / "runs", "train_all", "CDC", 1, arrays=make_answers(1))
    make_report([folder / "runs"], folder / "report.html", {})


def draw_curve(folder):
    write_figure(Figure("curve", "title", "reading", "alt", lambda axes: None), folder, Counter())


WRITERS = {
    "table.md": write_table,
    "report.html": write_page,
    "curve.svg": draw_curve,
    kept.KEPT: write_measures,
    kept.IMAGES: write_measures,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_replaces_its_own_kind_and_nobodys_file(tmp_path, name):
    for _ in range(2):
        WRITERS[name](tmp_path)
    (tmp_path / name).write_text("mine")
    with refuses(f"{name} .*was not written by this"):
        WRITERS[name](tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["model.onnx", "prompts.safetensors", "README.md"])
def test_an_export_replaces_nobodys_file(loaded, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with refuses(f"export to {tmp_path}/{name} exists already, and was not written by this"):
        loaded("CoOp").export(tmp_path)
    assert contents_of(tmp_path) == {tmp_path / name: b"mine"}


SOMEBODYS = [name for name, mark in MARKS.items() if mark is not None]


@pytest.mark.parametrize("name", SOMEBODYS)
def test_a_training_replaces_nobodys_file(refusal, tmp_path, name):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / name).write_text('{"accuracy": 3, "format": 1, "trainer": "mine"}\n')
    before = contents_of(folder)
    line = refusal("OUTPUT_DIR", folder, trainer="CoOp")
    assert f"--output-dir {folder}/{name} exists already, and was not written by this" in line
    assert contents_of(folder) == before


def test_every_file_of_a_run_has_its_mark(copied):
    """So that the same command goes on in the folder, whatever is there when it is stopped."""
    for trainer in ("CoOp", "GDA"):
        folder = copied(trainer)
        for name in SOMEBODYS:
            alone = folder.parent / f"{trainer}-{name}"
            alone.mkdir()
            if (folder / name).exists():
                shutil.copy(folder / name, alone)
            check_folder("--output-dir", str(alone), MARKS)


def test_a_training_that_goes_on_from_elsewhere_replaces_no_other_run(run, trained, copied):
    folder = copied("CoCoOp")
    before = contents_of(folder / "prompt_learner")
    with refuses("prompt_learner belongs to another run .TRAINER"):
        run("CoOp", "RESUME", str(trained("CoOp")))
    assert contents_of(folder / "prompt_learner") == before


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


@slow_but_for(
    ("GDA", "CDC"), ["GDA", "LinearProbe", "TipAdapter", "CDC", "CDCGDA", "CoOp"], "trainer"
)
def test_a_record_of_other_classes_is_not_taken(copied, trainer):
    folder = copied(trainer)
    names = record_of(folder)["classnames"]
    for others in ([f"other {name}" for name in names], names[::-1]):
        change_record(folder, classnames=others)
        with refuses("was trained on other classes, or in another order"):
            PromptedClassifier.load(folder)
