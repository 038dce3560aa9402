"""Whose file is it: what is written replaces only what carries its own mark, and a run's answers,
prompts and choice are its own."""

import ast
import shutil

import numpy
import pytest

import predict
import train
from results import kept
from results.report import __main__ as report
from tests.conftest import GOLDEN
from tests.results.conftest import make_answers, write_run
from tests.runs import (
    REPOSITORY,
    call,
    change_record,
    contents_of,
    make_textures,
    record_of,
    refuses,
)
from tests.test_security import code_files
from trainers.classifier.prompted import PromptedClassifier
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


def writers(tree):
    """The names of functions that write, and of these those that look whose file it is first."""
    found, checked = set(), set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
        if any(map(writes, calls)):
            found.add(node.name)
        if any(getattr(call.func, "id", "") in CHECKS for call in calls):
            checked.add(node.name)
    return found, checked & found


def test_every_function_that_writes_looks_whose_file_it_is_or_is_known_not_to_need_to():
    """A new one is found, and red until it looks, or is listed with its reason."""
    without = {}
    for path in code_files():
        # dassl-lite writes where Dassl does, benchmarks into temporary folders
        if not {"dassl-lite", "benchmarks", "experiments"} & {*path.relative_to(REPOSITORY).parts}:
            found, checked = writers(ast.parse(path.read_text("utf-8")))
            for name in found - checked:
                without.setdefault(str(path.relative_to(REPOSITORY)), set()).add(name)
    listed = {file: {*reasons} for file, reasons in GOLDEN["writers"].items()}
    assert without == listed, "an entry too many is as wrong as one too few"


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open(path, mode)",
        "os.replace(a, b)",
        "shutil.rmtree(a)",
        "numpy.savez(path, a=b)",
        "write_text(path, text)",
        "Path(path).write_bytes(b)",
        "figure.savefig(path)",
    ],
)
def test_the_search_finds_what_writes(code):
    made = f"def f():\n    {code}\n"
    assert writers(ast.parse(made)) == ({"f"}, set())
    assert writers(ast.parse(f"{made}    check_output(path)\n")) == ({"f"}, {"f"})
    for harmless in ("open(path)", "open(path, 'rb')", "text.replace(a, b)", "frame.rename(a)"):
        assert writers(ast.parse(f"def f():\n    {harmless}\n")) == (set(), set())


# ---- files that somebody else has written ----

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
    numpy.savez(folder / "predictions-test.npz", mine=numpy.arange(3))


def test_fit_replaces_nobodys_file(tmp_path, small_clip_file):
    make_textures(tmp_path)
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "results.json").write_text('{"mine": 1}')
    before = contents_of(folder)
    with refuses("theirs/results.json exists already, and was not written by this"):
        PromptedClassifier.fit(
            f"{tmp_path}/dtd/images",
            trainer="CoOp",
            backbone=small_clip_file,
            folder=folder,
            settings={"INPUT.SIZE": (32, 32)},
        )
    assert contents_of(folder) == before


def test_every_file_of_a_run_has_its_mark(copied):
    """So that the same command goes on in the folder, whatever is there when it is stopped."""
    from trainers.common.files import check_folder

    for trainer in ("CoOp", "GDA"):
        folder = copied(trainer)
        for name in SOMEBODYS:
            alone = folder.parent / f"{trainer}-{name}"
            alone.mkdir()
            if (folder / name).exists():
                shutil.copy(folder / name, alone)
            check_folder("--output-dir", str(alone), MARKS)


@pytest.mark.parametrize("name", ["model.onnx", "prompts.safetensors", "README.md"])
def test_an_export_replaces_nobodys_file(loaded, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with refuses(f"export to {tmp_path}/{name} exists already, and was not written by this"):
        loaded("CoOp").export(tmp_path)
    assert contents_of(tmp_path) == {tmp_path / name: b"mine"}


@pytest.mark.parametrize("name", [kept.FIGURES, kept.IMAGES])
def test_measures_replace_nobodys_file(tmp_path, name):
    record = dict.fromkeys(("prompts_hash", "backbone_hash", "split_hash", "finished"), "x")
    for _ in range(2):
        kept.write_figures(tmp_path, record, {"a": 1}, {"b": numpy.arange(2)})
    (tmp_path / name).write_text("mine")
    with refuses(f"{name} exists already, and was not written by this"):
        kept.write_figures(tmp_path, record, {"a": 1}, {"b": numpy.arange(2)})
    assert (tmp_path / name).read_text() == "mine"


def test_a_report_that_a_program_makes_replaces_nobodys_page(tmp_path):
    from results.report.page import make_report

    folder = write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(1))
    (tmp_path / "report.html").write_text("mine")
    with refuses("report.html exists already, and was not written by this"):
        make_report([folder], tmp_path / "report.html", lambda *_: ())
    assert (tmp_path / "report.html").read_text() == "mine"


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
    assert record_of(folder)["answers"].keys() == {"val", "test"}
    shutil.copy(trained("GDA") / name, folder / name)
    if split == "val":
        words = "--run", folder, "--max-error", "0.9", f"{data_root}/dtd/images/woven"
        line = error_of(predict.main, *words)
    else:
        line = error_of(report.main, folder, "--output", tmp_path / "report.html")
    assert f"{name} can't be read" in line and "not as this run has left it" in line
    assert "again" in line
    assert train.main(arguments("CoOp", folder=folder)) == 0
    assert numpy.load(folder / name).keys() == numpy.load(trained("CoOp") / name).keys()
    assert (folder / name).read_bytes() == own, "they are made anew"


def test_answers_that_a_record_does_not_know_are_not_taken(copied, error_of, data_root):
    folder = copied("CoOp")
    change_record(folder, answers=None)
    words = "--run", folder, "--max-error", "0.9", f"{data_root}/dtd/images/woven"
    assert "not as this run has left it" in error_of(predict.main, *words)
    assert call(predict.main, *words[:2], words[-1]) == 0, "it labels without a promise"


@pytest.mark.parametrize("trainer", ["GDA", "LinearProbe", "TipAdapter", "CDC", "CDCGDA", "CoOp"])
def test_a_record_of_other_classes_is_not_taken(copied, trainer):
    folder = copied(trainer)
    names = record_of(folder)["classnames"]
    for others in ([f"other {name}" for name in names], names[::-1]):
        change_record(folder, classnames=others)
        with refuses("was trained on other classes, or in another order"):
            PromptedClassifier.load(folder)
