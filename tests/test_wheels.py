"""The distributions as somebody else gets them: built, inspected, and installed into an environment without this repository."""

import ast
import importlib.metadata
import json
import shutil
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tests.tutorials import checkout, follow, run

DISTRIBUTIONS = {"cdc_prompt_learning": REPOSITORY, "dassl_lite": REPOSITORY / "dassl-lite"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distributions and the wheels that are built from them, in a copy: building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("built")
    copy = checkout(folder / "repository")
    for egg in copy.rglob("*.egg-info"):
        shutil.rmtree(egg)
    for source in (copy, copy / "dassl-lite"):
        run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)],
            source,
            sys.executable,
        )
    return folder


def wheel(built, name):
    (path,) = built.glob(f"{name}-*.whl")
    return path


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """The interpreter of a new environment with the two wheels; their dependencies are those of this one, without what is installed editable here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    own = Path(
        run(
            [str(interpreter), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            folder,
            interpreter,
        ).strip()
    )
    for name in DISTRIBUTIONS:
        run(
            [
                sys.executable,
                "-m",
                "pip",
                "--quiet",
                "--disable-pip-version-check",
                "install",
                "--no-deps",
                "--no-index",
                "--target",
                str(own),
                str(wheel(built, name)),
            ],
            folder,
            sys.executable,
        )
    # a folder that a .pth file names is looked into, but .pth files that lie there, such as those of editable installations, are not read
    (own / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("-packages"))
    )
    return interpreter


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_has_what_it_needs_and_nothing_else(built, name):
    with zipfile.ZipFile(wheel(built, name)) as archive:
        names = [file for file in archive.namelist() if ".dist-info/" not in file]
        (metadata,) = (
            message_from_bytes(archive.read(file))
            for file in archive.namelist()
            if file.endswith(".dist-info/METADATA")
        )
        licences = [file for file in archive.namelist() if file.endswith("/LICENSE")]
    package, folder = {
        "cdc_prompt_learning": ("cdc_trainers", "trainers"),
        "dassl_lite": ("dassl", "dassl-lite/dassl"),
    }[name]
    sources = {
        f"{package}/{path.relative_to(REPOSITORY / folder)}"
        for ending in ("*.py", "*.pt", "py.typed")
        for path in (REPOSITORY / folder).rglob(ending)
    }
    assert set(names) == sources
    assert len(licences) == 1 and metadata["License"] == "MIT"
    assert metadata[
        "Description-Content-Type"
    ] == "text/markdown" and metadata.get_payload().startswith("# ")
    assert metadata["Requires-Python"] == ">=3.10" and metadata["Summary"]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_source_distribution_has_what_the_wheel_is_built_from_and_no_tests_or_data(built, name):
    (path,) = built.glob(f"{name}-*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {Path(*Path(file).parts[1:]).as_posix() for file in archive.getnames()}
    tops = {file.split("/")[0] for file in inside}
    assert {"setup.py", "README.md", "LICENSE"} <= inside and not {
        "tests",
        "data",
        "output",
        "docs",
    } & tops
    assert "trainers/prompting/weights" in inside or name == "dassl_lite"


def test_cdc_plugged_in_from_the_wheels_works_where_the_repository_is_not_in_sight(
    python, tmp_path, monkeypatch
):
    monkeypatch.setenv("CDC", str(REPOSITORY))  # the recipe is copied from there
    follow("plug_in", tmp_path, python)
    assert (
        json.loads((tmp_path / "output" / "cdc" / "results.json").read_text())["config"]["MODEL"][
            "BACKBONE"
        ]["NAME"]
        == "tiny"
    )


def test_the_environment_has_the_wheels_packages_and_not_the_repositorys(python, tmp_path):
    where = "from importlib.util import find_spec; print(*(find_spec(name).origin for name in ('cdc_trainers', 'dassl')), sep='\\n')"
    for origin in run([str(python), "-c", where], tmp_path, python).splitlines():
        assert Path(origin).is_relative_to(python.parents[1])


def imported(path):
    """Top-level names of what a module imports when it is imported, other packages' only."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            yield from (name.name.split(".")[0] for name in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            yield statement.module.split(".")[0]


@pytest.mark.parametrize(
    "name, folder", [("cdc_prompt_learning", "trainers"), ("dassl_lite", "dassl-lite/dassl")]
)
def test_a_wheel_asks_for_all_that_its_modules_import(built, name, folder):
    with zipfile.ZipFile(wheel(built, name)) as archive:
        (metadata,) = (
            message_from_bytes(archive.read(file))
            for file in archive.namelist()
            if file.endswith("/METADATA")
        )
    asked = {
        canonicalize_name(one.name)
        for one in map(Requirement, metadata.get_all("Requires-Dist"))
        if one.marker is None
    }
    owners = importlib.metadata.packages_distributions()
    found = {module for path in (REPOSITORY / folder).rglob("*.py") for module in imported(path)}
    others = (
        found - set(sys.stdlib_module_names) - {"dassl"}
    )  # which of the two it shall be is the user's choice
    assert (
        "torch" in others
        and [
            module
            for module in others
            if not {canonicalize_name(owner) for owner in owners[module]} & asked
        ]
        == []
    )
