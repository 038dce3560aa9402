"""The distributions as somebody else gets them: built, inspected, and installed into an environment
without this repository."""

import ast
import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import trainers
from tests.runs import PATIENCE, REPOSITORY, record_of
from tests.tutorials import checkout, follow, run

LEFT_OUT = ("checkout",)  # of labelling: what needs a checkout
WITH_EXTRA = ("serve",)  # of labelling: imported by cdc-serve alone, which asks for the extra app
DISTRIBUTIONS = {  # name: its packages, and where they lie
    "cdc_prompt_learning": {
        "cdc_trainers": REPOSITORY / "trainers",
        "cdc_trainers/configs": REPOSITORY / "configs",
        "cdc_trainers/dassls": REPOSITORY / "dassl-lite/dassl/config/data",
        "cdc_labelling": REPOSITORY / "labelling",
    },
    "dassl_lite": {"dassl": REPOSITORY / "dassl-lite/dassl"},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distributions and the wheels that are built from them, in a copy:
    building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("built")
    copy = checkout(folder / "repository")
    for egg in copy.rglob("*.egg-info"):
        shutil.rmtree(egg)
    for source in (copy, copy / "dassl-lite"):
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
        subprocess.run(command, cwd=source, capture_output=True, timeout=PATIENCE, check=True)
    return folder


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """The interpreter of a new environment with the two wheels; their dependencies are those of
    this one, without what is installed editable here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin/python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run([str(interpreter), "-c", where], folder, interpreter).strip())
    pip = "-m pip --quiet --disable-pip-version-check install --no-deps --no-index --target"
    wheels = map(str, built.glob("*.whl"))
    run([sys.executable, *pip.split(), str(own), *wheels], folder, sys.executable)
    # a folder that a .pth file names is looked into, but .pth files that lie there, such as those
    # of editable installations, are not read
    (own / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("-packages"))
    )
    return interpreter


def wheel_of(built, name):
    (wheel,) = built.glob(f"{name}-*.whl")
    (distribution,) = importlib.metadata.distributions(path=[str(wheel)])
    return distribution


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_has_the_package_whole_and_nothing_else(built, name):
    distribution = wheel_of(built, name)
    inside = {str(path) for path in distribution.files}
    assert {path for path in inside if ".dist-info/" not in path} == {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in DISTRIBUTIONS[name].items()
        for ending in ("*.py", "*.pt", "*.md", "*.yaml", "*.css", "*.html", "py.typed")
        for path in folder.rglob(ending)
        if path.relative_to(folder).parts[0] not in LEFT_OUT
    }
    assert any(path.endswith("/LICENSE") for path in inside)
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.metadata["Requires-Python"] == ">=3.10"


def test_an_index_shows_systems_versions_of_python_and_links(built):
    facts = wheel_of(built, "cdc_prompt_learning").metadata
    classifiers = "\n".join(facts.get_all("Classifier"))
    for wanted in ("Operating System ::", "Python :: 3.10", "Typing :: Typed"):
        assert wanted in classifiers
    assert facts.get_all("Project-URL")


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_an_archive_has_the_sources_and_no_tests_or_data(built, name):
    (archive,) = built.glob(f"{name}-*.tar.gz")
    with tarfile.open(archive) as file:
        inside = {Path(*Path(each).parts[1:]).as_posix() for each in file.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= inside
    own = {"dassl_lite": {"tests"}}  # which need nothing of the repository
    unwanted = {"tests", "data", "output", "docs"} - own.get(name, set())
    assert not unwanted & {file.split("/")[0] for file in inside}
    assert "trainers/prompting/weights" in inside or name == "dassl_lite"


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_a_distribution_imports_at_once_is_required(built, name):
    """But Dassl: which it shall be is the user's choice."""
    requirements = map(Requirement, wheel_of(built, name).requires)
    asked = {canonicalize_name(each.name) for each in requirements if each.marker is None}
    owners = importlib.metadata.packages_distributions()
    for folder in DISTRIBUTIONS[name].values():
        for path in folder.rglob("*.py"):
            if path.relative_to(folder).parts[0] in (*LEFT_OUT, *WITH_EXTRA):
                continue
            for module in {*imported(path)} - {*sys.stdlib_module_names, "dassl", "trainers"}:
                assert {canonicalize_name(owner) for owner in owners[module]} & asked, module


def imported(path):
    """The packages that a file imports when it is imported itself."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.Import):
            yield from (name.name.partition(".")[0] for name in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            yield statement.module.partition(".")[0]


@pytest.mark.slow
def test_cdc_plugged_in_from_the_wheels_works_where_the_repository_is_not_in_sight(
    python, tmp_path, monkeypatch
):
    monkeypatch.setenv("CDC", str(REPOSITORY))  # the recipe is copied from there
    follow("plug_in", tmp_path, python)
    assert record_of(tmp_path / "output/cdc")["config"]["MODEL"]["BACKBONE"]["NAME"] == "tiny"
    where = "import cdc_trainers, dassl; print(cdc_trainers.__file__, dassl.__file__, sep='\\n')"
    for origin in run([str(python), "-c", where], tmp_path, python).splitlines():
        assert Path(origin).is_relative_to(python.parents[1])


PICTURES = """
from pathlib import Path
from PIL import Image
for colour in ("red", "blue"):
    Path("mine", colour).mkdir(parents=True)
    for width in range(40, 50):
        Image.new("RGB", (width, 64), colour).save(f"mine/{colour}/{width}.png")
"""
IN_PYTHON = """
from importlib.util import find_spec
assert not find_spec("dassl") and not find_spec("pkg_resources")
import cdc_trainers
from cdc_labelling import PromptedClassifier
fitted = PromptedClassifier.fit("mine", backbone="tiny", settings={"OPTIM.MAX_EPOCH": 2})
trained = PromptedClassifier.load("run")
assert fitted.record["metrics"] == trained.record["metrics"], "of the same run, the command's"
pictures = ["mine/red/40.png", "mine/blue/41.png"]
assert fitted.predict_proba(pictures).shape == (2, 2)
fitted.export("exported")
print(fitted.predict(pictures).labels, fitted.evaluate("mine").confusion.sum(), cdc_trainers.__version__)
"""


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory):
    """The folder of the programs of a new environment, with the newest packages that pip finds for the
    wheel of the trainers, and no Dassl."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, symlinks=True, with_pip=True)
    (wheel,) = built.glob("cdc_prompt_learning-*.whl")
    python = folder / "bin/python"
    words = "-m pip --quiet --disable-pip-version-check install --upgrade setuptools"
    run([str(python), *words.split(), f"{wheel}[export]"], folder, python)
    return folder / "bin"


@pytest.mark.slow
def test_the_library_works_without_labelling(python, tmp_path):
    """And labelling imports it by the name that it has in a wheel."""
    program = """
import sys
sys.modules["cdc_labelling"] = None  # as if it were deleted: to import it fails
import torch
from cdc_trainers import METHODS, method_class, method_node
from cdc_trainers.prompting.backbone import load_backbone
for name in METHODS:
    assert issubclass(method_class(name), torch.nn.Module)
node = method_node("CDC")
node.PROMPT_DEPTH = 3
method = method_class("CDC")(node, ["cat", "dog"], load_backbone("tiny")).eval()
print(method.answer(torch.randn(1, 3, 3, 64, 64)).probability.shape)
del sys.modules["cdc_labelling"]
from cdc_labelling import PromptedClassifier
print(PromptedClassifier.__module__)
"""
    said = run([str(python), "-c", program], tmp_path, python)
    assert said.splitlines()[-2:] == ["torch.Size([3, 2])", "cdc_labelling.classifier"]


@pytest.mark.slow
def test_in_an_empty_environment_and_an_empty_folder_it_trains_answers_and_exports(alone, tmp_path):
    def program(name, *words):
        return run([str(alone / name), *words], tmp_path, alone / "python")

    program("python", "-c", PICTURES)
    words = "mine --backbone tiny --output-dir run --settings OPTIM.MAX_EPOCH 2"
    program("cdc-train", *words.split())
    program("cdc-predict", "--run", "run", "mine/red", "--csv", "labels.csv")
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 10
    said = program("python", "-c", IN_PYTHON).splitlines()[-1]
    assert said.endswith(f" 20 {trainers.__version__}")
    assert (tmp_path / "exported/model.onnx").exists()
    assert record_of(tmp_path / "run")["versions"]["dassl"] is None
