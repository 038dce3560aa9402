"""What a machine does to a run: a full disk, a data folder without rights, a killed worker, a clock
that goes back.

Each ends with one line and exit code 2, or does no harm; the same command then gives what it would
have given. What the machine refuses is never told as a fault of a file.
"""

import builtins
import errno
import io
import itertools
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import sklearn.metrics  # noqa: F401  # before rights are given up: its files may be out of reach then
import torch
from torch.utils.data import get_worker_info
from tqdm import tqdm

import predict
from datasets.splits import read_split
from results import table
from results.report import __main__ as report
from results.runs import Run
from tests import children
from tests.results.conftest import make_answers, write_run
from tests.runs import call, contents_of, make_textures
from tests.same_run import assert_same_run
from train import main
from trainers.common import files
from trainers.common.config_files import merge
from trainers.common.errors import exit_code
from trainers.common.record_file import read_record
from trainers.data import loader as data
from trainers.data.pickles import read_pickle
from trainers.engine import checkpoint
from trainers.engine import fit as loop
from trainers.engine import run as one_run
from trainers.evaluation.doubts import read_points
from trainers.prompting.backbone import load_backbone
from trainers.texts.descriptions import read_descriptions

NOBODY = 65534


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if "unfinished" in path.name]


# ---- a full disk ----


@pytest.fixture
def full_disk(monkeypatch):
    """Lets the kernel say "No space left on device" where a file of a certain ending is written;
    returns a function that frees the disk."""

    def fill(ending):
        original = files.write_atomically

        def write_atomically(path, write):
            def write_to_full(temporary):
                os.remove(temporary)
                os.symlink("/dev/full", temporary)
                write(temporary)

            original(path, write_to_full if str(path).endswith(ending) else write)

        monkeypatch.setattr(files, "write_atomically", write_atomically)
        return monkeypatch.undo

    return fill


@pytest.mark.parametrize("name", ["predictions-val.npz", "results.json"])
def test_a_disk_that_is_full_at_the_end_of_a_run_costs_the_test_only(
    trained, full_disk, arguments, tmp_path, error_of, name
):
    """What was trained is there: the same command tests it and ends as if nothing had been."""
    whole, folder, free = trained("CoOp"), tmp_path / "out", full_disk(name)
    line = error_of(main, *arguments("CoOp"))
    advice = "make room, or give another place, and give the same command again"
    assert line == f"error: {folder / name}: No space left on device: {advice}"
    assert not (folder / "results.json").exists() and not leftovers(folder)
    prompts = folder / "prompt_learner/model.pth.tar-3"
    written = prompts.stat().st_mtime_ns
    free()
    assert main(arguments("CoOp")) == 0
    assert prompts.stat().st_mtime_ns == written
    assert_same_run(whole, folder)


@pytest.fixture
def runs(tmp_path):
    for seed in (1, 2):
        answers = make_answers(seed, templates=2)
        write_run(tmp_path / "runs", "train_all", "CDC", seed, arrays=answers)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "command, name, full",
    [(table, "table.md", ".md"), (report, "report.html", ".html"), (report, "report.html", ".svg")],
)
def test_a_disk_that_is_full_for_tables_and_reports_leaves_the_old_ones(
    runs, full_disk, tmp_path, error_of, command, name, full
):
    output, first = tmp_path / "output", tmp_path / "first"
    output.mkdir(), first.mkdir()
    assert call(command.main, runs, "--output", first / name) == 0
    older = (first / name).read_text()
    (output / name).write_text(older)
    full_disk(full)
    message = error_of(command.main, runs, "--output", output / name)
    assert f"{full}: No space left on device: make room" in message
    assert (output / name).read_text() == older and not leftovers(output)
    assert full != ".svg" or not list(output.rglob("*.svg"))


def test_a_disk_that_is_full_for_labels_is_one_line(
    trained, full_disk, data_root, tmp_path, error_of
):
    free = full_disk(".csv")
    words = "--run", trained("CoOp"), f"{data_root}/dtd/images/woven", "--csv"
    line = error_of(predict.main, *words, f"{tmp_path}/labels.csv")
    assert "labels.csv: No space left on device: make room" in line
    assert os.listdir(tmp_path) == ["labels.csv.part"]
    free()
    assert call(predict.main, *words, f"{tmp_path}/labels.csv") == 0
    assert os.listdir(tmp_path) == ["labels.csv"]


def in_child(tmp_path, command):
    """Exit code and standard error of a function that is called in a process of its own, which may
    give up rights for good."""
    log = tmp_path / "stderr.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            torch.set_num_threads(1)  # threads don't survive a fork
            with open(log, "w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
                code = command()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), children.errors(log)


def test_a_disk_that_is_full_for_the_log_ends_the_run_with_one_line(arguments, tmp_path):
    """The kernel's own refusal: no file may grow beyond 4000 bytes, and the log does first."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        return main(arguments("ZeroshotCLIP"))

    code, (line,) = in_child(tmp_path, limited)
    assert code == 2
    assert f"error: {tmp_path}/out/log.txt: File too large: make room" in line
    assert os.listdir(f"{tmp_path}/out") == ["log.txt"]
    assert main(arguments("ZeroshotCLIP")) == 0


# ---- a data folder that is read-only ----


def open_to_all(folder):
    """Lets everybody through to a temporary folder, which pytest makes for its user only."""
    for place in (folder, *folder.parents):
        if place.name.startswith(("pytest-", "popen-", folder.name)):
            place.chmod(0o755)


@pytest.fixture
def readable_by_all(tmp_path):
    """A folder that one without rights gets to, with textures in it that only their owner may
    change."""
    open_to_all(tmp_path)
    make_textures(tmp_path / "data")
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    (tmp_path / "stderr.txt").touch()
    (tmp_path / "stderr.txt").chmod(0o666)
    return tmp_path


def without_rights(words):
    """Exit code of train.py where nothing may be done that is not open to all."""
    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return main(words)


def test_a_read_only_data_folder_is_trained_on(
    readable_by_all, arguments, small_clip_file, one_thread
):
    root = readable_by_all
    os.chmod(small_clip_file, 0o444)
    open_to_all(Path(small_clip_file).parent)
    before = sorted((root / "data").rglob("*"))
    words = arguments("CoOp", root=root / "data", folder=root / "out/run")
    assert in_child(root, lambda: without_rights(words)) == (0, [])
    assert sorted((root / "data").rglob("*")) == before
    assert (root / "out/run/results.json").exists()


@pytest.mark.parametrize(
    "place, message",
    [
        ("data", "OpenMoji's pictures can't be drawn into"),
        ("out", "can't be written to (Permission denied): give another output folder"),
    ],
)
def test_what_has_to_be_written_and_can_not_is_one_line(readable_by_all, arguments, place, message):
    """Pictures that are drawn into the data folder, and a run's own folder."""
    root = readable_by_all
    (root / "out").chmod(0o555 if place == "out" else 0o777)
    words = arguments("ZeroshotCLIP", root=root / "data", folder=root / "out/run")
    if place == "data":
        words += ["--dataset-config-file", "configs/datasets/openmoji.yaml"]
    code, (line,) = in_child(root, lambda: without_rights(words))
    assert code == 2 and message in line and str(root) in line


# ---- no memory, no right, a broken disk while a file is read ----


def answers_in(path):
    return Run(Path(path).parent, {}).answers


READERS = {
    "model.pth.tar-3": checkpoint.load,
    "results.json": read_record,
    "predictions-val.npz": lambda path: read_points(os.path.dirname(path)),
    "predictions-test.npz": answers_in,
    "small.pt": load_backbone,
    "split_zhou_DescribableTextures.json": lambda path: read_split(path, "."),
    "sample.pkl": lambda path: read_pickle(path, ["train"]),
    "descriptions.json": lambda path: read_descriptions(path, ["ant"]),
    "config.yaml": lambda path: merge(None, path, "config file"),
}
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"
FAULTS = {
    "memory": lambda: MemoryError(),
    "torch's memory": lambda: RuntimeError(ALLOCATOR),
    "disk": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "right": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "files": lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READERS)
def test_what_the_machine_refuses_is_told_as_that_and_never_as_a_damaged_file(
    tmp_path, monkeypatch, capsys, name, fault
):
    """The fault is that of opening the file, whatever opens it."""

    def refused(path, *rest, **named):
        if str(path) == str(tmp_path / name):
            raise FAULTS[fault]()
        return original(path, *rest, **named)

    original = open
    (tmp_path / name).write_bytes(b"PK")
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", refused)
    assert exit_code(READERS[name], str(tmp_path / name)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    is_memory = "memory" in fault
    assert ("memory is used up" in line) == is_memory
    assert is_memory or f"{tmp_path / name}: {FAULTS[fault]().strerror}: " in line
    assert not any(
        word in line for word in ("delete", "cut", "run it again", "damaged", "can't be read")
    )


def test_a_training_that_can_not_look_at_what_is_there_is_not_begun_anew(
    copied, arguments, monkeypatch, capsys
):
    folder = copied("CoOp")
    before = contents_of(folder, "log.txt")

    def refused(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", refused)
    assert main(arguments("CoOp", folder=folder)) == 2
    assert "memory is used up" in capsys.readouterr().err
    assert contents_of(folder, "log.txt") == before


# ---- no memory in a step ----

NO_MEMORY = {
    "a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "the GPU's memory"),
    "its driver": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "the GPU's memory"),
    "a Mac": (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), "the GPU's memory"),
    "a CPU": (RuntimeError(ALLOCATOR), "memory"),
    "Windows": (RuntimeError("[enforce fail at ..\\c10\\core\\impl\\alloc_cpu.cpp:72] data. DefaultCPUAllocator: not enough memory"), "memory"),
    "Python": (MemoryError(), "memory"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_MEMORY)
@pytest.mark.parametrize(
    "place_of, moment, trainer",
    [(loop, "training_step", "CoOp"), (one_run.Run, "test", "ZeroshotCLIP")],
    ids=["step", "test"],
)
def test_memory_that_is_used_up_in_a_step_or_a_test_is_one_line_that_helps(
    arguments, monkeypatch, capsys, kind, place_of, moment, trainer
):
    error, place = NO_MEMORY[kind]

    def full(*_):
        raise error

    monkeypatch.setattr(place_of, moment, full)
    assert main(arguments(trainer)) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {place} is used up")
    for word in (
        "TEXT_CHUNK 100",
        "BATCH_SIZE with half of OPTIM.LR",
        "PREC amp",
        "a smaller CLIP",
    ):
        assert word in line


# ---- a killed worker ----


def kill_a_worker(out, mark, at):
    """In a child: its loader's worker is killed at the last image of an epoch after the first, or
    of the test."""
    original = data.CheckedImages.__getitem__

    def killed(self, index):
        is_late = (out / "prompt_learner/model.pth.tar-1").exists() and index == len(self) - 1
        is_asked = get_worker_info() is not None and self.is_train == (at == "train")
        if is_late and is_asked and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    data.CheckedImages.__getitem__ = killed


@pytest.mark.parametrize("at", ["train", "test"])
def test_a_killed_worker_ends_the_run_with_one_line_and_the_run_goes_on(
    trained, arguments, tmp_path, at
):
    """``kill -9`` in the middle of the second epoch, or of the test; in a child, since torch tells
    of it whenever it is noticed."""
    options = ("DATALOADER.NUM_WORKERS", "1", "TRAIN.CHECKPOINT_FREQ", "1")
    whole, mark, said = trained("CoOp", *options), tmp_path / "killed", tmp_path / "said.txt"
    words = arguments("CoOp", *options)
    assert children.finish(words, said, kill_a_worker, tmp_path / "out", mark, at) == 2
    assert mark.exists()
    (message,) = children.errors(said)
    assert message.startswith("error: DataLoader worker ")
    assert "give the same command again" in message
    assert not (tmp_path / "out/results.json").exists()
    assert main(words) == 0
    assert_same_run(whole, tmp_path / "out")


def test_a_killed_worker_is_told_when_the_connection_to_it_ends_first(
    arguments, error_of, monkeypatch
):
    def ended(self, index):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(data.CheckedImages, "__getitem__", ended)
    # as where torch then tells of the worker's end, too, while the bar is being closed
    monkeypatch.setattr(tqdm, "close", lambda bar: None)
    line = error_of(main, *arguments("CoOp"))
    told = (
        "error: DataLoader worker has ended (Connection reset by peer): give the same command again"
    )
    assert line.startswith(told)


# ---- a clock that goes back ----


def test_a_clock_that_goes_back_changes_no_duration(run, monkeypatch):
    """An hour back at each look."""
    now, looks = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(looks))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))  # logging's from 3.13 on
    _, record, folder = run("CoOp", "OPTIM.MAX_EPOCH", "2")
    durations = [*record["seconds"].values(), record["seconds_per_step"]]
    assert all(0 <= value < 3600 for value in durations)
    log = (folder / "log.txt").read_text()
    assert "eta 0 s" in log and "Elapsed: 0:" in log
    assert not any(wrong in log for wrong in ("eta -", "day", "time -"))
    assert next(looks) > 10, "the clock was looked at: the scalars have its time"
