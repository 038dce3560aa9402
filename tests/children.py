"""Runs in processes of their own, to be killed, signalled or left without room: forked off one that
has imported torch."""

import multiprocessing
import os
import signal
import sys
import time
from itertools import count
from pathlib import Path
from unittest.mock import patch

import torch

import train
from protocols import training
from tests.runs import PATIENCE, REPOSITORY
from trainers.common import files
from trainers.common.interruption import SIGNALS
from trainers.data.loader import CheckedImages
from trainers.engine import fit as loop
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator
from trainers.method import Method

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train", "tests.children", "tests.limits"])
PIECES = 4  # in which a child that is to be killed writes a file


def start(arguments, output, prepare=None, *more):
    """The process of ``train.main(arguments)``, after ``prepare(*more)``; its standard error goes
    to the file ``output``."""
    process = PROCESSES.Process(target=make, args=(arguments, str(output), prepare, more))
    # where the server, which the first process starts, finds the tests; left set, it would be where
    # pip finds this toolbox "already installed" in the empty environments of other tests
    with patch.dict(os.environ, PYTHONPATH=str(REPOSITORY)):
        process.start()
    return process


def make(arguments, output, prepare, more):
    for path, number in ((os.devnull, 1), (output, 2)):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
    for number in SIGNALS:  # which a server that run.py has started ignores
        signal.signal(number, signal.SIG_DFL)
    training.collect_env_info = lambda: "left out in tests"
    if prepare:
        prepare(*more)
    sys.exit(train.main(arguments))


def finish(*arguments, **keywords):
    """Exit code of such a process."""
    process = start(*arguments, **keywords)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def errors(output):
    """Lines of error in such a process's standard error."""
    return [line for line in output.read_text().splitlines() if line.startswith("error: ")]


# ---- what a child does before it runs ----


def die_at(moment):
    """Kills this process at the given moment of a run."""
    passed = count()

    def die():
        if next(passed) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_moment(die)


def keep_count(file):
    """Keeps in a file how many moments of a run have passed."""
    passed = count(1)
    at_each_moment(lambda: Path(file).write_text(str(next(passed))))


def at_each_moment(do):
    """Calls a function before each of a run's images, steps, answers, pieces of files, renames and
    fsyncs."""
    own = os.getpid()

    def counted(function):
        def call(*arguments, **keywords):
            if os.getpid() == own:  # and not a worker
                do()
            return function(*arguments, **keywords)

        return call

    def in_pieces(path, write):
        def slowly(temporary):
            write(temporary)
            with open(temporary, "rb") as file:
                content = file.read()
            size = -(-len(content) // PIECES)
            with open(temporary, "wb", buffering=0) as file:
                for begin in range(0, len(content), size):
                    counted(file.write)(content[begin : begin + size])

        whole(path, slowly)

    whole = files.write_atomically
    for module in list(sys.modules.values()):
        if getattr(module, "write_atomically", None) is whole:
            module.write_atomically = in_pieces
    for owner, name in (
        (os, "replace"),
        (os, "fsync"),
        (os, "remove"),
        (CheckedImages, "__getitem__"),
        (loop, "training_step"),
        (Run, "after_epoch"),
        (Method, "answer"),
        (Run, "test"),
        (torch.optim.SGD, "step"),
        (Run, "resume"),
        (Evaluator, "write_record"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))


def signal_group_in_step(number):
    """Sends SIGTERM to this process and its workers in a training step, counted from 0."""
    os.setpgrp()
    step, done = loop.training_step, []

    def signalled(*given):
        if len(done) == number:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.3)  # in which a worker could end
        done.append(given)
        return step(*given)

    loop.training_step = signalled


def die_with_workers(file):
    """Kills this process in its first step, when it has written its workers' numbers to the file; these
    look after it every 0.2 seconds, not every five."""
    torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL = 0.2

    def killed(*_):
        with open(file, "w") as numbers:
            numbers.write(" ".join(str(worker.pid) for worker in multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGKILL)

    loop.training_step = killed
