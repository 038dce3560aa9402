"""Training, testing and resuming, through a trainer written as a CoOp user writes one."""

import csv
import math
import os
import re
import sys

import pytest
import torch
import torch.nn as nn
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerBase, TrainerX, build_trainer
from dassl.evaluation import EVALUATOR_REGISTRY
from dassl.utils import load_checkpoint, set_random_seed, setup_logger

BATCH_LINE = re.compile(
    r"epoch \[(\d+)/2\] batch \[(\d)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) data \d+\.\d{3} \(\d+\.\d{3}\) "
    r"loss (\d+\.\d{4}) \((\d+\.\d{4})\) acc \d+\.\d{4} \(\d+\.\d{4}\) lr (\d\.\d{4}e[+-]\d\d) eta \d+:\d\d:\d\d"
)


# Building


def test_a_trainer_is_built_in_dassls_order(make_cfg, quiet):
    calls = []

    class LiteOrder(TRAINER_REGISTRY.get("LiteLinear")):
        def check_cfg(self, cfg):
            calls.append(("check_cfg", hasattr(self, "cfg"), hasattr(self, "device"), self._models))

        def build_data_loader(self):
            calls.append(
                (
                    "data",
                    self.device.type,
                    self.max_epoch,
                    self.start_epoch,
                    self.epoch,
                    self.output_dir,
                )
            )
            super().build_data_loader()

        def build_model(self):
            calls.append(
                ("model", self.num_classes, self.dm.dataset.classnames, hasattr(self, "evaluator"))
            )
            super().build_model()

    with quiet():
        cfg = make_cfg(VERBOSE=False)
        trainer = LiteOrder(cfg)
    assert calls == [
        ("check_cfg", False, False, trainer._models),
        ("data", "cpu", 2, 0, 0, cfg.OUTPUT_DIR),
        ("model", 3, ["red_dot", "green_dot", "blue_dot"], False),
    ]
    assert trainer.best_result == -math.inf and trainer.cfg is cfg
    assert trainer.lab2cname == trainer.dm.lab2cname == trainer.evaluator._lab2cname
    for name in (
        "train_loader_x",
        "val_loader",
        "test_loader",
        "num_classes",
        "num_source_domains",
    ):
        assert getattr(trainer, name) is getattr(trainer.dm, name)


def test_the_trainer_is_built_by_name(make_cfg, capsys):
    build_trainer(make_cfg())
    assert capsys.readouterr().out.startswith(
        "Loading trainer: LiteLinear\nLoading dataset: LiteBlobs\n"
    )
    with pytest.raises(ValueError, match=r"got \[Litelinear\] \(do you mean \[LiteLinear\]\?\)"):
        build_trainer(make_cfg(TRAINER__NAME="Litelinear"))


# Printed lines


def test_a_run_prints_what_dassl_prints(make_cfg, train):
    cfg = make_cfg(TRAIN__PRINT_FREQ=1)
    trainer, out = train(cfg)
    lines = out.splitlines()
    start = lines.index("Loading evaluator: Classification")
    batches = [line for line in lines if line.startswith("epoch [")]
    rest = [line for line in lines[start:] if not line.startswith(("epoch [", "* "))]
    assert all(BATCH_LINE.fullmatch(line) for line in batches)
    assert [BATCH_LINE.fullmatch(line).groups()[:2] for line in batches] == [
        (str(e), str(b)) for e in (1, 2) for b in (1, 2, 3)
    ]
    assert rest[:-1] == [
        "Loading evaluator: Classification",
        "No checkpoint found, train from scratch",
        f"Initialize tensorboard (log_dir={cfg.OUTPUT_DIR}/tensorboard)",
        f"Checkpoint saved to {cfg.OUTPUT_DIR}/linear/model.pth.tar-2",
        "Finish training",
        "Deploy the last-epoch model",
        "Evaluate on the *test* set",
        "=> result",
    ]
    assert re.fullmatch(r"Elapsed: 0:0\d:\d\d", rest[-1])


@pytest.mark.parametrize("freq, expected", [(1, 6), (2, 2), (3, 2), (4, 6), (10, 6)])
def test_batches_are_printed_every_so_often_or_all_when_there_are_few(
    make_cfg, train, freq, expected
):
    _, out = train(make_cfg(TRAIN__PRINT_FREQ=freq, TEST__NO_TEST=True))
    assert len(re.findall("^epoch ", out, re.M)) == expected


def test_the_printed_average_is_of_this_epoch_and_the_last_rate_is_the_next_epochs(make_cfg, train):
    _, out = train(make_cfg(TRAIN__PRINT_FREQ=1))
    rows = [
        BATCH_LINE.fullmatch(line).groups() for line in out.splitlines() if line.startswith("epoch")
    ]
    for epoch in (0, 1):
        losses = [float(r[2]) for r in rows[3 * epoch : 3 * epoch + 3]]
        for i in range(3):
            assert float(rows[3 * epoch + i][3]) == pytest.approx(
                sum(losses[: i + 1]) / (i + 1), abs=2e-4
            )
    full, half = "2.0000e-03", "1.0000e-03"  # cosine over two epochs
    assert [r[4] for r in rows] == [full, full, half, half, half, "0.0000e+00"]


def parse_test_res(log, keyword="accuracy", signal="Finish training"):
    """As CoOp's script reads a log: the last match after the signal."""
    armed, value = False, None
    for line in log.splitlines():
        if line.strip() == signal:
            armed = True
        match = re.search(r"\* " + keyword + r": ([\.\deE+-]+)%", line)
        if match and armed:
            value = float(match.group(1))
    return value


def test_parse_test_res_reads_the_log(make_cfg, quiet, train):
    cfg = make_cfg(TEST__FINAL_MODEL="best_val", TEST__PER_CLASS_RESULT=True)
    with quiet():
        setup_logger(cfg.OUTPUT_DIR)
        tee = sys.stdout
        set_random_seed(1)
        trainer = build_trainer(cfg)
        trainer.train()
        tee.close()
        result = trainer.test()
    log = open(os.path.join(cfg.OUTPUT_DIR, "log.txt")).read()
    assert parse_test_res(log) == round(result, 1)
    assert parse_test_res(log, "error") == round(100 - result, 1)
    assert parse_test_res(log, signal="=> result") == round(result, 1)
    assert (
        parse_test_res(log, "average") is not None and parse_test_res(log, "macro_f1") is not None
    )
    assert parse_test_res(log.split("Finish training")[0]) is None


def test_progress_is_on_stderr_not_in_the_log(make_cfg, quiet, capfd):
    with quiet():
        trainer = build_trainer(make_cfg())
    capfd.readouterr()
    trainer.test()
    out, err = capfd.readouterr()
    assert "1/1" in err and "it/s" not in out


# Learning


def test_training_learns_and_test_returns_the_accuracy(make_cfg, train, quiet):
    trainer, _ = train(make_cfg(OPTIM__MAX_EPOCH=8, OPTIM__LR=0.05))
    with quiet():
        result = trainer.test()
        assert trainer.test(split="val") > 80
    assert type(result) is float and result > 80
    assert not trainer.model.training


def test_one_seed_one_result(make_cfg, train, weights):
    augment = ("random_resized_crop", "random_flip", "colorjitter")
    a, b, c = (
        weights(train(make_cfg(f"r{i}", INPUT__TRANSFORMS=augment), seed=seed)[0])
        for i, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_scalars_are_recorded_at_their_steps(make_cfg, train, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorboard" else real(name, *a),
    )
    cfg = make_cfg(TEST__FINAL_MODEL="best_val")
    trainer, _ = train(cfg)
    rows = list(csv.DictReader(open(f"{cfg.OUTPUT_DIR}/tensorboard/scalars.csv")))
    steps = {}
    for row in rows:
        steps.setdefault(row["tag"], []).append(int(row["step"]))
    assert steps["train/loss"] == steps["train/acc"] == steps["train/lr"] == list(range(6))
    assert steps["val/accuracy"] == [0, 1] and steps["test/accuracy"] == steps["test/macro_f1"] == [
        1
    ]
    assert trainer._writer is None
    trainer.write_scalar("x", 1.0)  # no writer: nothing happens


# Checkpoints


def test_checkpoints_are_written_at_their_frequency_and_at_the_end(make_cfg, train):
    cfg = make_cfg(OPTIM__MAX_EPOCH=5, TRAIN__CHECKPOINT_FREQ=2, TEST__NO_TEST=True)
    train(cfg)
    assert sorted(os.listdir(f"{cfg.OUTPUT_DIR}/linear")) == [
        "checkpoint",
        *(f"model.pth.tar-{e}" for e in (2, 4, 5)),
    ]


def test_a_training_checkpoint_loads_with_weights_only(make_cfg, train):
    cfg = make_cfg(OPTIM__WARMUP_EPOCH=1, TEST__FINAL_MODEL="best_val")
    trainer, _ = train(cfg)
    folder = f"{cfg.OUTPUT_DIR}/linear"
    last = torch.load(f"{folder}/model.pth.tar-2", weights_only=True)
    best = torch.load(f"{folder}/model-best.pth.tar", weights_only=True)
    assert set(last) == {
        "state_dict",
        "epoch",
        "optimizer",
        "scheduler",
        "val_result",
        "scaler",
        "random_state",
    }
    assert last["epoch"] == 2 and last["val_result"] is None
    assert type(best["val_result"]) is float and best["val_result"] == trainer.best_result


WARMUPS = [
    {},
    {"OPTIM__WARMUP_EPOCH": 1, "OPTIM__WARMUP_TYPE": "constant"},
    {"OPTIM__WARMUP_EPOCH": 3, "OPTIM__WARMUP_TYPE": "linear"},
]
AUGMENT = ("random_resized_crop", "random_flip", "normalize")


OPTIMS = ["sgd", "adam", "amsgrad", "rmsprop", "radam", "adamw"]


@pytest.mark.parametrize(
    "optim, warmup", [*zip(OPTIMS, WARMUPS * 2), ("sgd", WARMUPS[1]), ("sgd", WARMUPS[2])]
)
def test_a_stopped_and_resumed_run_has_the_weights_of_an_uninterrupted_one(
    make_cfg, train, weights, optim, warmup
):
    options = {
        "OPTIM__NAME": optim,
        "OPTIM__MAX_EPOCH": 4,
        "TRAIN__CHECKPOINT_FREQ": 1,
        "TEST__NO_TEST": True,
        "INPUT__TRANSFORMS": AUGMENT,
        **warmup,
    }
    whole, _ = train(make_cfg("whole", **options), seed=3)
    cfg = make_cfg("stopped", **options)
    stopped, _ = train(cfg, seed=3, stop_at=(2, 1))  # goes down in the middle of the third epoch
    resumed, out = train(cfg, seed=3)
    assert "Previous epoch: 2" in out and "epoch [1/4]" not in out
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.lrs == whole.lrs[2:] and stopped.lrs[:2] == whole.lrs[:2]


def test_resuming_with_best_val_is_as_if_never_stopped_too(make_cfg, train, weights):
    options = {
        "OPTIM__MAX_EPOCH": 6,
        "OPTIM__LR": 0.05,
        "TRAIN__CHECKPOINT_FREQ": 2,
        "TEST__FINAL_MODEL": "best_val",
        "INPUT__TRANSFORMS": AUGMENT,
    }
    whole, whole_out = train(make_cfg("whole", **options), seed=3)
    cfg = make_cfg("stopped", **options)
    train(cfg, seed=3, stop_at=(3, 2))
    resumed, out = train(cfg, seed=3)
    assert (
        torch.equal(weights(resumed), weights(whole)) and resumed.best_result == whole.best_result
    )
    assert parse_test_res(out) == parse_test_res(whole_out)


def test_the_gradient_scaler_goes_on_from_its_scale(make_cfg, quiet):
    class Scaled(TRAINER_REGISTRY.get("LiteLinear")):
        def build_model(self):
            super().build_model()
            self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    cfg = make_cfg(OPTIM__MAX_EPOCH=3, TEST__NO_TEST=True)
    with quiet():
        first = Scaled(cfg)
        first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 2.0})
        first.save_model(0, cfg.OUTPUT_DIR)
        second = Scaled(cfg)
        assert second.resume_model_if_exist(cfg.OUTPUT_DIR) == 1
        second.scaler = torch.amp.GradScaler("cpu", enabled=False)
        second.resume_model_if_exist(cfg.OUTPUT_DIR)  # switched off meanwhile: nothing to restore
        again = Scaled(cfg)
        again.resume_model_if_exist(cfg.OUTPUT_DIR)
    assert again.scaler.get_scale() == 2.0


def test_a_finished_run_is_only_tested_again(make_cfg, train, weights):
    cfg = make_cfg()
    first, out1 = train(cfg)
    second, out2 = train(cfg)
    assert f"Found checkpoint at {cfg.OUTPUT_DIR} (will resume training)" in out2
    assert "epoch [" not in out2 and "Checkpoint saved" not in out2
    assert torch.equal(weights(first), weights(second)) and parse_test_res(out1) == parse_test_res(
        out2
    )


def test_a_run_longer_than_asked_for_is_not_passed_off_as_the_shorter_one(make_cfg, train):
    cfg = make_cfg(OPTIM__MAX_EPOCH=3, TEST__NO_TEST=True)
    train(cfg)
    with pytest.raises(ValueError, match="was trained for 3 epochs, OPTIM.MAX_EPOCH is only 2"):
        train(make_cfg(OPTIM__MAX_EPOCH=2))


def test_a_print_frequency_of_nothing_is_refused(make_cfg, train):
    with pytest.raises(ValueError, match="TRAIN.PRINT_FREQ must be at least 1, got 0"):
        train(make_cfg(TRAIN__PRINT_FREQ=0))


def test_resume_names_the_folder_to_go_on_from(make_cfg, train):
    first = make_cfg("first", TRAIN__CHECKPOINT_FREQ=1)
    train(first, stop_at=(1, 0))
    second = make_cfg("second", RESUME=first.OUTPUT_DIR)
    _, out = train(second)
    assert f'Loading checkpoint from "{first.OUTPUT_DIR}/linear/model.pth.tar-1"' in out
    assert os.listdir(f"{second.OUTPUT_DIR}/linear")


def test_resume_without_a_checkpoint_there_is_an_error_not_a_fresh_start(make_cfg, train, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="RESUME is .*nowhere.*no checkpoint of \\['linear'\\]"
    ):
        train(make_cfg(RESUME=str(tmp_path / "nowhere")))


def test_a_run_resumed_elsewhere_takes_its_best_model_along(make_cfg, train):
    options = {
        "TEST__FINAL_MODEL": "best_val",
        "TRAIN__CHECKPOINT_FREQ": 1,
        "OPTIM__LR": 0.0,
        "OPTIM__WEIGHT_DECAY": 0.0,
    }
    first = make_cfg(
        "first", **options
    )  # nothing is learned: the first epoch's result stays the best
    train(first, stop_at=(1, 0))
    second = make_cfg("second", RESUME=first.OUTPUT_DIR, **options)
    _, out = train(second)
    assert (
        f"Load {second.OUTPUT_DIR}/linear/model-best.pth.tar to linear (epoch=1, val_result=" in out
    )


class TwoModels(TRAINER_REGISTRY.get("LiteLinear")):
    def build_model(self):
        super().build_model()
        self.register_model("frozen", nn.BatchNorm1d(2))


def test_models_saved_at_different_epochs_resume_from_the_last_common_one(make_cfg, quiet):
    cfg = make_cfg(TRAIN__CHECKPOINT_FREQ=1, TEST__NO_TEST=True, OPTIM__MAX_EPOCH=3)
    with quiet():
        TwoModels(cfg).train()
        os.remove(f"{cfg.OUTPUT_DIR}/frozen/model.pth.tar-3")
        trainer = TwoModels(cfg)
        assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 2
        os.remove(f"{cfg.OUTPUT_DIR}/frozen/model.pth.tar-1")
        os.remove(f"{cfg.OUTPUT_DIR}/frozen/model.pth.tar-2")
    with quiet() as out:
        assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 0
    assert out.getvalue() == "No checkpoint found, train from scratch\n"


def test_load_model_loads_an_epoch_or_the_best(make_cfg, train, quiet, weights):
    cfg = make_cfg(TRAIN__CHECKPOINT_FREQ=1, TEST__FINAL_MODEL="best_val", OPTIM__LR=0.05)
    train(cfg)
    folder = f"{cfg.OUTPUT_DIR}/linear"
    best = load_checkpoint(f"{folder}/model-best.pth.tar")
    for epoch, file, line in (
        (1, "model.pth.tar-1", "(epoch=1, val_result=None)"),
        (
            None,
            "model-best.pth.tar",
            f"(epoch={best['epoch']}, val_result={best['val_result']:.1f})",
        ),
    ):
        with quiet():
            trainer = build_trainer(cfg)
        with quiet() as out:
            trainer.load_model(cfg.OUTPUT_DIR, epoch=epoch)
        assert out.getvalue() == f"Load {folder}/{file} to linear {line}\n"
        assert torch.equal(
            trainer.model[2].weight, load_checkpoint(f"{folder}/{file}")["state_dict"]["2.weight"]
        )
    with quiet() as out:
        trainer.load_model("")
    assert out.getvalue() == (
        "Note that load_model() is skipped as no pretrained model is given (ignore this if it's done on purpose)\n"
    )


# TrainerBase


def test_models_are_registered_once_and_after_init():
    trainer = TrainerBase()
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    trainer.register_model("a", a, torch.optim.SGD(a.parameters(), lr=0.1))
    trainer.register_model("b", b)
    assert trainer.get_model_names() == ["a", "b"] and trainer.get_model_names("b") == ["b"]
    with pytest.raises(AssertionError, match="Found duplicate model names"):
        trainer.register_model("a", b)
    with pytest.raises(AssertionError, match="No model is registered as c"):
        trainer.get_model_names(["a", "c"])
    with pytest.raises(AttributeError, match=r"before super\(\).__init__\(\)"):
        TrainerBase.__new__(TrainerBase).register_model("a", a)


def test_modes_switch_registered_models_only():
    trainer = TrainerBase()
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    trainer.register_model("a", a)
    trainer.register_model("b", b)
    trainer.set_model_mode("eval", "a")
    assert (a.training, b.training) == (False, True)
    trainer.set_model_mode("test")
    assert not b.training
    trainer.set_model_mode()
    assert a.training and b.training
    with pytest.raises(KeyError, match="got evaluation"):
        trainer.set_model_mode("evaluation")


def test_an_update_is_zero_backward_step_on_those_that_have_an_optimiser():
    trainer = TrainerBase()
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    trainer.register_model("b", b)
    trainer.register_model("a", a, torch.optim.SGD(a.parameters(), lr=0.5))
    before = a.weight.item(), b.weight.item()
    a.weight.grad = torch.full((1, 1), 100.0)  # must not count
    trainer.model_backward_and_update(a(torch.full((1, 1), 3.0)).sum() + b(torch.ones(1, 1)).sum())
    assert a.weight.item() == pytest.approx(before[0] - 0.5 * 3.0) and b.weight.item() == before[1]
    assert trainer.get_current_lr() == 0.5 and trainer.get_current_lr("a") == 0.5
    trainer.update_lr()  # no schedule: nothing happens
    with pytest.raises(RuntimeError, match=r"none of the models \['b'\] has an optimiser"):
        trainer.get_current_lr("b")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_infinite_loss_stops_training(value):
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN!"):
        TrainerBase().model_backward(torch.tensor(value, requires_grad=True))


def test_what_a_trainer_must_write_is_not_implemented():
    trainer = TrainerBase()
    for call in (trainer.run_epoch, trainer.test):
        with pytest.raises(NotImplementedError):
            call()
    for call in (
        trainer.parse_batch_train,
        trainer.parse_batch_test,
        trainer.forward_backward,
        trainer.model_inference,
    ):
        with pytest.raises(NotImplementedError):
            call(None)


def test_the_plain_loop_calls_its_hooks_in_order():
    calls = []

    class Loop(TrainerBase):
        def __getattribute__(self, name):
            if name in ("before_train", "before_epoch", "run_epoch", "after_epoch", "after_train"):
                return lambda: calls.append(name)
            return super().__getattribute__(name)

    Loop().train(3, 5)
    epoch = ["before_epoch", "run_epoch", "after_epoch"]
    assert calls == ["before_train", *epoch, *epoch, "after_train"]


def test_default_batches_are_parsed_onto_the_device(make_cfg, quiet):
    with quiet():
        trainer = build_trainer(make_cfg())
    batch = next(iter(trainer.train_loader_x))
    img, label, domain = TrainerX.parse_batch_train(trainer, batch)
    assert img is batch["img"] and label is batch["label"] and domain is batch["domain"]
    assert [
        x is y for x, y in zip(trainer.parse_batch_test(batch), (batch["img"], batch["label"]))
    ] == [True, True]


def test_a_step_may_report_nothing(make_cfg, quiet):
    class Silent(TRAINER_REGISTRY.get("LiteLinear")):
        def forward_backward(self, batch):
            super().forward_backward(batch)

    with quiet() as out:
        Silent(make_cfg(TEST__NO_TEST=True)).train()
    assert re.search(r"data \S+ \(\S+\) lr ", out.getvalue())


def test_the_first_figure_of_a_custom_evaluator_is_the_result(make_cfg, quiet):
    class LiteSeven:
        def __init__(self, cfg, **kwargs):
            self.n = 0

        def reset(self):
            self.n = 0

        def process(self, output, label):
            self.n += len(label)

        def evaluate(self):
            return {"images": self.n, "accuracy": 7.0}

    EVALUATOR_REGISTRY.register(LiteSeven, force=True)
    with quiet():
        assert build_trainer(make_cfg(TEST__EVALUATOR="LiteSeven")).test() == 15


def test_a_trainer_without_a_model_says_what_to_write(make_cfg, quiet):
    with quiet(), pytest.raises(NotImplementedError, match="SimpleTrainer must write build_model"):
        SimpleTrainer(make_cfg())
