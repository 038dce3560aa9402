"""A run that is ended at any moment and started again ends as if it had not been, to the bit; what
goes wrong with its files, and signals."""

import os
import random
import shutil
import signal

import pytest
import torch
from dassl.data import data_manager
from dassl.engine import TRAINER_REGISTRY
from torch.utils.data import Sampler

from tests import children
from tests.conftest import BASE, IN_EPOCHS, slow_but_for
from tests.methods import FITTED
from tests.same_run import assert_same_run
from train import main
from trainers.common.files import remove_leftovers, write_text
from trainers.common.interruption import REQUEUE, SIGNALS, interruptible
from trainers.engine import fit as loop
from trainers.engine.checkpoint import MODEL_NAME, epoch_name
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator
from trainers.method import Method

EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")
BEST_VAL = ("TEST.FINAL_MODEL", "best_val")


class Killed(BaseException):
    pass


class ByPython(Sampler):
    """An order out of Python's generator, where torch's own samplers ask torch's."""

    def __init__(self, data):
        self.length = len(data)

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(random.sample(range(self.length), self.length))


def dies(monkeypatch, owner, name, moment, action):
    """Has ``action`` done when ``owner.name`` is called for the ``moment``-th time, from 0."""
    function, calls = getattr(owner, name), []

    def dying(*arguments, **named):
        calls.append(name)
        if len(calls) == moment + 1:
            action()
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)


def kill():
    raise Killed


OPTIONS = {
    "CDC": (*BEST_VAL, "TRAINER.CDC.PREC", "amp", "TRAINER.CDC.N_TEMPLATES", "2"),
    "ProGrad": ("OPTIM.NAME", "adamw", "DATALOADER.TRAIN_X.SAMPLER", "ByPython"),
    "CoPrompt": ("DATALOADER.NUM_WORKERS", "2"),
    "CoOp": ("DATALOADER.NUM_WORKERS", "2", "OPTIM.LEAST_STEPS", "9"),  # which stay between epochs
}
SMALL = (*BASE, "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
MOMENTS = [
    (loop, "training_step", 0),
    (loop, "training_step", 3),
    (loop, "training_step", 7),
    (Run, "save", 1),
    (Method, "answer", 1),
    (Evaluator, "write_record", 0),
]  # of three epochs of three steps


@pytest.mark.parametrize("owner, name, moment", MOMENTS)
@slow_but_for(("CDC",), IN_EPOCHS, "trainer")
def test_a_run_that_is_killed_ends_as_if_it_were_not(
    run, trained, monkeypatch, trainer, owner, name, moment
):
    known = data_manager.build_sampler

    def build_sampler(kind, cfg, data, **more):
        return ByPython(data) if kind == "ByPython" else known(kind, cfg, data, **more)

    monkeypatch.setattr(data_manager, "build_sampler", build_sampler)
    options = (*OPTIONS.get(trainer, BEST_VAL), *SMALL)
    whole = trained(trainer, *options)
    with monkeypatch.context() as patch:
        dies(patch, owner, name, moment, kill)
        with pytest.raises(Killed):
            run(trainer, *options)
    torch.manual_seed(12345)  # whatever state the new process is in
    random.seed(12345)
    assert_same_run(whole, run(trainer, *options)[2])


@pytest.mark.parametrize(
    "owner, name, moment",
    [(Run, "save", 0), (Run, "save", 1), (Method, "answer", 1), (Evaluator, "write_record", 0)],
)
@slow_but_for(FITTED[:1], FITTED, "trainer")
def test_a_fitted_run_that_is_killed_ends_as_if_it_were_not(
    run, trained, monkeypatch, trainer, owner, name, moment
):
    """Before its fit is kept, between its two files, and in its tests."""
    whole = trained(trainer, *BEST_VAL, *SMALL)
    with monkeypatch.context() as patch:
        dies(patch, owner, name, moment, kill)
        with pytest.raises(Killed):
            run(trainer, *BEST_VAL, *SMALL)
    assert_same_run(whole, run(trainer, *BEST_VAL, *SMALL)[2])


def test_only_the_last_epochs_end_is_kept_beside_those_that_are_asked_for(run):
    options = "TRAIN.CHECKPOINT_FREQ", "2", "OPTIM.MAX_EPOCH", "5"
    folder = run("CoOp", *options)[2]
    kept = sorted(path.name for path in (folder / MODEL_NAME).glob("model*"))
    assert kept == [epoch_name(epoch) for epoch in (2, 4, 5)]


# ---- files ----


@pytest.fixture
def output(arguments, tmp_path):
    """Runs train.py on CoOp: ``output(*options)`` → exit code; the folder is ``output.folder``."""

    def start(*options):
        return main(arguments("CoOp", *options))

    start.folder = tmp_path / "out"
    start.checkpoints = start.folder / MODEL_NAME
    return start


def change_a_bit(path):
    """Of a number in the middle of the file, where torch doesn't notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_optimiser(path):
    torch.save({**torch.load(path, weights_only=True), "optimizer": {"x": "y"}}, path)


DAMAGES = {
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 100), "can't be read"),
    "a bit": (change_a_bit, "can't be read"),
    "optimizer": (change_the_optimiser, "cannot be resumed ("),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_the_line_says_what_to_do(
    output, trained, stopped, capsys, damage
):
    change, reason = DAMAGES[damage]
    stopped(trained("CoOp", *EACH_EPOCH), epoch=2)
    change(output.checkpoints / epoch_name(2))
    assert output(*EACH_EPOCH) == 2
    error = capsys.readouterr().err
    assert f"{epoch_name(2)} {reason}" in error
    assert f"delete {output.checkpoints} to start over" in error
    shutil.rmtree(output.checkpoints)  # the advice
    assert output(*EACH_EPOCH) == 0


def test_a_file_is_brought_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: done.append("renamed") or replace(old, new))
    write_text(tmp_path / "file", "text")
    assert len(done) == 2
    assert done[0].startswith(f"{tmp_path}/file.")
    assert done[1] == "renamed"


def test_what_a_process_that_was_killed_while_writing_has_left_is_deleted(tmp_path):
    names = {"results.json", "model.pth.tar-1.elsewhere-1.tmp", "notes.tmp"}
    for name in (*names, "model.pth.tar-2.elsewhere-1.unfinished"):
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == names


# ---- signals ----


@pytest.mark.parametrize(
    "number, owner, name, moment",
    [
        (signal.SIGINT, TRAINER_REGISTRY, "get", 0),
        (signal.SIGTERM, *MOMENTS[1]),
        (signal.SIGUSR1, *MOMENTS[4]),
    ],
)
def test_a_signal_ends_a_run_at_once_and_the_same_command_goes_on(
    output, trained, monkeypatch, capsys, number, owner, name, moment
):
    before = [signal.signal(each, signal.SIG_DFL) for each in SIGNALS]  # some may be ignored here
    try:
        with monkeypatch.context() as patch:
            dies(patch, owner, name, moment, lambda: os.kill(os.getpid(), number))
            assert output() == REQUEUE == 75
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)
    finally:
        for each, handler in zip(SIGNALS, before):
            signal.signal(each, handler)
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line.startswith(number.name)] == [
        f"{number.name}: ended; the same command resumes from the last epoch's end (exit code 75)"
    ]
    assert not (output.folder / "results.json").exists()
    assert output() == 0
    assert_same_run(trained("CoOp"), output.folder)


def test_a_signal_to_a_whole_process_group_does_not_take_the_workers_from_the_run(
    arguments, tmp_path
):
    """As Slurm and ``timeout`` send it: a worker that ends is an error of the loader's."""
    words = arguments("CoOp", "DATALOADER.NUM_WORKERS", "2")
    code = children.finish(words, tmp_path / "said.txt", children.signal_group_in_step, 4)
    said = (tmp_path / "said.txt").read_text()
    assert code == REQUEUE, said
    assert "Traceback" not in said, said
    assert (tmp_path / f"out/{MODEL_NAME}" / epoch_name(1)).exists()


def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)
