"""Checkpoints: loaded without running code, written whole, and found again."""

import os
import pickle

import pytest
import torch
import torch.nn as nn
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)


class Evil:
    """Pickles as a call that makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def state_of(model, epoch=1, **more):
    names = ("optimizer", "scheduler", "val_result")
    return {"state_dict": model.state_dict(), "epoch": epoch, **dict.fromkeys(names), **more}


def test_a_checkpoint_is_a_plain_file_for_each_epoch_and_the_name_of_the_last(tmp_path):
    model = nn.DataParallel(nn.Linear(2, 1))
    for epoch, is_best in ((3, False), (10, True)):
        save_checkpoint(state_of(model, epoch), str(tmp_path), is_best=is_best)
    files = ["checkpoint", "model-best.pth.tar", "model.pth.tar-10", "model.pth.tar-3"]
    assert sorted(os.listdir(tmp_path)) == files
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-10\n"
    for name in files[1:]:
        state = torch.load(tmp_path / name, weights_only=True)["state_dict"]
        assert list(state) == ["weight", "bias"]  # without "module."


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    model = nn.Linear(1, 1)
    save_checkpoint(state_of(model), str(tmp_path))
    before = (tmp_path / "model.pth.tar-1").read_bytes()

    def disk_full(state, f):
        f.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(state_of(model), str(tmp_path))
    assert (tmp_path / "model.pth.tar-1").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-1"]


def test_what_cannot_be_loaded_is_named_and_no_code_is_run(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint("nowhere")
    evil = Evil(tmp_path / "owned")
    torch.save(state_of(nn.Linear(1, 1), x=evil), tmp_path / "evil")
    (tmp_path / "broken").write_bytes(b"garbage")
    for name in ("evil", "broken"):
        capsys.readouterr()
        with pytest.raises(pickle.UnpicklingError):
            load_checkpoint(str(tmp_path / name))
        line = f'Unable to load checkpoint from "{tmp_path}/{name}"\n'
        assert capsys.readouterr().out == line
    assert not evil.mark.exists()


@pytest.mark.parametrize(
    "optim, kind", [("sgd", "cosine"), ("amsgrad", "multi_step"), ("rmsprop", "single_step")]
)
def test_a_file_of_the_real_dassl_with_a_pickled_scheduler_resumes(tmp_path, optim, kind):
    """Real Dassl stores the scheduler that follows the warm-up as an object, its optimiser with it."""
    cfg = get_cfg_default().OPTIM
    cfg.update({"NAME": optim, "LR_SCHEDULER": kind, "STEPSIZE": (3, 4)})
    cfg.update({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"})

    def fresh():
        model = nn.Linear(2, 1)
        optimizer = build_optimizer(model, cfg)
        return model, optimizer, build_lr_scheduler(optimizer, cfg)

    def rates(epochs, model, optimizer, scheduler):
        found = []
        for _ in range(epochs):
            found.append(optimizer.param_groups[0]["lr"])
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            scheduler.step()
        return found

    whole, resumed = fresh(), fresh()
    rates(4, *whole)
    pickled = {name: value for name, value in vars(whole[2]).items() if name != "optimizer"}
    pickled["last_epoch"] = 1  # real Dassl stops counting at the end of the warm-up
    state = state_of(whole[0], 4, optimizer=whole[1].state_dict(), scheduler=pickled)
    torch.save(state, tmp_path / "model.pth.tar-4")
    assert resume_from_checkpoint(str(tmp_path), *resumed) == 4
    torch.testing.assert_close(resumed[0].state_dict(), whole[0].state_dict(), rtol=0, atol=0)
    assert rates(6, *resumed) == rates(6, *whole)


def test_resuming_is_strict_and_needs_a_step(tmp_path):
    save_checkpoint(state_of(nn.Linear(1, 1)), str(tmp_path), model_name="model-best.pth.tar")
    with pytest.raises(FileNotFoundError, match="No checkpoint to resume from in "):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))
    save_checkpoint(state_of(nn.Linear(1, 1), 7), str(tmp_path))
    with pytest.raises(RuntimeError, match="size mismatch"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(2, 1))


def test_pretrained_weights_load_what_fits(tmp_path):
    source = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5))
    target = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    torch.save({"state_dict": nn.DataParallel(source).state_dict()}, tmp_path / "w")
    load_pretrained_weights(target, str(tmp_path / "w"))
    assert torch.equal(target[0].weight, source[0].weight)
