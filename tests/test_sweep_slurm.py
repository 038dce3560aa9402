"""sweep.py on a real Slurm: the same runs as on this machine, also after a job was killed, warned of its time limit, or cancelled."""

import json
import os
import signal
import subprocess
import threading

import pytest

from sweeps import executors
from tests.sweeping import command, figures, folder_of, small_options, wait_until, write_grid

EPOCHS = 50


def answers():
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


pytestmark = pytest.mark.skipif(
    not answers(),
    reason='no Slurm answers: bash scripts/install_slurm.sh; eval "$(bash scripts/start_slurm.sh)"',
)


@pytest.fixture
def grid(data_root, small_clip_file, tmp_path, monkeypatch):
    """Writes the sweep ``NAME``, whose runs go to a folder of that name; gives its file and folder. Looks are quick."""
    monkeypatch.setattr(executors.Slurm, "interval", 0.5)
    options = small_options(
        small_clip_file, **{"OPTIM.MAX_EPOCH": EPOCHS, "TRAIN.CHECKPOINT_FREQ": 1}
    )

    def write(name, **settings):
        own = {**options, **settings.pop("options", {})}
        return write_grid(
            tmp_path / f"{name}.yaml", data_root, tmp_path / name, own, **settings
        ), tmp_path / name

    return write


def trained_to(folder, epoch):
    log = folder / "log.txt"
    return log.is_file() and f"epoch [{epoch}/{EPOCHS}]" in log.read_text()


@pytest.mark.slow
def test_jobs_of_an_array_that_are_killed_or_warned_end_with_the_figures_of_a_local_run(
    grid, monkeypatch, capfd
):
    local, here = grid("local", seeds=[1, 2, 3])
    file, output = grid("cluster", seeds=[1, 2, 3])
    monkeypatch.setattr(executors, "cores", lambda: 2)
    assert command("start", local) == 0
    jobs = output / "sweeps" / "cluster" / "jobs"

    def disturb():
        killed, warned = (folder_of(output, seed) for seed in (1, 2))
        wait_until(lambda: trained_to(killed, 3))
        os.kill(
            json.loads((jobs / killed.relative_to(output) / "outcome.json").read_text())["pid"],
            signal.SIGKILL,
        )
        wait_until(lambda: trained_to(warned, 3))
        job = json.loads((jobs / warned.relative_to(output) / "submission.json").read_text())["job"]
        subprocess.run(["scancel", "--signal=USR1", job], check=True)

    other = threading.Thread(target=disturb)
    other.start()
    assert (
        command("start", file, "--executor", "slurm", "--cpus", "1", "--time", "30", "--jobs", "2")
        == 2
    )
    other.join()
    printed = capfd.readouterr().err
    assert (
        "error: 1 of 3 jobs failed, the first: base2new/train_base/dtd/shots_4/CoOp/tiny/seed1: its job ended without a word"
        in printed
    )
    assert "cluster: 2 done, 1 failed" in printed
    assert folder_of(output, 2).joinpath("log.txt").read_text().count("Resuming from") == 1, (
        "it was warned, wrote a checkpoint, and was queued again"
    )

    assert command("retry", "cluster", "--output", output) == 0
    for seed in (1, 2, 3):
        for part in ("base2new/train_base", "base2new/test_new"):
            assert figures(folder_of(output, seed, part)) == figures(folder_of(here, seed, part))
    assert "Resuming from" in folder_of(output, 1).joinpath("log.txt").read_text()
    assert "Resuming from" not in folder_of(output, 3).joinpath("log.txt").read_text()


def test_cancelled_jobs_write_a_checkpoint_and_leave_the_queue(grid, capfd):
    file, output = grid(
        "long", options={"OPTIM.MAX_EPOCH": 100000, "TRAIN.CHECKPOINT_FREQ": 0}, seeds=[1, 2]
    )

    def cancel():
        wait_until(
            lambda: (
                (folder_of(output) / "log.txt").is_file()
                and "epoch [3/" in (folder_of(output) / "log.txt").read_text()
            )
        )
        assert command("cancel", "long", "--output", output) == 0

    other = threading.Thread(target=cancel)
    other.start()
    assert command("start", file, "--executor", "slurm", "--jobs", "1", "--cpus", "1") == 2
    other.join()
    printed = capfd.readouterr().err
    assert "long: 2 jobs cancelled" in printed and "long: 2 cancelled" in printed
    assert (
        "sweep-long"
        not in subprocess.run(
            ["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert (
        list((folder_of(output) / "prompt_learner").glob("model-step.pth.tar-*"))
        and not folder_of(output, 2).exists()
    )
