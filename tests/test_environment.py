"""The researcher's environment is left alone; without one the scripts make .venv and install what
they need, once. What every command does first."""

import ast
import gc
import os
import re
import shutil
import subprocess
import sys
import venv
import weakref

import pytest

from tests.commands import asked_of_python
from tests.runs import REPOSITORY, code_files, python
from trainers.common import environment
from trainers.common.imports import freeze, importing

OF_PROTOCOL = "base2new_train.sh CDC x 1"
OF_TESTS = "test.sh"


def bash(words, folder=REPOSITORY, **env):
    """A script of the folder, where nothing but ``env`` is set."""
    command = ["bash", *f"scripts/{words}".split()]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path):
    """What the scripts look at of the repository."""
    folder = tmp_path / "repository"
    for name in ("scripts", "dassl-lite"):
        without = shutil.ignore_patterns("__pycache__")  # into which another process may write
        shutil.copytree(REPOSITORY / name, folder / name, ignore=without)
    shutil.copy(f"{REPOSITORY}/pyproject.toml", folder)
    return folder


# ---- where no environment is active ----


@pytest.fixture
def stand_in(repository, tmp_path):
    """Runs a script with a stand-in for Python that keeps its calls and fails at one, a pattern of
    bash's: ``stand_in(words, failing)`` → its process, and the calls."""
    log, python = tmp_path / "log", tmp_path / "bin/python3"
    python.parent.mkdir()
    path = f"{repository}/.venv/bin:{python.parent}:{os.environ['PATH']}"

    def start(words, failing="nothing", **settings):
        python.write_text(f"""#!/usr/bin/env bash
echo "$*" >> {log}
case "$*" in
{failing}) exit 1;;
"-m venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; touch .venv/bin/activate;;
*"import dassl"*) exit 1;;
*purelib*) echo .venv/packages;;
esac
""")
        python.chmod(0o755)
        log.write_text("")
        done = bash(words, repository, PATH=path, **settings)
        return done, log.read_text()

    return start


def test_where_python_can_not_bring_pip_into_an_environment_the_systems_pip_does(stand_in):
    """Debian without its package python3-venv."""
    _, calls = stand_in(OF_PROTOCOL, '"-m venv .venv"')
    _, after = calls.split("-m venv --clear --without-pip .venv\n")
    assert "-m pip install --quiet --target .venv/packages pip\n" in after
    assert ".[demo]" in after


def test_a_python_that_is_too_old_is_told(stand_in):
    done, calls = stand_in(OF_PROTOCOL, "*version_info*")
    assert done.returncode == 2
    assert "error: python3 is no Python 3.10 or newer" in done.stderr
    assert "venv" not in calls


def test_each_script_installs_what_it_needs_and_no_more(stand_in, repository):
    def installed(words, **settings):
        _, calls = stand_in(words, **settings)
        return re.findall(r"(?m)pip install .* (\S+)$", calls)

    assert installed(OF_PROTOCOL) == [".[demo]", "./dassl-lite"]
    assert installed(OF_PROTOCOL) == []
    assert installed(OF_TESTS) == [".[demo,docs,export,test]", "./dassl-lite"]
    assert installed(OF_TESTS) == [], "the stamp holds the extras of both"
    assert installed(OF_PROTOCOL) == []
    own = f"{repository}/.venv"
    assert installed(OF_PROTOCOL, VIRTUAL_ENV=own) == [], "ours may be active"
    with open(f"{repository}/pyproject.toml", "a") as file:
        file.write("# of another version\n")
    assert installed(OF_PROTOCOL, VIRTUAL_ENV=own) == [".[demo]", "./dassl-lite"]


# ---- where one is active ----


@pytest.fixture
def bare(tmp_path):
    """An environment in which nothing is installed."""
    folder = tmp_path / "bare"
    venv.create(folder, with_pip=False)
    return folder


@pytest.fixture
def start_in(bare, repository):
    """Runs a script where that environment is active."""

    def start(words, variable="VIRTUAL_ENV"):
        path = f"{bare}/bin:{os.environ['PATH']}"
        return bash(words, repository, **{"PATH": path, variable: str(bare)})

    return start


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_looked_at_and_left_alone(repository, bare, start_in, variable):
    before = [sorted(folder.rglob("*")) for folder in (bare, repository)]
    done = start_in(OF_PROTOCOL, variable)
    assert done.returncode == 2
    first, line, last = done.stderr.splitlines()
    assert first.startswith(f"The active environment, {bare}, lacks")
    assert line.startswith(f'    {bare}/bin/python -m pip install "torch>=2.10" ')
    assert '"tabulate>=0.9"' in line
    assert "sphinx" not in line
    assert line.endswith(f" {repository}/dassl-lite")
    assert last.startswith("or leave it (deactivate, conda deactivate)")
    assert [sorted(folder.rglob("*")) for folder in (bare, repository)] == before


def test_the_real_dassl_is_never_replaced_and_old_packages_are_named(bare, start_in):
    (packages,) = bare.glob("lib/python*/site-packages")
    for name in ("dassl", "yacs", "torch"):
        (packages / f"{name}.py").touch()
    (packages / "torch-2.1.0.dist-info").mkdir()
    (packages / "torch-2.1.0.dist-info/METADATA").write_text("Name: torch\nVersion: 2.1.0\n")
    line = start_in("docs.sh").stderr
    assert "dassl-lite" not in line
    assert '"yacs' not in line
    assert '"torch>=2.10"' in line


@pytest.mark.parametrize("words", ["train.py", "predict.py", "-m results.table"])
def test_a_command_without_its_environment_says_so_in_a_line(bare, words):
    command = [bare / "bin/python", *words.split(), "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {bare}/bin/python has no package ")
    assert "source .venv/bin/activate" in line


# ---- a process ----


def test_importing_changes_nothing_in_the_program_that_does_it():
    program = """
import importlib, logging, signal, sys
def state():
    signals = [signal.getsignal(number) for number in signal.valid_signals()]
    streams = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr)]
    return sys.excepthook, streams, sys.path[:], logging.root.handlers[:], logging.root.level, signals
before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert state() == before, name
"""
    modules = [
        str(path.relative_to(REPOSITORY)).removesuffix(".py").replace("/", ".")
        for folder in ("trainers", "datasets", "protocols", "results", "report", "labelling")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    ]
    done = python("-c", program, "train", "run", "predict", "serve", *modules)
    assert done.returncode == 0, done.stderr


class Garbage:
    """May refer to itself."""


def test_the_collector_passes_over_what_a_command_imports_and_not_over_what_comes_later():
    gc.unfreeze()  # of commands that other tests have called
    freeze.cache_clear()
    try:
        with pytest.raises(ModuleNotFoundError), importing():
            assert not gc.isenabled()
            raise ModuleNotFoundError
        assert gc.isenabled()
        assert gc.get_freeze_count()
        later = Garbage()
        later.itself = later
        known = weakref.ref(later)
        del later
        gc.collect()
        assert known() is None
    finally:
        gc.freeze()  # as before


@pytest.mark.parametrize("has_triton", [False, True])
def test_nothing_is_left_for_the_collector_at_a_commands_end_unless_it_is_tritons(has_triton):
    program = f"""
import atexit, gc, sys
from trainers.common.imports import freeze, importing
atexit.register(lambda: print(len(gc.get_objects())))  # the last
with importing():
    import json
    if {has_triton}:
        sys.modules["triton"] = json
later = [[] for _ in range(1000)]
"""
    done = python("-c", program)
    assert (int(done.stdout) > 1000) == has_triton, done.stderr


GUARD = 'if __name__ == "__main__":\n'
# all but those that import nothing but Python's own, such as scripts/missing.py
PROGRAMS = [
    path
    for path in code_files()
    if GUARD in (text := path.read_text("utf-8"))
    and not set(re.findall(r"(?m)^(?:import|from) (\w+)", text)) <= sys.stdlib_module_names
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_command_prepares_its_process_before_it_imports_anything(path):
    head, start, _ = path.read_text("utf-8").partition(GUARD + "    start_command()\n")
    assert start
    imported = set()
    for statement in ast.parse(head).body:
        if isinstance(statement, ast.Import):
            imported |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            imported.add(statement.module)
    assert imported <= {"sys", "pathlib", "trainers.common.environment"}


def test_every_installed_command_prepares_its_process_before_it_imports_anything():
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    scripts = re.findall(r'(?m)^cdc-\w+ = "cdc_([\w.]+):(\w+)"$', text)
    assert len(scripts) == 3
    for module, name in scripts:
        body = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text("utf-8")).body
        _, imported, *functions = body  # after the docstring
        assert imported.module == "trainers.common.environment"
        (function,) = (each for each in functions if each.name == name)
        assert ast.unparse(function.body[1]) == "start_command()"
        assert all(isinstance(each, ast.FunctionDef) for each in functions)


def test_what_prepares_a_process_imports_next_to_nothing():
    """Until it has, Ctrl-C gives a traceback."""
    program = """
import sys, typing, signal, fnmatch, importlib
before = {*sys.modules}
import trainers.common.environment
print(*{*sys.modules} - before)
"""
    ours = {"trainers", "trainers.common", "trainers.common.environment"}
    assert {*python("-c", program).stdout.split()} - {"math"} == ours


SET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    "own, found",
    [
        ({}, f"- {environment.SHORT_SPIN['GOMP_SPINCOUNT']} 0"),
        ({"GOMP_SPINCOUNT": "7"}, "- 7 0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE - -"),
    ],
)
def test_threads_spin_briefly_unless_the_user_has_said_how_they_wait(
    tmp_path, monkeypatch, own, found
):
    """As OpenMP finds it when torch loads it: a stand-in for torch keeps it, and ends the command."""
    (tmp_path / "torch.py").write_text(
        f"""
import os
print(*(os.environ.get(name, "-") for name in {SET}), flush=True)
os._exit(0)
"""
    )
    for name in SET:
        monkeypatch.delenv(name, raising=False)
    done = python("train.py", "--trainer", "CoOp", PYTHONPATH=str(tmp_path), **own)
    assert done.stdout == f"{found}\n", done.stderr


@pytest.mark.parametrize(
    "share, threads",
    [
        ("200000 100000", "2"),
        ("20000 100000", "1"),
        ("max 100000", None),
        ("6400000 100000", None),  # as many as there are
    ],
)
def test_a_container_with_a_share_of_a_machine_has_as_many_threads(
    tmp_path, monkeypatch, share, threads
):
    (tmp_path / "cpu.max").write_text(f"{share}\n")
    monkeypatch.setattr(environment, "QUOTAS", [[f"{tmp_path}/cpu.max"]])
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "environ", {})
    environment.prepare_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ.get("OPENBLAS_NUM_THREADS", "1") == "1"
    os.environ["OMP_NUM_THREADS"] = "7"
    environment.prepare_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7", "the user's own"


@pytest.mark.parametrize(
    "share, own, usable",
    [
        ("max 100000", None, 16),
        ("400000 100000", None, 4),
        ("50000 100000", None, 1),
        ("400000 100000", "2", 2),  # of run.py --jobs
        ("100000 100000", "2", 1),
    ],
)
def test_a_process_may_use_the_cores_that_system_container_and_run_py_leave_it(
    tmp_path, monkeypatch, share, own, usable
):
    (tmp_path / "cpu.max").write_text(f"{share}\n")
    monkeypatch.setattr(environment, "QUOTAS", [[f"{tmp_path}/cpu.max"]])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)}, raising=False)
    monkeypatch.setattr(os, "environ", {environment.OWN_CORES: own} if own else {})
    assert environment.usable_cores() == usable


# ---- scripts in CoOp's manner ----


@pytest.mark.parametrize(
    "stage", "base2new_train base2new_test fewshot_train xd_train xd_test dg_test".split()
)
def test_every_script_asks_for_the_protocol_it_is_named_after(stage, tmp_path):
    protocol, part = stage.split("_")
    for trainer, words in (("MaPLe", [f"{stage}.sh", "MaPLe"]), ("CDC", [f"cdc/{stage}.sh"])):
        script, *words = [*words, *"openmoji 3 OPTIM.MAX_EPOCH 2".split()]
        settings = {"SHOTS": "1 4", "BACKBONE": "RN50"}
        (asked,) = asked_of_python(REPOSITORY / "scripts" / script, words, settings, tmp_path)
        assert asked == (
            f"run.py --protocol {protocol} --stage {part} --trainer {trainer} --dataset openmoji "
            "--seeds 3 --root data --backbone RN50 --shots 1 4 -- OPTIM.MAX_EPOCH 2 "
        )


def test_a_script_says_which_of_its_words_is_missing():
    shown = bash("xd_test.sh CoOp dtd", PATH=os.environ["PATH"])
    assert shown.returncode == 2
    assert "error: SEED is missing: bash " in shown.stderr
    assert shown.stdout == ""
