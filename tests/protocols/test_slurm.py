"""run.py --slurm: what sbatch is asked for, and a grid in shards on a real Slurm, one killed, one
warned of its time limit."""

import os
import re
import signal
import subprocess

import psutil
import pytest

import run as protocol_run
from tests.protocols.test_run_processes import wait_until
from tests.runs import call, make_small_options, record_of

EPOCHS = 50


def test_shards_with_missing_runs_are_one_array_with_the_options_given(
    tmp_path, monkeypatch, capsys
):
    """``sbatch`` is a script that keeps what it is given."""
    for name in ("sbatch", "srun"):
        kept = f'#!/bin/sh\ncp "$1" {tmp_path}/kept.sh; echo Submitted batch job 7\n'
        (tmp_path / name).write_text(kept)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "else where")
    words = f"--protocol base2new --trainer CoOp --seeds 1 2 3 --output {tmp_path}/o --shards 2"
    command = [*words.split(), "--slurm", "partition=gpu", "time=90", "gpus=1", "cpus-per-task=8"]
    assert protocol_run.main(command) == 0
    printed = capsys.readouterr().err
    assert "2 of 2 shards submitted as job 7: squeue --me shows them, their logs are in" in printed
    script = (tmp_path / "kept.sh").read_text()
    for option in (*command[-4:], "requeue", "signal=USR1@120", "array=0-1"):
        assert f"\n#SBATCH --{option}" in script
    assert re.search(r"^export PYTHONPATH='.*else where'", script, re.MULTILINE)
    assert "\nexport SUBMITIT_PREEMPT_SIGNAL=USR1\n" in script
    for part in ("train_base", "test_new"):
        for seed in (1, 3):  # the first shard's
            done = tmp_path / f"o/{part}/openmoji/shots_16/CoOp/tiny/seed{seed}"
            done.mkdir(parents=True)
            (done / "results.json").touch()
    assert protocol_run.main(command) == 0
    assert "1 of 2 shards" in capsys.readouterr().err


def answers():
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def queued(job):
    """Whether tasks of a job wait or run."""
    command = ["squeue", "--noheader", "--array", "--format=%i"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return job in {line.split("_")[0] for line in shown.split()}  # an array of one has no number


@pytest.mark.slow
@pytest.mark.skipif(
    not answers(),
    reason='no Slurm answers: bash scripts/install_slurm.sh; eval "$(bash scripts/start_slurm.sh)"',
)
def test_shards_that_are_killed_or_warned_end_with_the_figures_of_one_process(
    data_root, small_clip_file, tmp_path, capfd
):
    def command(output, *more):
        words = (
            "--protocol base2new --trainer CoOp --dataset dtd --config tiny --shots 4 "
            f"--seeds 1 2 3 --root {data_root} --output {tmp_path / output}"
        )
        options = make_small_options(small_clip_file, EPOCHS)
        code = call(protocol_run.main, *words.split(), *more, "--", *options)
        printed = capfd.readouterr().err
        assert code == 0, printed
        return printed

    def submit(shards):
        printed = command("cluster", *"--slurm cpus-per-task=1 time=30 --shards 3".split())
        return re.search(rf"{shards} of 3 shards submitted as job (\d+):", printed)[1]

    def folder(seed, output="cluster", part="train_base"):
        return tmp_path / f"{output}/{part}/dtd/shots_4/CoOp/tiny/seed{seed}"

    def log(seed):
        path = folder(seed) / "log.txt"
        return path.read_text() if path.is_file() else ""

    job = submit(3)
    wait_until(lambda: f"epoch [3/{EPOCHS}]" in log(1))
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if "submitit.core._submit" in words and f"{tmp_path}/cluster/slurm" in words:
            if process.environ().get("SLURM_ARRAY_TASK_ID") == "0" and "srun" not in words:
                process.send_signal(signal.SIGKILL)
    wait_until(lambda: f"epoch [3/{EPOCHS}]" in log(2))
    subprocess.run(["scancel", "--signal=USR1", f"{job}_1"], check=True)
    wait_until(lambda: not queued(job))
    assert log(2).count("Resuming from") == 1, "it wrote a checkpoint and was queued again"
    assert not (folder(1) / "results.json").exists()

    job = submit(1)
    wait_until(lambda: not queued(job))
    command("local")
    for seed in (1, 2, 3):
        for part in ("train_base", "test_new"):
            first = record_of(folder(seed, "cluster", part))
            second = record_of(folder(seed, "local", part))
            assert first["prompts_hash"] == second["prompts_hash"]
            assert first["metrics"] == second["metrics"]
