"""What goes wrong with checkpoints, and what a run makes of it: files that are cut or changed, a disk that is full, a signal to stop."""

import errno
import os
import signal

import pytest
import torch

from protocols.training import main
from tests import children
from tests.conftest import base_arguments
from tests.same_run import assert_same_run
from trainers.base import PromptTrainer
from trainers.cdc import CDC
from trainers.common import files, interruption
from trainers.common.files import remove_leftovers, temporary_name, write_text
from trainers.common.interruption import REQUEUE
from trainers.engine.checkpoint import BEST, MODEL_NAME, POINTER, epoch_name, resumable, step_name

EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")


@pytest.fixture
def output(data_root, small_clip_file, tmp_path):
    """Runs train.py on CoOp: ``output(*options)`` → exit code; the folder is ``output.folder``."""

    def start(*options):
        return main([*base_arguments("CoOp", data_root, small_clip_file, start.folder), *options])

    start.folder = tmp_path / "out"
    start.checkpoints = start.folder / MODEL_NAME
    return start


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def change_a_bit(path):
    """Of a number in the middle of the file, where torch doesn't notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, change_a_bit, os.remove])
def test_from_a_damaged_checkpoint_a_run_goes_back_to_the_one_before_and_says_so(
    run, trained, stopped, damage
):
    whole = trained("CDC", *EACH_EPOCH)[1]
    folder = stopped(whole, epoch=3)
    damage(folder / MODEL_NAME / epoch_name(3))
    trainer, _, _ = run("CDC", *EACH_EPOCH)
    assert trainer.start_epoch == 2
    said = (folder / "log.txt").read_text()
    assert (
        "model.pth.tar-3 can't be read" in said or "names no checkpoint ('model.pth.tar-3')" in said
    )
    assert_same_run(whole, folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "model.pth.tar-99\n",
        "../../elsewhere\n",
        "\x00\xff nonsense",
        "model-best.pth.tar-\n",
    ],
)
def test_a_pointer_that_names_no_checkpoint_is_survived(run, trained, stopped, content):
    whole, folder = trained("CoOp", *EACH_EPOCH)
    folder = stopped(folder, epoch=3)
    (folder / MODEL_NAME / POINTER).write_text(content)
    trainer, _, _ = run("CoOp", *EACH_EPOCH)
    assert trainer.start_epoch == 3 and torch.equal(
        trainer.model.learner.ctx, whole.model.learner.ctx
    )
    assert "names no checkpoint" in (folder / "log.txt").read_text()


def test_without_any_checkpoint_that_can_be_read_the_line_says_what_to_do(
    output, trained, stopped, capsys
):
    stopped(trained("CoOp")[1], epoch=3)
    cut(output.checkpoints / epoch_name(3))
    assert output() == 2
    assert "error: none of the checkpoints in" in capsys.readouterr().err
    (output.checkpoints / POINTER).unlink()
    assert output() == 0, "without the pointer it is started over"


def test_the_file_that_is_named_comes_first_then_the_older_ones(tmp_path):
    for name in (
        epoch_name(2),
        epoch_name(10),
        step_name(2, 7),
        step_name(2, 30),
        step_name(11, 1),
        BEST,
        "other",
    ):
        (tmp_path / name).touch()
    assert resumable(tmp_path) == [], "deleting the pointer is starting over"
    write_text(str(tmp_path / POINTER), step_name(2, 30) + "\n")
    assert resumable(tmp_path) == [step_name(2, 30), step_name(2, 7), epoch_name(2)]
    write_text(str(tmp_path / POINTER), "nothing\n")
    assert resumable(tmp_path) == [
        step_name(11, 1),
        epoch_name(10),
        step_name(2, 30),
        step_name(2, 7),
        epoch_name(2),
    ]


# ---- a full disk ----


def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_where_a_checkpoint_has_no_room_the_old_one_stays_and_the_same_command_goes_on(
    output, trained, monkeypatch, capsys
):
    whole = trained("CoOp", *EACH_EPOCH)[1]
    after_epoch = PromptTrainer.after_epoch

    def fill_up(self):
        if self.epoch == 1:
            monkeypatch.setattr(files.os, "fsync", full)
        after_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "after_epoch", fill_up)
        assert output(*EACH_EPOCH) == 2
    assert (
        f"error: checkpoint {output.checkpoints}/model.pth.tar-2 can't be written (No space left on device): make room there, and the same "
        "command goes on from model.pth.tar-1\n"
    ) in capsys.readouterr().err
    assert sorted(path.name for path in output.checkpoints.iterdir()) == [
        "checkpoint",
        "model.pth.tar-1",
    ]
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    assert output(*EACH_EPOCH) == 0
    assert_same_run(whole, output.folder)


def test_where_the_kernel_takes_no_more_a_line_says_so_and_the_same_command_works_later(
    output, trained, data_root, small_clip_file, tmp_path
):
    """Of a real file of a real process. The log's: ``test_a_disk_that_is_full_for_the_log_ends_the_run_with_one_line``."""
    _, whole = trained("CoOp", *EACH_EPOCH)
    size = (whole / MODEL_NAME / epoch_name(1)).stat().st_size
    arguments = [*base_arguments("CoOp", data_root, small_clip_file, output.folder), *EACH_EPOCH]
    assert children.finish(arguments, tmp_path / "said", children.allow_bytes, size - 1) == 2
    line = f"error: checkpoint {output.checkpoints}/model.pth.tar-1 can't be written (File too large): make room there"
    assert line in (tmp_path / "said").read_text()
    assert output(*EACH_EPOCH) == 0
    assert_same_run(whole, output.folder)


def test_a_file_is_brought_to_the_disk_before_it_gets_its_name_and_the_name_after(
    tmp_path, monkeypatch
):
    done, replace = [], os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: done.append("renamed") or replace(old, new))
    write_text(str(tmp_path / "file"), "text")
    assert done == [temporary_name(str(tmp_path / "file"), os.getpid()), "renamed", str(tmp_path)]


def test_temporary_files_of_processes_that_are_no_more_are_deleted(tmp_path):
    dead = children.PROCESSES.Process()
    dead.start()
    dead.join()
    names = [
        temporary_name("model.pth.tar-1", pid) for pid in (dead.pid, os.getpid(), os.getppid())
    ]
    others = ["results.json", "model.pth.tar-1.elsewhere-1.tmp", "notes.tmp"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], *others])


# ---- signals ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_a_run_behind_its_step_and_the_same_command_goes_on(
    output, trained, monkeypatch, capsys, number
):
    whole = trained("CoOp")[1]
    step = PromptTrainer.forward_backward
    monkeypatch.setattr(
        interruption, "LEFT_IGNORED", ()
    )  # in the background a shell has the tests ignore Ctrl-C
    before = [signal.getsignal(each) for each in interruption.SIGNALS]

    def signalled(self, batch):
        if (self.epoch, self.batch_idx) == (1, 1):
            os.kill(os.getpid(), number)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "forward_backward", signalled)
        assert output() == REQUEUE == 75
    line = f"{number.name}: checkpoint model-step.pth.tar-1-2 written to {output.checkpoints}; the same command goes on from here"
    assert line in capsys.readouterr().err and line in (output.folder / "log.txt").read_text()
    assert not (output.folder / "results.json").exists()
    assert [signal.getsignal(each) for each in interruption.SIGNALS] == before, (
        "the handlers are the old ones again"
    )
    assert output() == 0
    assert_same_run(whole, output.folder)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_signal_while_images_are_tested_stops_the_run_too(
    output, trained, monkeypatch, capsys, is_training
):
    options = ("TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "2")
    whole = trained("CoOp", *options)[1]
    answer = PromptTrainer.answer

    def signalled(self, images, encoded):
        if self.is_training == is_training:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, images, encoded)

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "answer", signalled)
        assert output(*options) == REQUEUE
    said = capsys.readouterr().err
    assert (
        "checkpoint model-step.pth.tar-0-3 written" if is_training else "nothing to save"
    ) in said
    assert output(*options) == 0
    assert_same_run(whole, output.folder)


@pytest.mark.parametrize("place", ["build_model", "before_train"])
def test_before_the_first_step_a_signal_is_answered_at_once(output, monkeypatch, capsys, place):
    original, reached = getattr(PromptTrainer, place), []

    def signalled(self):
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(place)
        original(self)

    monkeypatch.setattr(PromptTrainer, place, signalled)
    assert output() == REQUEUE and not reached
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "SIGTERM: nothing to save; the same command goes on from here (exit code 75)"
    )


def test_a_second_ctrl_c_ends_at_once(data_root, small_clip_file, tmp_path):
    arguments = base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out")
    assert (
        children.finish(arguments, tmp_path / "said.txt", children.interrupt_twice_in_a_step)
        == -signal.SIGINT
    )
    assert "Traceback" not in (tmp_path / "said.txt").read_text()


def test_what_ignores_a_signal_from_its_start_goes_on_to_ignore_it():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.noticed():
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.asked_by() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_leaves_a_checkpoint(data_root, small_clip_file, tmp_path):
    """What is written to it would be an error from then on."""
    terminal, other_end = os.openpty()
    arguments = [
        *base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out"),
        "OPTIM.MAX_EPOCH",
        "100000",
    ]
    process = children.start(arguments, os.devnull, children.take_terminal, os.ttyname(other_end))
    said = b""
    while b"epoch [2/" not in said:
        said += os.read(terminal, 1024)
    os.close(other_end)
    os.close(terminal)
    process.join(60)
    assert process.exitcode == REQUEUE
    assert "SIGHUP: checkpoint model-step" in (tmp_path / "out" / "log.txt").read_text()


def test_outside_the_command_nothing_is_done_with_signals():
    assert interruption.asked_by() is None
    with interruption.noticed():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.asked_by() == "SIGUSR1"
    with interruption.noticed():
        assert interruption.asked_by() is None, "each run has its own"


def test_a_signal_to_a_whole_process_group_does_not_take_the_workers_from_the_run(
    data_root, small_clip_file, tmp_path
):
    """As Slurm and ``timeout`` send it: a worker that ends is an error of the loader's."""
    arguments = [
        *base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out"),
        "DATALOADER.NUM_WORKERS",
        "2",
    ]
    assert (
        children.finish(arguments, tmp_path / "said.txt", children.signal_group_in_step, 4)
        == REQUEUE
    ), (tmp_path / "said.txt").read_text()
    assert (tmp_path / "out" / MODEL_NAME / step_name(1, 2)).exists()


def test_a_checkpoint_is_due_by_steps_and_by_minutes(run, monkeypatch):
    trainer, _, _ = run("CoOp", flags=("--no-train",))
    trainer.epoch, trainer.num_batches, trainer.saved_at = 1, 3, 0.0

    def is_due(batch, steps, minutes, ago):
        trainer.cfg = trainer.cfg.clone()
        trainer.cfg.defrost()
        trainer.cfg.TRAIN.CHECKPOINT_STEPS, trainer.cfg.TRAIN.CHECKPOINT_MINUTES = steps, minutes
        trainer.train_loader_x.batches_done = batch
        monkeypatch.setattr(
            "trainers.engine.checkpoint.time.monotonic", lambda: trainer.saved_at + ago
        )
        return trainer.is_due()

    assert [is_due(batch, 2, 0, 1e9) for batch in (1, 2, 3)] == [True, False, True]
    assert [is_due(1, 0, 10, seconds) for seconds in (0, 599, 600)] == [False, False, True]
    assert not is_due(1, 0, 0, 1e9)


def test_a_checkpoint_of_an_earlier_version_is_taken(run, trained, stopped):
    whole = trained("CoOp", *EACH_EPOCH)[1]
    path = stopped(whole, epoch=2) / MODEL_NAME / epoch_name(2)
    state = torch.load(path, weights_only=True)
    del state["position"]
    torch.save(state, path)
    assert_same_run(whole, run("CoOp", *EACH_EPOCH)[2])


def test_a_signal_during_the_pass_that_sets_the_offset_is_answered_at_the_next_batch(
    run, monkeypatch
):
    """1024 images through CLIP's encoder take minutes on a CPU."""
    seen = []
    encode = CDC.encode_images

    def encode_and_signal(self, images, *more, **named):
        seen.append(len(images))
        monkeypatch.setattr(interruption, "_came", ["SIGTERM"])
        return encode(self, images, *more, **named)

    monkeypatch.setattr(CDC, "encode_images", encode_and_signal)
    with pytest.raises(interruption.Interrupted, match="SIGTERM: nothing to save"):
        run("CDC", "DATALOADER.TEST.BATCH_SIZE", "2")
    assert len(seen) == 1
