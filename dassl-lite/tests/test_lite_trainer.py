"""Training, testing and resuming, through a trainer written as a CoOp user writes one."""

import math
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from dassl.engine import TRAINER_REGISTRY, TrainerBase, build_trainer
from dassl.utils import load_checkpoint, set_random_seed, setup_logger

BATCH_LINE = re.compile(
    r"epoch \[(\d+)/2\] batch \[(\d)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss (\d+\.\d{4}) \((\d+\.\d{4})\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr (\d\.\d{4}e[+-]\d\d) eta \d+:\d\d:\d\d"
)
LiteLinear = TRAINER_REGISTRY.get("LiteLinear")


def test_a_run_prints_what_dassl_prints(make_cfg, train):
    cfg = make_cfg(TRAIN__PRINT_FREQ=1)
    _, out = train(cfg)
    lines = out.splitlines()
    rows = [BATCH_LINE.fullmatch(line).groups() for line in lines if line.startswith("epoch [")]
    assert [row[:2] for row in rows] == [(str(e), str(b)) for e in (1, 2) for b in (1, 2, 3)]
    losses = [float(row[2]) for row in rows[3:]]
    assert float(rows[-1][3]) == pytest.approx(sum(losses) / 3, abs=2e-4)  # of this epoch
    # cosine over two epochs; an epoch's last line has the next rate
    assert [row[4] for row in rows] == ["2.0000e-03"] * 2 + ["1.0000e-03"] * 3 + ["0.0000e+00"]
    start = lines.index("Loading evaluator: Classification")
    rest = [line for line in lines[start:] if not line.startswith(("epoch [", "* "))]
    assert rest[1:-1] == [
        "No checkpoint found, train from scratch",
        f"Checkpoint saved to {cfg.OUTPUT_DIR}/linear/model.pth.tar-2",
        "Finish training",
        "Deploy the last-epoch model",
        "Evaluate on the *test* set",
        "=> result",
    ]
    assert re.fullmatch(r"Elapsed: 0:0\d:\d\d", rest[-1])


def test_training_learns_and_parse_test_res_reads_its_log(make_cfg, capfd):
    options = {"OPTIM__MAX_EPOCH": 8, "OPTIM__LR": 0.05, "TEST__PER_CLASS_RESULT": True}
    cfg = make_cfg(TEST__FINAL_MODEL="best_val", **options)
    setup_logger(cfg.OUTPUT_DIR)
    log_file = sys.stdout
    set_random_seed(1)
    trainer = build_trainer(cfg)
    trainer.train()
    log_file.close()
    result = trainer.test()
    assert type(result) is float
    assert result > 80
    assert not trainer.model.training
    log = Path(cfg.OUTPUT_DIR, "log.txt").read_text()
    after = log.partition("Finish training\n")[2]
    # CoOp's script takes the last match after that line
    figures = dict(re.findall(r"\* (\w+): ([\.\deE+-]+)%", after))
    assert float(figures["accuracy"]) == round(result, 1)
    assert "average" in figures
    assert float(figures["error"]) == round(100 - result, 1)
    assert "it/s" not in log
    assert "1/1" in capfd.readouterr().err  # progress


# Checkpoints


def test_checkpoints_are_written_at_their_frequency_and_at_the_end(make_cfg, train):
    options = {"OPTIM__MAX_EPOCH": 5, "OPTIM__WARMUP_EPOCH": 1, "TRAIN__CHECKPOINT_FREQ": 2}
    cfg = make_cfg(TEST__FINAL_MODEL="best_val", **options)
    trainer, _ = train(cfg)
    folder = f"{cfg.OUTPUT_DIR}/linear"
    steps = [f"model.pth.tar-{epoch}" for epoch in (2, 4, 5)]
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-best.pth.tar", *steps]
    last, best = (load_checkpoint(f"{folder}/{name}") for name in (steps[-1], "model-best.pth.tar"))
    assert set(last) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert last["epoch"] == 5
    assert best["val_result"] == trainer.best_result


@pytest.mark.parametrize("optim, warmup", [("sgd", 3), ("radam", -1)])
def test_a_resumed_run_goes_on_with_the_weights_and_rates_of_the_last_epoch(
    make_cfg, train, optim, warmup
):
    options = {"OPTIM__NAME": optim, "OPTIM__MAX_EPOCH": 4, "OPTIM__WARMUP_EPOCH": warmup}
    options["TRAIN__CHECKPOINT_FREQ"] = 1
    whole, _ = train(make_cfg("whole", **options), seed=3)
    cfg = make_cfg("stopped", **options)
    train(cfg, seed=3, stop_at=(2, 1))  # goes down in the middle of the third epoch
    resumed, out = train(cfg, seed=3)
    assert "Previous epoch: 2" in out
    assert "epoch [1/4]" not in out
    assert resumed.lrs == whole.lrs[2:]
    again, out = train(cfg, seed=3)  # finished: only tested again
    assert "epoch [" not in out
    assert "Checkpoint saved" not in out
    assert "Evaluate on" in out
    assert torch.equal(again.model[2].weight, resumed.model[2].weight)
    with pytest.raises(ValueError, match="was trained for 4 epochs, OPTIM.MAX_EPOCH is only 2"):
        train(make_cfg("stopped", **{**options, "OPTIM__MAX_EPOCH": 2}))


def test_resume_names_the_folder_and_never_starts_from_the_best_model(make_cfg, train, tmp_path):
    options = {"OPTIM__LR": 0.05, "TEST__FINAL_MODEL": "best_val"}
    first = make_cfg("first", OPTIM__MAX_EPOCH=3, TRAIN__CHECKPOINT_FREQ=1, **options)
    train(first, stop_at=(1, 0))
    with open(f"{first.OUTPUT_DIR}/linear/checkpoint", "w") as file:
        file.write("model-best.pth.tar\n")  # as the real Dassl leaves it
    _, out = train(make_cfg("second", OPTIM__MAX_EPOCH=3, RESUME=first.OUTPUT_DIR, **options))
    assert f'Loading checkpoint from "{first.OUTPUT_DIR}/linear/model.pth.tar-1"' in out
    only_best = make_cfg("third", OPTIM__MAX_EPOCH=3, **options)
    train(only_best, stop_at=(1, 0))
    trainer, out = train(only_best)
    assert "No checkpoint found, train from scratch" in out
    assert len(trainer.lrs) == 3
    with pytest.raises(FileNotFoundError, match=r"RESUME is .*nowhere.*no checkpoint of \['linear"):
        train(make_cfg(RESUME=str(tmp_path / "nowhere")))


def test_models_saved_at_different_epochs_resume_from_the_last_common_one(make_cfg):
    class TwoModels(LiteLinear):
        def build_model(self):
            super().build_model()
            self.register_model("frozen", nn.BatchNorm1d(2))

    cfg = make_cfg(TRAIN__CHECKPOINT_FREQ=1, TEST__NO_TEST=True)
    trainer = TwoModels(cfg)
    trainer.train()
    os.remove(f"{cfg.OUTPUT_DIR}/frozen/model.pth.tar-2")
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 1


def test_load_model_loads_an_epoch_else_the_best_else_the_last(make_cfg, train):
    cfg = make_cfg(TRAIN__CHECKPOINT_FREQ=1, TEST__FINAL_MODEL="best_val", OPTIM__LR=0.05)
    trainer, _ = train(cfg)
    folder = f"{cfg.OUTPUT_DIR}/linear"

    def assert_loads(file, epoch=None):
        trainer.load_model(cfg.OUTPUT_DIR, epoch=epoch)
        state = load_checkpoint(f"{folder}/{file}")["state_dict"]
        assert torch.equal(trainer.model[2].weight, state["2.weight"])

    assert_loads("model.pth.tar-1", epoch=1)
    assert_loads("model-best.pth.tar")
    os.remove(f"{folder}/model-best.pth.tar")
    assert_loads("model.pth.tar-2")
    with pytest.raises(FileNotFoundError, match="tar-7"):
        trainer.load_model(cfg.OUTPUT_DIR, epoch=7)


# What Dassl does silently


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"DATASET__NAME": "LiteBlobsNoVal", "TEST__FINAL_MODEL": "best_val"},
            r"TEST.SPLIT: .*\['test'\], but got \[val\]",
        ),
        ({"DATASET__NAME": "LiteBlob"}, "got .LiteBlob. .do you mean .LiteBlobs"),
        ({"TEST__SPLIT": "train"}, r"TEST.SPLIT: .* got \[train\]"),
        ({"TEST__FINAL_MODEL": "best"}, r"TEST.FINAL_MODEL: .* \(do you mean \[best_val\]\?\)"),
    ],
)
def test_what_cannot_work_is_refused_and_not_replaced_by_something_else(
    make_cfg, train, options, message
):
    with pytest.raises(ValueError, match=message):
        train(make_cfg(**options))


def test_a_trainer_without_a_registered_model_tests_but_does_not_train(make_cfg):
    trainer = build_trainer(make_cfg(TRAINER__NAME="LiteUnregistered"))
    assert 0 <= trainer.test() <= 100
    with pytest.raises(RuntimeError, match="LiteUnregistered has registered no model"):
        trainer.train()


# The parts of a trainer


@pytest.fixture
def parts():
    """A trainer with a model that has an optimiser, "a", and one that has none, "b"."""
    trainer, a, b = TrainerBase(), nn.Linear(1, 1), nn.Linear(1, 1)
    trainer.register_model("b", b)
    trainer.register_model("a", a, torch.optim.SGD(a.parameters(), lr=0.5))
    return trainer, a, b


def test_models_are_registered_once_and_switch_modes(parts):
    trainer, a, b = parts
    assert trainer.get_model_names() == ["b", "a"]
    for mode, names, expected in (("eval", "a", (False, True)), ("test", None, (False, False))):
        trainer.set_model_mode(mode, names)
        assert (a.training, b.training) == expected
    with pytest.raises(AssertionError, match="Found duplicate model names"):
        trainer.register_model("a", b)


def test_an_update_is_zero_backward_step_on_those_that_have_an_optimiser(parts):
    trainer, a, b = parts
    expected = a.weight.item() - 0.5 * 3.0
    before = b.weight.item()
    a.weight.grad = torch.full((1, 1), 100.0)  # must not count
    trainer.model_backward_and_update(a(torch.full((1, 1), 3.0)).sum() + b(torch.ones(1, 1)).sum())
    assert a.weight.item() == pytest.approx(expected)
    assert b.weight.item() == before


def test_a_loss_that_is_no_number_is_refused(parts):
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN!"):
        parts[0].model_backward(torch.tensor(math.nan, requires_grad=True))
