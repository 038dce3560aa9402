"""Two processes on the same folder: one works, the other waits or names it; the lock of a killed process is taken over."""

import json
import logging
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from filelock import FileLock

from datasets.drawn import openmoji
from protocols.training import main
from tests import children
from tests.conftest import base_arguments
from trainers.common import locks
from trainers.common.errors import UserError
from trainers.common.interruption import Interrupted, noticed
from trainers.common.locks import FILE_NAME, only_writer, turn


def hold(folder, ready, seconds):
    """In a child: holds the lock of a folder, with a child of its own, as a loader's worker is."""
    with only_writer(folder):
        if os.fork() == 0:
            time.sleep(seconds)
            os._exit(0)
        Path(ready).touch()
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path / "out"``."""
    process = children.PROCESSES.Process(
        target=hold, args=(str(tmp_path / "out"), str(tmp_path / "ready"), 60)
    )
    process.start()
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.02)
    yield process
    process.kill()
    process.join()


def test_a_second_run_on_the_same_folder_says_who_is_there_and_changes_nothing(
    holder, tmp_path, data_root, small_clip_file, monkeypatch, capsys
):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    assert main(base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(
        f"error: {tmp_path}/out is being written to by process {holder.pid} on {socket.gethostname()}, since 2"
    )
    assert error.endswith("wait for that run, end it, or give another --output-dir")
    assert os.listdir(tmp_path / "out") == [FILE_NAME]


def test_the_lock_of_a_killed_process_is_taken_over_at_once_whatever_it_left_running(
    holder, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(locks, "PATIENCE", 1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / "out" / FILE_NAME).exists()
    with caplog.at_level(logging.INFO), only_writer(str(tmp_path / "out")):
        assert json.loads((tmp_path / "out" / FILE_NAME).read_text())["pid"] == os.getpid()
    assert (
        f"A lock was left by process {holder.pid} on " in caplog.text
        and "which was killed: taking it over" in caplog.text
    )
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    "content, named",
    [
        (
            json.dumps({"pid": 7, "host": "node3", "since": "2026-01-02 03:04:05"}),
            "process 7 on node3, since 2026-01-02 03:04:05",
        ),
        ("", "another process"),
        ("[1, 2]", "another process"),
        ('{"pid": 7}', "another process"),
        ("\xff", "another process"),
    ],
)
def test_a_lock_of_another_machine_says_what_to_do_if_that_is_gone(
    tmp_path, monkeypatch, content, named
):
    monkeypatch.setattr(locks, "PATIENCE", 0)
    with FileLock(tmp_path / FILE_NAME):
        (tmp_path / FILE_NAME).write_text(content)
        with pytest.raises(UserError) as refused:
            with only_writer(str(tmp_path)):
                pass
    assert f"is being written to by {named}: " in str(refused.value)
    assert (f"if that machine is no more, delete {tmp_path}/.lock" in str(refused.value)) == (
        "node3" in content
    )


def test_a_folder_that_can_not_be_made_is_named(tmp_path, data_root, small_clip_file, capsys):
    (tmp_path / "file").touch()
    assert main(base_arguments("CoOp", data_root, small_clip_file, tmp_path / "file" / "out")) == 2
    assert (
        f"error: {tmp_path}/file/out can't be written to (Not a directory): give another --output-dir"
        in capsys.readouterr().err
    )


def test_where_the_file_system_has_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def no_locks(self, **keywords):
        raise OSError(locks.errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with only_writer(str(tmp_path)):
        pass
    with turn("something is made", str(tmp_path)) as is_alone:
        assert not is_alone
    assert "lies on a file system without locks" in caplog.text


def test_who_waits_for_a_turn_goes_on_when_it_is_free_or_where_there_is_another_place(
    holder, tmp_path, caplog
):
    with turn("it is made", "/dev/null/none", str(tmp_path / "other")) as is_alone:
        assert is_alone and (tmp_path / "other" / FILE_NAME).exists()
    with turn("it is made", "/dev/null/none") as is_alone:
        assert not is_alone
    with caplog.at_level(logging.INFO), noticed():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match=f"waiting for process {holder.pid} on"):
            with turn("it is made", str(tmp_path / "out")):
                pass


def render_slowly(folder, codes, log):
    draw = openmoji.draw_emoji

    def drawn(code, size):
        with open(log, "a") as file:
            file.write(f"{code}\n")
        time.sleep(0.02)
        return draw(code, size)

    openmoji.draw_emoji = drawn
    openmoji.render(folder, codes)


def test_of_processes_that_start_together_one_draws_and_the_others_take_its_pictures(tmp_path):
    codes = [code for code, _, _ in json.loads(Path(openmoji.SPLIT).read_text())["train"][:20]]
    (tmp_path / ".drawing-left" / "new").mkdir(parents=True)  # by a process that was killed
    processes = [
        children.PROCESSES.Process(
            target=render_slowly, args=(str(tmp_path / "images"), codes, str(tmp_path / "log"))
        )
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(codes), "each is drawn once"
    assert (
        sorted(os.listdir(tmp_path)) == ["images", "log"]
        and len(os.listdir(tmp_path / "images")) == 21
    )
