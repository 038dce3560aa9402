"""Nothing in a file is executed or leaves its folder: hostile files, and a search of the code for what could."""

import ast
import os
import pickle
import shutil
import zipfile

import numpy
import pytest
import torch
from dassl.utils import load_checkpoint

import demo_app
import predict
from datasets.imagenet import in_coops_order
from datasets.pickles import read_pickle
from protocols.plan import ablation_rows
from protocols.training import main
from results.report import __main__ as report
from tests.conftest import REPOSITORY, base_arguments, refuses
from tests.results.conftest import make_answers, write_run
from trainers.prompting.backbone import load_backbone

# ---- the code ----

# (file, what) → why it is safe there
ADMITTED = {
    (
        "datasets/pickles.py",
        "Unpickler",
    ): "find_class admits one empty class, nothing is imported or called",
    (
        "trainers/prompting/weights/torchscript.py",
        "Unpickler",
    ): "find_class gives stand-ins, nothing is imported or called",
    ("trainers/common/readers.py", "yaml.load"): "its loader is yaml's SafeLoader without aliases",
    (
        "dassl-lite/dassl/utils/checkpoint.py",
        "safe_globals",
    ): "torch's own optimisers and schedulers, for Dassl's checkpoints, under weights_only",
    ("tools/suite.py", "clip.load"): "the weights that are in this repository",
}
NEVER = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "system",
    "popen",
    "Unpickler",
    "extractall",
    "extract",
    "unpack_archive",
    "safe_globals",
    "add_safe_globals",
    "unsafe_load",
    "full_load",
}
MODULES = {
    "pickle",
    "joblib",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
}  # whose load and loads run what they read


def dangers(tree):
    """Yields what in a module runs, or unpacks, what it is given: its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (
                "Unpickler" for base in node.bases if ast.unparse(base).endswith("Unpickler")
            )
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_method = owner and name in ("eval", "compile")  # model.eval(), re.compile()
        if (
            name in NEVER
            and not is_method
            or given.get("shell") == "True"
            or given.get("allow_pickle") == "True"
        ):
            yield name
        if name in ("load", "loads") and (
            owner in MODULES or owner in ("torch.jit", "clip") or owner == "yaml"
        ):
            yield called
        if called == "torch.load" and given.get("weights_only") != "True":
            yield called


def code_files():
    return sorted(
        path
        for path in REPOSITORY.rglob("*.py")
        if not {".venv", "tests", "build"} & set(path.relative_to(REPOSITORY).parts)
        and "egg-info" not in str(path)
    )


def test_no_call_in_the_code_runs_what_it_reads():
    found = {
        (str(path.relative_to(REPOSITORY)), danger)
        for path in code_files()
        for danger in dangers(ast.parse(path.read_text()))
    }
    assert found == set(ADMITTED), "an entry too many is as wrong as one too few"
    assert len(code_files()) > 100


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "pickle.load(file)",
        "pickle.loads(data)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.jit.load(path)",
        "clip.load(path)",
        "yaml.load(text, Loader=any)",
        "numpy.load(path, allow_pickle=True)",
        "joblib.load(path)",
        "class Reader(pickle.Unpickler): pass",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "__import__(name)",
        "yaml.unsafe_load(text)",
    ],
)
def test_the_search_finds_what_it_is_for(code):
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "re.compile(pattern)",
        "json.load(file)",
        "yaml.safe_load(file)",
        "numpy.load(path)",
        "torch.load(path, weights_only=True)",
        "subprocess.run(words)",
    ],
)
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


def hostile_checkpoint(path, mark):
    torch.save(
        {
            "state_dict": {},
            "epoch": 3,
            "trainer": Evil(mark),
            "classnames": [],
            "config": {},
            "backbone_hash": "",
        },
        path,
    )


@pytest.mark.parametrize("flags", [("--eval-only", "--model-dir"), ("--resume",)])
def test_a_hostile_checkpoint_is_refused(trained, refusal, tmp_path, mark, flags):
    folder = tmp_path / "run"
    shutil.copytree(trained("CoOp")[1], folder)
    for path in (folder / "prompt_learner").glob("model*"):
        hostile_checkpoint(path, mark)
    message = refusal(*flags, str(folder), trainer="CoOp")
    assert "model.pth.tar-3" in message and "can" in message and "be read" in message


@pytest.mark.parametrize("command", [predict.main, demo_app.main])
def test_a_hostile_checkpoint_of_a_run_to_ask_is_refused(
    trained, data_root, tmp_path, mark, capsys, command
):
    folder = tmp_path / "run"
    shutil.copytree(trained("CoOp")[1], folder)
    for path in (folder / "prompt_learner").glob("model*"):
        hostile_checkpoint(path, mark)
    arguments = [
        "--run",
        str(folder),
        *([f"{data_root}/dtd/images/woven"] if command is predict.main else []),
    ]
    assert command(arguments) == 2 and "can't be read" in capsys.readouterr().err


def test_a_hostile_few_shot_pickle_is_refused(tmp_path, mark):
    path = tmp_path / "shot_2-seed_1.pkl"
    path.write_bytes(pickle.dumps({"train": Evil(mark), "val": []}))
    with refuses("is not read .*names .*mkdir, and only Datum is admitted"):
        read_pickle(str(path), ("train", "val"))
    (tmp_path / "preprocessed.pkl").write_bytes(path.read_bytes())
    with refuses("preprocessed.pkl is not read"):
        in_coops_order([], str(tmp_path))


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
        assert "could not determine a constructor" in refusal(
            replace={flag: str(tmp_path / "evil.yaml")}
        )
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "CDC.yaml").write_text(f"- name: {tag.format(mark)}\n")
    monkeypatch.setattr("protocols.plan.CONFIGS", str(tmp_path))
    with refuses("could not determine a constructor"):
        ablation_rows("CDC")


def test_a_setting_is_never_evaluated(refusal, mark):
    assert "OPTIM.LR" in refusal("OPTIM.LR", f"__import__('os').mkdir('{mark}')")


def test_hostile_arrays_are_refused(tmp_path, trained, data_root, mark, capsys):
    hostile = numpy.array([Evil(mark)], dtype=object)
    folder = write_run(
        tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(1, templates=2)
    )
    numpy.savez(
        folder / "predictions-test.npz", **{**make_answers(1, templates=2), "image": hostile}
    )
    assert report.main([str(tmp_path / "runs"), "--output", str(tmp_path / "report.html")]) == 2
    assert "predictions-test.npz can't be read" in capsys.readouterr().err
    shutil.copytree(trained("CDC")[1], tmp_path / "run")
    numpy.savez(
        tmp_path / "run" / "predictions-val.npz", vacuity=hostile, top=hostile, label=hostile
    )
    assert (
        predict.main(
            ["--run", str(tmp_path / "run"), "--max-error", "0.5", f"{data_root}/dtd/images/woven"]
        )
        == 2
    )
    assert "predictions-val.npz can't be read" in capsys.readouterr().err


def test_hostile_clip_weights_are_refused(tmp_path, mark):
    torch.save({"text_projection": Evil(mark)}, tmp_path / "clip.pt")
    with refuses("clip.pt can't be read as CLIP weights"):
        load_backbone(str(tmp_path / "clip.pt"))
    (tmp_path / "clip.pt").write_bytes(pickle.dumps(Evil(mark)))
    with refuses("clip.pt can't be read as CLIP weights"):
        load_backbone(str(tmp_path / "clip.pt"))


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
    torch.jit.script(SavesItself(str(tmp_path / "made"))).save(str(tmp_path / "clip.pt"))
    torch.jit.load(str(tmp_path / "clip.pt"))
    assert (tmp_path / "made").exists(), "torch itself does"
    (tmp_path / "made").unlink()
    with refuses("SavesItself unpacks itself by code of its own"):
        load_backbone(str(tmp_path / "clip.pt"))
    assert not (tmp_path / "made").exists()


def test_a_torchscript_archive_whose_pickle_is_hostile_is_refused(tmp_path, mark):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "sound.pt"))
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(tmp_path / "clip.pt", "w") as hostile,
    ):
        for name in sound.namelist():
            hostile.writestr(
                name, pickle.dumps(Evil(mark)) if name.endswith("/data.pkl") else sound.read(name)
            )
    with refuses("it names .*mkdir, which weights don't need"):
        load_backbone(str(tmp_path / "clip.pt"))


def test_a_hostile_checkpoint_of_dassls_is_refused(tmp_path, mark):
    torch.save({"state_dict": {}, "scheduler": Evil(mark)}, tmp_path / "model.pth.tar-1")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(str(tmp_path / "model.pth.tar-1"))


# ---- out of the folder ----


def test_the_page_is_served_to_this_machine_only():
    """Other names that lead here, see ``app.test_mistakes.test_other_hosts_names_get_nothing_and_the_browser_is_told_to_ask_nobody``."""
    pytest.importorskip("waitress")
    server = demo_app.make_server(lambda *_: [], 0)
    try:
        assert server.socket.getsockname()[0] == "127.0.0.1"
    finally:
        server.close()


def test_a_record_that_names_another_module_imports_none(trained, tmp_path, capsys):
    """A run's record says which trainer made it, by a name that is looked up among the trainers."""
    folder = tmp_path / "run"
    shutil.copytree(trained("CoOp")[1], folder)
    path = folder / "results.json"
    for name in ("..results.table", "os", "prompting.backbone", "", "ä.b"):
        path.write_text(path.read_text().replace('"trainer": "CoOp"', f'"trainer": "{name}"', 1))
        assert predict.main(["--run", str(folder), str(folder)]) == 2
        capsys.readouterr()
        path.write_text(path.read_text().replace(f'"trainer": "{name}"', '"trainer": "CoOp"', 1))


def test_files_that_are_not_hostile_are_taken(trained, data_root, small_clip_file, tmp_path):
    """The control."""
    assert (
        main(
            [
                *base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out"),
                "--eval-only",
                "--model-dir",
                str(trained("CoOp")[1]),
            ]
        )
        == 0
    )
