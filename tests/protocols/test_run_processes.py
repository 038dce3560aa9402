"""run.py with real processes: side by side, asked to stop, killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

import run as protocol_run
from tests.runs import PATIENCE, REPOSITORY, call, make_small_options, python, wait_until
from trainers.engine.checkpoint import newest


def command(data_root, output, *more):
    """Starts run.py on the miniature in a process group of its own; its trainings are too long to
    end."""
    words = (
        f"run.py --protocol base2new --trainer CoOp --dataset dtd --config tiny --shots 4 "
        f"--root {data_root} --output {output} {' '.join(more)} "
        "-- OPTIM.MAX_EPOCH 100000 DATALOADER.TRAIN_X.BATCH_SIZE 8 TRAIN.CHECKPOINT_FREQ 1"
    )
    return subprocess.Popen(
        [sys.executable, *words.split()],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not as in the background
    )


@pytest.mark.slow
def test_real_runs_side_by_side_from_any_folder_and_why_one_fails(
    data_root, small_clip_file, tmp_path, monkeypatch, capfd
):
    def start(root, *trainers):
        words = (
            f"--protocol zeroshot --config tiny --dataset dtd --root {root} --output o --trainer"
        )
        options = make_small_options(small_clip_file, 2)
        jobs = "--jobs", len(trainers)
        code = call(protocol_run.main, *words.split(), *trainers, *jobs, "--", *options)
        return code, capfd.readouterr()

    monkeypatch.chdir(tmp_path)
    code, printed = start("no", "ZeroshotCLIP")
    assert code == 2
    assert f"error: data folder {tmp_path}/no/dtd is missing" in printed.err
    assert "failed (exit code 2); the lines above say why" in printed.err.splitlines()[-1]
    code, printed = start(data_root, "ZeroshotCLIP", "ZeroshotCLIP2")
    assert code == 0, printed.err
    assert "ZeroshotCLIP" in printed.out
    assert "=> result" not in printed.out + printed.err
    logs = [*tmp_path.glob("o/*/dtd/*/ZeroshotCLIP*/tiny/seed1/log.txt")]
    assert len(logs) == 2
    assert all("=> result" in log.read_text() for log in logs)


def writers_of(path):
    """Ids of the processes that have a file open."""
    return {
        process.pid
        for process in psutil.process_iter(["open_files"])  # None: not ours to look at
        if str(path) in (opened.path for opened in process.info["open_files"] or ())
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "send, number, seeds",
    [(os.killpg, signal.SIGUSR1, [1]), (os.kill, signal.SIGINT, [1, 2])],
)
def test_a_command_that_is_asked_to_stop_ends_its_runs(data_root, tmp_path, send, number, seeds):
    """A signal that goes to all processes, as Slurm sends it, or to this one alone."""
    runs = [tmp_path / f"train_base/dtd/shots_4/CoOp/tiny/seed{seed}" for seed in seeds]
    process = command(data_root, tmp_path, "--jobs", "2", "--seeds", *map(str, seeds))
    try:
        wait_until(lambda: all(newest(f"{folder}/prompt_learner") for folder in runs))
        send(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75
    assert f"{number.name}: ended; the same command resumes from the last epoch's end" in errors
    for folder in runs:
        assert not writers_of(folder / "log.txt"), "no run is left behind"
        assert newest(f"{folder}/prompt_learner")


def test_a_killed_command_leaves_no_run_behind_that_would_write_beside_the_next_one(
    data_root, tmp_path
):
    log = tmp_path / "train_base/dtd/shots_4/CoOp/tiny/seed1/log.txt"
    process = command(data_root, tmp_path, "--seeds", "1")
    try:
        wait_until(lambda: writers_of(log))
        assert process.pid not in writers_of(log)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: not writers_of(log))


AT_IMPORT = """
import os, runpy, signal, sys, time

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            {action}

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
sys.meta_path.insert(0, Finder())
sys.argv = ["train.py", *{words!r}]
runpy.run_path("train.py", run_name="__main__")
"""


def train_with(action, module, words):
    """A command's process in which something is done when it imports a module; nothing is on its
    standard input."""
    program = AT_IMPORT.format(action=action, module=module, words=words)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_signal_while_a_training_starts_is_a_line_and_exit_code_75(arguments):
    action = f"os.kill(os.getpid(), {int(signal.SIGTERM)})"
    done = train_with(action, "protocols.command_line", arguments("CoOp"))
    assert done.returncode == 75
    (line,) = done.stderr.splitlines()
    assert line.startswith("SIGTERM: ended; the same command resumes")


def test_ctrl_c_while_a_command_has_only_begun_to_import_is_no_traceback(arguments):
    action = f"os.kill(os.getpid(), {int(signal.SIGINT)})"
    done = train_with(action, "trainers.common.errors", arguments("CoOp"))
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_a_training_whose_command_was_killed_ends_while_it_still_imports(arguments):
    """Before torch is there, which takes seconds: an import that doesn't end by itself."""
    action = "time.sleep(30); os._exit(3)"
    done = train_with(action, "torch", ["--with-parent", *arguments("CoOp")])
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_plan_needs_no_torch():
    """Nor the device that it names."""
    words = (
        "--protocol xd dg --trainer CoOp CDC ZeroshotCLIP --dataset imagenet --device cuda:7 --plan"
    )
    code = f"import sys, run; sys.exit(run.main({words.split()}) or 'torch' in sys.modules)"
    assert python("-c", code).returncode == 0
