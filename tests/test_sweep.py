"""sweep.py on this machine: a whole grid, a job that fails and is retried, interruption, and what the other commands say of it."""

import os
import signal
import threading
from pathlib import Path

import pytest

from protocols.training import main as train_main
from sweeps import executors
from tests.sweeping import command, figures, folder_of, small_options, wait_until, write_grid


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Two jobs at once with one thread each, whatever this machine has."""
    monkeypatch.setattr(executors, "cores", lambda: 2)
    monkeypatch.setattr(executors, "visible_gpus", list)


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts this process, also where a shell has started the tests in the background, which makes it ignore that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def grid(data_root, small_clip_file, tmp_path_factory):
    """A sweep of two protocols, one seed of which can't run, and its output folder; made once."""
    folder = tmp_path_factory.mktemp("grid")
    output = folder / "output"
    path = write_grid(
        folder / "small.yaml",
        data_root,
        output,
        small_options(small_clip_file),
        shots=[2],
        grids=[
            {"protocols": ["base2new"], "seeds": [1, 2]},
            {"protocols": ["fewshot"], "seeds": [1]},
        ],
    )
    blocked = folder_of(output, seed=2, shots=2)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    return path, output, blocked


def test_a_grid_with_a_job_that_fails_and_is_retried_alone(
    grid, data_root, small_clip_file, tmp_path, one_thread, capfd
):
    path, output, blocked = grid
    assert command("start", path) == 2
    printed = capfd.readouterr().err
    assert (
        "5 runs in 3 jobs, 2 at once" in printed and "5 runs to make; estimate: unknown" in printed
    )
    last = printed.strip().splitlines()[-1]
    assert last.startswith(
        "error: 1 of 3 jobs failed, the first: base2new/train_base/dtd/shots_2/CoOp/tiny/seed2: "
    )
    assert f"{blocked} is a file, it must be a folder" in last and "sweep.py retry small" in last
    log = Path(last.split("(log: ")[1].split(")")[0])
    assert f"error: --output-dir {blocked} is a file" in log.read_text()
    for part in ("base2new/train_base", "base2new/test_new", "fewshot/train_all"):
        assert (folder_of(output, part=part, shots=2) / "results.json").is_file()
    alone = tmp_path / "alone"
    options = [str(word) for pair in small_options(small_clip_file).items() for word in pair]
    assert (
        train_main(
            [
                "--root",
                data_root,
                "--seed",
                "1",
                "--trainer",
                "CoOp",
                "--dataset-config-file",
                "configs/datasets/dtd.yaml",
                "--config-file",
                "configs/trainers/CoOp/tiny.yaml",
                "--output-dir",
                str(alone),
                "DATASET.NUM_SHOTS",
                "2",
                "DATASET.SUBSAMPLE_CLASSES",
                "base",
                *options,
            ]
        )
        == 0
    )
    assert figures(folder_of(output, shots=2)) == figures(alone)

    # the last job of few-shot has drawn its curve, that of base-to-new has failed
    assert (output / "fewshot" / "curve_dtd.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in (output / "sweeps" / "small" / "tables").iterdir()] == [
        "fewshot.txt"
    ]
    assert command("status", "small", "--output", output) == 0
    shown = capfd.readouterr().out
    assert "small: 2 done, 1 failed" in shown and f"seed2: {log}" in shown
    assert command("collect", "small", "--output", output) == 0
    assert "base" in capfd.readouterr().out

    blocked.unlink()
    times = {file: file.stat().st_mtime_ns for file in output.rglob("results.json")}
    assert command("retry", "small", "seed2", "--output", output) == 0
    printed = capfd.readouterr()
    assert "small: 1 done" in printed.err
    assert {file: file.stat().st_mtime_ns for file in times} == times, "no other run is made again"
    assert (blocked / "results.json").is_file() and "± " in printed.out
    assert command("retry", "small", "--output", output) == 2
    assert "none of these 3 jobs failed" in capfd.readouterr().err
    assert command("start", path) == 0
    assert "0 runs to make; estimate: nothing" in capfd.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in times} == times


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_goes_on_to_the_same_figures(
    data_root, small_clip_file, tmp_path, capfd, interruptible
):
    options = small_options(small_clip_file, **{"OPTIM.MAX_EPOCH": 40})
    path = write_grid(tmp_path / "long.yaml", data_root, tmp_path, options)
    trained, log = folder_of(tmp_path), folder_of(tmp_path) / "log.txt"

    def interrupt():
        wait_until(lambda: log.is_file() and "epoch [3/40]" in log.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    assert command("start", path) == 2
    other.join()
    printed = capfd.readouterr().err
    assert "error: interrupted; the same command goes on with what is missing" in printed
    assert not (trained / "results.json").exists() and "epoch [40/40]" not in log.read_text()
    assert command("status", "long", "--output", tmp_path) == 0
    assert "long: 1 stopped" in capfd.readouterr().out
    assert command("start", path) == 0
    assert log.read_text().count("epoch [1/40] batch [1/") == 1, "it began but once"
    write_grid(tmp_path / "whole.yaml", data_root, tmp_path / "other", options)
    assert command("start", tmp_path / "whole.yaml") == 0
    for part in ("base2new/train_base", "base2new/test_new"):
        assert figures(folder_of(tmp_path, part=part)) == figures(
            folder_of(tmp_path / "other", part=part)
        )
