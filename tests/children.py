"""Runs in processes of their own, to be killed, signalled or left without room: forked off one that has imported torch."""

import multiprocessing
import os
import signal
import sys
import time
from importlib import import_module

import torch

from protocols import training as train
from tests.runs import REPOSITORY
from trainers.common.interruption import SIGNALS
from trainers.trainer import MethodTrainer

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train", "tests.children"])


def make(arguments, output, prepare, more):
    for path, number in ((os.devnull, 1), (output, 2)):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
    for number in SIGNALS:  # which a server that run.py has started ignores
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)
    train.collect_env_info = lambda: "left out in tests"
    if prepare:
        prepare(*more)
    sys.exit(train.main(arguments))


def finish(arguments, output, prepare=None, *more):
    """Exit code of a process of ``protocols.training.main(arguments)``, after ``prepare(*more)``; its standard error goes to the file ``output``."""
    os.environ["PYTHONPATH"] = str(REPOSITORY)  # where the process that is forked finds the tests
    process = PROCESSES.Process(target=make, args=(arguments, str(output), prepare, more))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def errors(output):
    """Lines of error in such a process's standard error."""
    return [line for line in output.read_text().splitlines() if line.startswith("error: ")]


# ---- what a child does before it runs ----


def die(owner, name, moment):
    """Kills this process when ``owner.name`` is called for the ``moment``-th time, from 0; owner: a class, or a module's name."""
    owner = import_module(owner) if isinstance(owner, str) else owner
    function, calls = getattr(owner, name), []

    def dying(*arguments, **keywords):
        calls.append(name)
        if len(calls) > moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)

    setattr(owner, name, dying)


def signal_group_in_step(number):
    """Sends SIGTERM to this process and its workers in a training step, counted from 0."""
    os.setpgrp()
    step, done = MethodTrainer.forward_backward, []

    def signalled(self, batch):
        if len(done) == number:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.3)  # in which a worker could end
        done.append(batch)
        return step(self, batch)

    MethodTrainer.forward_backward = signalled


def die_with_workers(file):
    """Kills this process in its first step, when it has written its workers' numbers to the file."""

    def killed(self, batch):
        with open(file, "w") as numbers:
            numbers.write(" ".join(str(worker.pid) for worker in multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGKILL)

    MethodTrainer.forward_backward = killed
