"""Runs that are killed with SIGKILL at random moments end, after the same command, as if they had
not been."""

import random

import psutil

from tests import children
from tests.conftest import slow_but_for
from tests.runs import wait_until
from tests.same_run import assert_same_run

SEED = 20261125
OPTIONS = ("OPTIM.MAX_EPOCH", "4")
MOST_LIVES = 50  # of a run that gets on


RUNS = {
    "CDC-workers": "DATALOADER.NUM_WORKERS 2 TRAINER.CDC.PROMPT_MODALITY text",
    "PromptSRC": "TRAINER.PROMPTSRC.PREC amp",
    "ProGrad": "TEST.FINAL_MODEL best_val TRAIN.CHECKPOINT_FREQ 1",
}


@slow_but_for(("CDC-workers",), RUNS, "run")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(arguments, tmp_path, run):
    trainer = run.partition("-")[0]
    seed = SEED + list(RUNS).index(run)
    draw = random.Random(seed)

    def finish(name, *prepare):
        words = arguments(trainer, *OPTIONS, *RUNS[run].split(), folder=tmp_path / name)
        return children.finish(words, tmp_path / f"{name}.txt", *prepare)

    assert finish("whole", children.keep_count, tmp_path / "moments") == 0
    whole = int((tmp_path / "moments").read_text())
    moments, code = [], -9
    while code == -9 and len(moments) < MOST_LIVES:
        moments.append(draw.randint(1, whole // 2))
        code = finish("killed", children.die_at, moments[-1])
    assert len(moments) > 2
    assert code == 0, (seed, moments, (tmp_path / "killed.txt").read_text()[-2000:])
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    left = {path.suffix for path in (tmp_path / "killed").rglob("*")}
    assert not left & {".tmp", ".lock"}


def test_workers_of_a_run_that_is_killed_end_with_it(arguments, tmp_path):
    words = arguments("CoOp", "DATALOADER.NUM_WORKERS", "2")
    prepare = children.die_with_workers, tmp_path / "workers"
    assert children.finish(words, tmp_path / "said", *prepare) == -9
    workers = [int(number) for number in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    wait_until(lambda: not any(map(is_running, workers)))


def is_running(number):
    """Whether a process runs: one that has ended stays in the list until its parent, who may be
    late, has asked for its exit code."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
