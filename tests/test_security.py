"""Nothing in a file is executed or leaves its folder: hostile files, and a search of the code for
what could."""

import ast
import os
import pickle
import zipfile

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    import tomli as tomllib

import numpy
import pytest
import torch
from packaging.requirements import Requirement

import demo_app
import predict
from protocols.plan import ablation_rows
from results.report import __main__ as report
from tests.conftest import GOLDEN
from tests.results.conftest import make_answers, write_run
from tests.runs import REPOSITORY, prompts_of, refuses, write_answers
from train import main
from trainers.prompting.backbone import load_backbone

# ---- what is installed ----

HOLES = {  # package → the last version that has a hole in reading what is foreign, and the first without it
    "torch": ("2.9.1", "2.10.0"),  # CVE-2025-32434, CVE-2026-24747
    "waitress": ("3.0.0", "3.0.1"),  # CVE-2024-49768, CVE-2024-49769
    "pillow": ("12.1.1", "12.2.0"),  # CVE-2026-42311
}


@pytest.mark.parametrize("place", ["", "dassl-lite/"])
def test_no_version_with_a_known_hole_is_admitted(place):
    project = tomllib.loads((REPOSITORY / f"{place}pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    asked = [Requirement(requirement) for requirement in sum(lists, [])]
    found = [requirement for requirement in asked if requirement.name in HOLES]
    assert len(found) >= 2
    for requirement in found:
        last, mended = HOLES[requirement.name]
        assert last not in requirement.specifier and mended in requirement.specifier, requirement


# ---- the code ----

CODE = GOLDEN["dangers"]


def dangers(tree):
    """Yields what in a module runs, or unpacks, what it is given: its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = map(ast.unparse, node.bases)
            yield from ("Unpickler" for base in bases if base.endswith("Unpickler"))
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_method = owner and name in ("eval", "compile")  # model.eval(), re.compile()
        is_asked = "True" in (given.get("shell"), given.get("allow_pickle"))
        if name in CODE["never"] and not is_method or is_asked:
            yield name
        if name in ("load", "loads") and owner in CODE["loaders"]:
            yield called
        if called == "torch.load" and given.get("weights_only") != "True":
            yield called


def code_files():
    """The product's, whatever else somebody has in the checkout: environments, pictures, runs."""
    others = {"tests", "build", "data", "output"}
    folders = [
        folder
        for folder in REPOSITORY.glob("[a-z]*/")
        if folder.name not in others and not (folder / "pyvenv.cfg").exists()
    ]
    found = [
        path for folder in folders for path in folder.rglob("*.py") if "build" not in path.parts
    ]
    return sorted([*REPOSITORY.glob("*.py"), *found])


def test_no_call_in_the_code_runs_what_it_reads():
    found = {}
    for path in code_files():
        for danger in dangers(ast.parse(path.read_text())):
            found.setdefault(str(path.relative_to(REPOSITORY)), set()).add(danger)
    admitted = {file: {*reasons} for file, reasons in CODE["admitted"].items()}
    assert found == admitted, "an entry too many is as wrong as one too few"
    assert len(code_files()) > 100


@pytest.mark.parametrize("code", CODE["found"])
def test_the_search_finds_what_it_is_for(code):
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize("code", CODE["passed over"])
def test_and_nothing_else(code):
    assert not list(dangers(ast.parse(code)))


# ---- hostile files ----


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """What a hostile file would make; a control shows that it can."""
    control = tmp_path / "control"
    pickle.loads(pickle.dumps(Evil(control)))
    assert control.exists()
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists(), "something was run"


@pytest.fixture
def own_run(copied):
    return copied("CoOp")


def test_a_hostile_checkpoint_is_refused_by_every_command(
    own_run, arguments, data_root, tmp_path, mark, error_of
):
    sound = {"epoch": 3, "classnames": [], "config": {}, "backbone_hash": ""}
    for path in (own_run / "prompt_learner").glob("model*"):
        torch.save({**sound, "state_dict": {}, "trainer": Evil(mark)}, path)
    asked = "--run", own_run
    for command, words in (
        (main, arguments("CoOp", *prompts_of(own_run), folder=tmp_path / "new")),
        (main, arguments("CoOp", "--resume", own_run, folder=tmp_path / "new")),
        (predict.main, (*asked, f"{data_root}/dtd/images/woven")),
        (demo_app.main, asked),
    ):
        line = error_of(command, *words)
        assert "model.pth.tar-3" in line and "can't be read" in line


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/new:os.mkdir [{}]",
        "!!python/name:os.mkdir",
    ],
)
def test_hostile_yaml_is_refused(refusal, tmp_path, mark, monkeypatch, tag):
    (tmp_path / "evil.yaml").write_text(f"OPTIM:\n  NAME: {tag.format(mark)}\n")
    for flag in ("--config-file", "--dataset-config-file"):
        message = refusal(replace={flag: f"{tmp_path}/evil.yaml"})
        assert "could not determine a constructor" in message
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations/CDC.yaml").write_text(f"- name: {tag.format(mark)}\n")
    monkeypatch.setattr("trainers.common.recipes.CONFIGS", str(tmp_path))
    with refuses("could not determine a constructor"):
        ablation_rows("CDC")


def test_a_setting_is_never_evaluated(refusal, mark):
    assert "OPTIM.LR" in refusal("OPTIM.LR", f"__import__('os').mkdir('{mark}')")


def test_hostile_arrays_are_refused(tmp_path, own_run, data_root, mark, error_of):
    hostile, sound = numpy.array([Evil(mark)], dtype=object), make_answers(1)
    folder = write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays={**sound, "image": hostile})
    line = error_of(report.main, folder, "--output", f"{tmp_path}/report.html")
    assert "predictions-test.npz can't be read" in line
    write_answers(own_run, "val", dict.fromkeys(("top", "label"), hostile))
    words = "--run", own_run, "--max-error", "0.5", f"{data_root}/dtd/images/woven"
    assert "predictions-val.npz can't be read" in error_of(predict.main, *words)


def test_hostile_clip_weights_are_refused(tmp_path, mark):
    path, content = tmp_path / "clip.pt", Evil(mark)
    for write in (
        lambda: torch.save({"text_projection": content}, path),
        lambda: path.write_bytes(pickle.dumps(content)),
    ):
        write()
        with refuses("clip.pt can't be read as CLIP weights"):
            load_backbone(str(path))


class SavesItself(torch.nn.Module):
    """Its TorchScript writes a file when it is unpacked."""

    def __init__(self, path: str):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.path = path

    def forward(self, x):
        return x + self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        torch.save(state[0], state[1])
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]


def test_torchscript_is_not_run(tmp_path):
    torch.jit.script(SavesItself(f"{tmp_path}/made")).save(f"{tmp_path}/clip.pt")
    torch.jit.load(f"{tmp_path}/clip.pt")
    assert (tmp_path / "made").exists(), "torch itself does"
    (tmp_path / "made").unlink()
    with refuses("SavesItself unpacks itself by code of its own"):
        load_backbone(f"{tmp_path}/clip.pt")
    assert not (tmp_path / "made").exists()


def test_a_torchscript_archive_whose_pickle_is_hostile_is_refused(tmp_path, mark):
    torch.jit.script(torch.nn.Linear(2, 2)).save(f"{tmp_path}/sound.pt")
    with (
        zipfile.ZipFile(f"{tmp_path}/sound.pt") as sound,
        zipfile.ZipFile(f"{tmp_path}/clip.pt", "w") as hostile,
    ):
        for name in sound.namelist():
            hostile.writestr(
                name, pickle.dumps(Evil(mark)) if name.endswith("/data.pkl") else sound.read(name)
            )
    with refuses("it names .*mkdir, which weights don't need"):
        load_backbone(f"{tmp_path}/clip.pt")


# ---- out of the folder ----


def test_the_page_is_served_to_this_machine_only():
    """Other names that lead here, see
    ``app.test_mistakes.test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody``."""
    pytest.importorskip("waitress")
    server = demo_app.make_server(lambda *_: [], 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    finally:
        server.close()
