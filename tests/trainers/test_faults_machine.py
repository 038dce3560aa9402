"""What a machine does to a run: a full disk, a folder without rights, no memory, a killed worker.

Each ends with one line and exit code 2, or does no harm; the same command then gives what it would
have given. What the machine refuses where a file is read: test_damaged_files.py.
"""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import sklearn.metrics  # noqa: F401  # before rights are given up: its files may be out of reach then
from torch.utils.data import get_worker_info

import predict
from tests import children
from tests.runs import base_arguments, make_textures
from tests.same_run import assert_same_run
from train import main
from trainers.common import errors, files, image_files
from trainers.common.errors import line_for_user
from trainers.data import loader as data
from trainers.engine import fit as loop
from trainers.engine import run as one_run

NOBODY = 65534
EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")


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


@pytest.mark.parametrize(
    "name, epoch",
    [("prompt_learner/model.pth.tar-2", 1), ("predictions-val.npz", 3), ("results.json", 3)],
)
def test_a_full_disk_costs_what_was_to_be_written_and_the_same_command_goes_on(
    trained, full_disk, arguments, tmp_path, error_of, name, epoch
):
    """What was trained until then is there, and it ends as if nothing had been."""
    words = arguments("CoOp", *EACH_EPOCH)
    whole, folder, free = trained("CoOp", *EACH_EPOCH), tmp_path / "out", full_disk(name)
    advice = "make room, or give another place, and give the same command again"
    line = error_of(main, *words)
    assert line == f"error: {folder / name}: No space left on device: {advice}"
    assert not (folder / "results.json").exists()
    assert not list(folder.rglob("*unfinished*"))
    checkpoints = sorted((folder / "prompt_learner").iterdir())
    assert len(checkpoints) == epoch
    written = checkpoints[-1].stat().st_mtime_ns
    free()
    assert main(words) == 0
    assert checkpoints[-1].stat().st_mtime_ns == written
    assert_same_run(whole, folder)


# ---- folders that are read-only ----


def give_up_rights():
    """In a child: it may do nothing but what is open to all."""
    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def place(small_clip_file):
    """A folder that all may look into, which pytest's own are not, with textures that nobody may
    change."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(small_clip_file, folder / "clip.pt")
        make_textures(folder / "data")
        for path in folder.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("out_is_open", [True, False])
def test_one_without_rights_trains_on_a_read_only_data_folder_and_is_told_where_it_may_not_write(
    place, out_is_open
):
    (place / "out").mkdir()
    (place / "out").chmod(0o777 if out_is_open else 0o555)
    before = sorted((place / "data").rglob("*"))
    words = base_arguments("CoOp", place / "data", place / "clip.pt", place / "out/run")
    code = children.finish(words, place / "said", give_up_rights)
    message = "can't be written to (Permission denied): give another output folder"
    said = [message in line for line in children.errors(place / "said")]
    assert (code, said) == ((0, []) if out_is_open else (2, [True]))
    assert sorted((place / "data").rglob("*")) == before
    assert (place / "out/run/results.json").exists() == out_is_open


# ---- no memory ----


@pytest.mark.parametrize(
    "message, place",
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB.", "the GPU's memory"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "the GPU's memory"),
        ("MPS backend out of memory (MPS allocated: 8 GB)", "the GPU's memory"),
        ("DefaultCPUAllocator: can't allocate memory", "memory"),
        ("DefaultCPUAllocator: not enough memory", "memory"),  # on Windows
    ],
)
def test_all_ways_in_which_torch_lacks_memory_are_one_line_that_helps(message, place):
    line = line_for_user(RuntimeError(message))
    assert line.startswith(f"{place} is used up")
    for advice in ("TEXT_CHUNK 100", "half of OPTIM.LR", "PREC fp16", "a smaller CLIP"):
        assert advice in line


@pytest.mark.parametrize(
    "owner, name",
    [(loop, "training_step"), (one_run.Run, "test"), (image_files, "as_seen")],
    ids=["step", "test", "picture"],
)
def test_memory_that_is_used_up_in_a_step_a_test_or_a_picture_ends_the_command_and_is_all_it_says(
    arguments, trained, data_root, monkeypatch, error_of, owner, name
):
    command, words = main, arguments("ZeroshotCLIP" if name == "test" else "CoOp")
    if owner is image_files:
        command, words = predict.main, ["--run", trained("CoOp"), f"{data_root}/dtd/images/woven"]
    monkeypatch.setattr(owner, name, Mock(side_effect=MemoryError))
    assert error_of(command, *words).startswith("error: memory is used up: end other programs")
    assert command is main or error_of.printed == ""


# ---- a killed worker ----


def kill_a_worker(out, mark):
    """In a child: its loader's worker is killed at the last image of an epoch after the first."""
    original = data.CheckedImages.__getitem__

    def killed(self, index):
        is_late = (out / "prompt_learner/model.pth.tar-1").exists() and index == len(self) - 1
        if get_worker_info() and self.is_train and is_late and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    data.CheckedImages.__getitem__ = killed


def raise_in(module, error):
    """Raises an error by a line of the module of this name."""
    exec("raise error", {"__name__": module, "error": error})


@pytest.mark.parametrize("asked", ["line_for_user", "is_of_killed_worker"])
def test_a_worker_whose_end_is_noticed_twice_is_one_line(monkeypatch, capsys, asked):
    """Its connection ends, and torch tells of it while that error is being answered."""
    answer, told = getattr(errors, asked), []

    def interrupted(error):
        if not told:
            told.append(error)
            message = "DataLoader worker (pid 7) is killed by signal: Killed. "
            raise_in("torch.utils.data._utils.signal_handling", RuntimeError(message))
        return answer(error)

    monkeypatch.setattr(errors, asked, interrupted)
    lost = ConnectionResetError(104, "Connection reset by peer")
    assert errors.exit_code(raise_in, "torch.utils.data.dataloader", lost) == 2
    assert told == [lost]
    (line,) = capsys.readouterr().err.split("\n", 1)[1].splitlines()
    assert line.startswith("error: DataLoader worker (pid 7) is killed by signal")


def test_a_killed_worker_ends_the_run_with_one_line_and_the_run_goes_on(
    trained, arguments, tmp_path
):
    """``kill -9`` in the middle of the second epoch; in a child, since torch tells of it whenever it
    is noticed."""
    options = ("DATALOADER.NUM_WORKERS", "1", *EACH_EPOCH)
    whole, mark, said = trained("CoOp", *options), tmp_path / "killed", tmp_path / "said.txt"
    words = arguments("CoOp", *options)
    assert children.finish(words, said, kill_a_worker, tmp_path / "out", mark) == 2
    assert mark.exists()
    (message,) = children.errors(said)
    assert message.startswith("error: DataLoader worker ")
    assert "give the same command again" in message
    assert not (tmp_path / "out/results.json").exists()
    assert main(words) == 0
    assert_same_run(whole, tmp_path / "out")
