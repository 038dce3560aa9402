"""Checkpoints: plain, whole, and found again."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl.utils import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
    set_random_seed,
)
from dassl.utils.checkpoint import copy_checkpoint, describe, last_checkpoint


def state_of(model, epoch=1, **more):
    return {
        "state_dict": model.state_dict(),
        "epoch": epoch,
        "optimizer": None,
        "scheduler": None,
        "val_result": None,
        **more,
    }


def test_a_checkpoint_is_a_file_for_each_epoch_and_the_name_of_the_last(tmp_path, capsys):
    model = nn.Linear(2, 1)
    save_checkpoint(state_of(model, 3), str(tmp_path / "m"))
    save_checkpoint(state_of(model, 10), str(tmp_path / "m"))
    assert sorted(os.listdir(tmp_path / "m")) == [
        "checkpoint",
        "model.pth.tar-10",
        "model.pth.tar-3",
    ]
    assert (tmp_path / "m" / "checkpoint").read_text() == "model.pth.tar-10\n"
    assert capsys.readouterr().out.splitlines() == [
        f"Checkpoint saved to {tmp_path}/m/model.pth.tar-{e}" for e in (3, 10)
    ]


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = state_of(
        model,
        np.int64(2),
        optimizer=optimizer.state_dict(),
        val_result=np.float64(55.5),
        extra=[np.arange(3), (1, None)],
    )
    save_checkpoint(state, str(tmp_path))
    loaded = torch.load(tmp_path / "model.pth.tar-2", weights_only=True)
    assert (
        loaded["val_result"] == 55.5
        and type(loaded["val_result"]) is float
        and type(loaded["epoch"]) is int
    )
    assert torch.equal(loaded["extra"][0], torch.arange(3)) and loaded["extra"][1] == (1, None)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded["state_dict"].items())
    optimizer.load_state_dict(loaded["optimizer"])


def test_milestones_are_saved_plainly_and_go_on(tmp_path):
    def fresh():
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 2], gamma=0.1)

    optimizer, scheduler = fresh()
    optimizer.step()
    scheduler.step()
    model = nn.Linear(1, 1)
    save_checkpoint(
        state_of(model, optimizer=optimizer.state_dict(), scheduler=scheduler.state_dict()),
        str(tmp_path),
    )
    assert (
        type(torch.load(tmp_path / "model.pth.tar-1", weights_only=True)["scheduler"]["milestones"])
        is dict
    )
    optimizer, scheduler = fresh()
    resume_from_checkpoint(str(tmp_path), model, optimizer, scheduler)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_saving_what_would_not_load_again_warns_and_names_the_entry(tmp_path):
    with pytest.warns(UserWarning, match=r"entry scheduler\.successor is a StepLR"):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)
        successor = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        save_checkpoint(
            state_of(nn.Linear(1, 1), scheduler={"successor": successor}), str(tmp_path)
        )


def test_module_is_cut_from_the_front_of_names_only(tmp_path):
    model = nn.DataParallel(nn.Sequential(nn.Linear(1, 1)))
    state = state_of(model)
    state["state_dict"]["module.0.module.x"] = torch.zeros(1)
    save_checkpoint(state, str(tmp_path / "a"))
    save_checkpoint(state, str(tmp_path / "b"), remove_module_from_keys=False)
    assert list(load_checkpoint(str(tmp_path / "a" / "model.pth.tar-1"))["state_dict"]) == [
        "0.weight",
        "0.bias",
        "0.module.x",
    ]
    assert (
        "module.0.weight" in load_checkpoint(str(tmp_path / "b" / "model.pth.tar-1"))["state_dict"]
    )
    assert "module.0.weight" in state["state_dict"]  # the caller's dict stays as it was


def test_is_best_writes_a_second_file(tmp_path, capsys):
    save_checkpoint(state_of(nn.Linear(1, 1)), str(tmp_path), is_best=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-1"]
    assert f'Best checkpoint saved to "{tmp_path}/model-best.pth.tar"' in capsys.readouterr().out
    assert load_checkpoint(str(tmp_path / "model-best.pth.tar"))["epoch"] == 1


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


def test_a_write_takes_the_names_place_and_does_not_touch_the_old_files_bytes(tmp_path):
    model = nn.Linear(1, 1)
    save_checkpoint(state_of(model), str(tmp_path))
    before = (tmp_path / "model.pth.tar-1").read_bytes()
    with open(tmp_path / "model.pth.tar-1", "rb") as reader:  # reads on while the next save happens
        nn.init.constant_(model.weight, 7.0)
        save_checkpoint(state_of(model), str(tmp_path))
        assert reader.read() == before
    assert load_checkpoint(str(tmp_path / "model.pth.tar-1"))["state_dict"]["weight"].item() == 7.0


def test_load_checkpoint_says_what_is_wrong(tmp_path, capsys):
    with pytest.raises(ValueError, match="File path is None"):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError, match='File is not found at "nowhere"'):
        load_checkpoint("nowhere")
    (tmp_path / "broken").write_bytes(b"garbage")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(str(tmp_path / "broken"))
    assert capsys.readouterr().out == f'Unable to load checkpoint from "{tmp_path}/broken"\n'


class Evil:
    def __reduce__(self):
        return (os.mkdir, (Evil.path,))


def test_a_checkpoint_cannot_run_code(tmp_path):
    Evil.path = str(tmp_path / "owned")
    torch.save({"state_dict": {}, "epoch": 1, "x": Evil()}, tmp_path / "evil")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_checkpoint(str(tmp_path / "evil"))
    assert not os.path.exists(Evil.path)


@pytest.mark.parametrize("kind", ["cosine", "multi_step", "single_step"])
@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw", "rmsprop", "amsgrad"])
def test_a_file_of_the_real_dassl_with_a_pickled_scheduler_resumes(tmp_path, optim, kind):
    """Real Dassl stores the scheduler that follows the warm-up as an object, its optimiser with it."""
    from dassl.config import get_cfg_default
    from dassl.optim import build_lr_scheduler, build_optimizer

    cfg = get_cfg_default().OPTIM
    cfg.NAME, cfg.LR, cfg.LR_SCHEDULER, cfg.MAX_EPOCH, cfg.STEPSIZE = optim, 0.002, kind, 10, (3, 4)
    cfg.WARMUP_EPOCH, cfg.WARMUP_TYPE = 1, "constant"

    def fresh():
        model = nn.Linear(2, 1)
        optimizer = build_optimizer(model, cfg)
        return model, optimizer, build_lr_scheduler(optimizer, cfg)

    model, optimizer, scheduler = fresh()
    whole = []
    for epoch in range(10):
        whole.append(optimizer.param_groups[0]["lr"])
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
        if epoch == 3:
            pickled = {k: v for k, v in scheduler.__dict__.items() if k != "optimizer"}
            pickled["last_epoch"] = 1  # real Dassl stops counting at the end of the warm-up
            torch.save(
                state_of(model, 4, optimizer=optimizer.state_dict(), scheduler=pickled),
                tmp_path / "model.pth.tar-4",
            )
            (tmp_path / "checkpoint").write_text("model.pth.tar-4\n")
            with pytest.raises(Exception, match="[Ww]eights.only"):
                torch.load(tmp_path / "model.pth.tar-4", weights_only=True)
            kept = {k: v.clone() for k, v in model.state_dict().items()}

    model, optimizer, scheduler = fresh()
    assert resume_from_checkpoint(str(tmp_path), model, optimizer, scheduler) == 4
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    rest = []
    for _ in range(4, 10):
        rest.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rest == whole[4:]


def test_resuming_prints_what_it_loads(tmp_path, capsys):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    save_checkpoint(
        state_of(model, 7, optimizer=optimizer.state_dict(), scheduler=scheduler.state_dict()),
        str(tmp_path),
    )
    capsys.readouterr()
    other = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    assert (
        resume_from_checkpoint(
            str(tmp_path), other, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)
        )
        == 7
    )
    assert capsys.readouterr().out.splitlines() == [
        f'Loading checkpoint from "{tmp_path}/model.pth.tar-7"',
        "Loaded model weights",
        "Loaded optimizer",
        "Loaded scheduler",
        "Previous epoch: 7",
    ]
    assert torch.equal(model.weight, other.weight) and optimizer.param_groups[0]["lr"] == 0.5


def test_resuming_is_strict(tmp_path):
    save_checkpoint(state_of(nn.Linear(1, 1)), str(tmp_path))
    with pytest.raises(RuntimeError, match="size mismatch"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(2, 1))


def test_resuming_restores_the_random_state(tmp_path):
    from dassl.utils.random_state import get_random_state

    set_random_seed(1)
    save_checkpoint(state_of(nn.Linear(1, 1), random_state=get_random_state()), str(tmp_path))
    expected = torch.rand(1)
    set_random_seed(2)
    model = nn.Linear(1, 1)
    resume_from_checkpoint(str(tmp_path), model)
    assert torch.equal(torch.rand(1), expected)


def test_nothing_to_resume_says_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        resume_from_checkpoint(str(tmp_path / "none"), nn.Linear(1, 1))
    with pytest.raises(FileNotFoundError, match="it holds no checkpoint"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))
    save_checkpoint(state_of(nn.Linear(1, 1)), str(tmp_path), model_name="model-best.pth.tar")
    with pytest.raises(FileNotFoundError, match="it holds model-best.pth.tar"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))


def test_the_last_checkpoint_is_what_the_pointer_names_else_the_newest(tmp_path):
    assert last_checkpoint(str(tmp_path)) is None
    for epoch in (2, 9, 10):
        save_checkpoint(state_of(nn.Linear(1, 1), epoch), str(tmp_path))
    (tmp_path / "checkpoint").write_text("model.pth.tar-9\n")
    assert last_checkpoint(str(tmp_path)) == "model.pth.tar-9"
    for stale in ("model.pth.tar-77\n", "model-best.pth.tar\n", ""):
        (tmp_path / "checkpoint").write_text(stale)
        assert last_checkpoint(str(tmp_path)) == "model.pth.tar-10"
    assert describe(str(tmp_path)) == "it holds model.pth.tar-2, model.pth.tar-9, model.pth.tar-10"


def test_copying_a_checkpoint(tmp_path):
    save_checkpoint(state_of(nn.Linear(1, 1)), str(tmp_path / "a"))
    source = str(tmp_path / "a" / "model.pth.tar-1")
    copy_checkpoint(source, source)
    copy_checkpoint(source, str(tmp_path / "b" / "x"))
    assert load_checkpoint(str(tmp_path / "b" / "x"))["epoch"] == 1


def test_pretrained_weights_load_what_fits(tmp_path, capsys):
    source = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5))
    target = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    torch.save({"state_dict": nn.DataParallel(source).state_dict()}, tmp_path / "w")
    load_pretrained_weights(target, str(tmp_path / "w"))
    assert torch.equal(target[0].weight, source[0].weight)
    assert capsys.readouterr().out.splitlines() == [
        f"Successfully loaded pretrained weights from {tmp_path}/w",
        "Layers discarded due to unmatched keys or size: ['1.weight', '1.bias']",
    ]
    torch.save(target.state_dict(), tmp_path / "bare")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained_weights(target, str(tmp_path / "bare"))
    assert "discarded" not in capsys.readouterr().out
    with pytest.warns(UserWarning, match="Cannot load .*bare"):
        load_pretrained_weights(nn.BatchNorm1d(7), str(tmp_path / "bare"))
