"""Locks on folders: of several processes on one folder one works, the others wait or fail."""

import multiprocessing
import threading

import pytest

from tests.runs import PATIENCE, refuses
from trainers.common import locks
from trainers.common.locks import LOCK_FILE, only_writer, turn

FORK = multiprocessing.get_context("fork")


def hold(folder, held, until):
    with only_writer(folder):
        held.set()
        until.wait(PATIENCE)


@pytest.fixture
def holder(tmp_path):
    """A process that writes to the folder until ``holder.until`` is set."""
    held, until = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(f"{tmp_path}/run", held, until))
    process.start()
    assert held.wait(PATIENCE)
    process.until = until
    yield process
    if process.is_alive():  # one that was killed would never say that it has been woken
        until.set()
    process.join()


def test_a_folder_that_another_process_writes_to_is_refused_and_free_after_its_end(
    holder, tmp_path, monkeypatch
):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with refuses("is being written to by another process: wait for that"):
        with only_writer(f"{tmp_path}/run"):
            pass
    holder.kill()  # however it ends
    holder.join()
    with only_writer(f"{tmp_path}/run"):
        assert (tmp_path / f"run/{LOCK_FILE}").exists()
    assert not (tmp_path / f"run/{LOCK_FILE}").exists()


def test_whose_turn_it_is_not_waits(holder, tmp_path, caplog):
    threading.Timer(1.5, holder.until.set).start()
    with caplog.at_level("INFO"), turn("a file is made", f"{tmp_path}/run") as is_locked:
        assert is_locked
        assert holder.until.is_set()
    assert "Waiting for another process: a file is made" in caplog.text


def test_a_folder_that_can_not_be_written_to_is_not_locked(tmp_path):
    (tmp_path / "file").touch()
    with turn("work", f"{tmp_path}/file/below") as is_locked:
        assert not is_locked
    with refuses("can't be written to"):
        with only_writer(f"{tmp_path}/file/below"):
            pass
