"""The ways in which Dassl 0.6.3 surprises, and the laws that replace them."""

import os
import sys

import pytest
import torch
from dassl.data.datasets import DatasetBase
from dassl.engine import build_trainer
from dassl.metrics import compute_accuracy
from dassl.utils import set_random_seed, setup_logger


def test_trap_1_resuming_with_warm_up_does_not_freeze_the_rate(make_cfg, train):
    cfg = make_cfg(
        OPTIM__MAX_EPOCH=6, OPTIM__WARMUP_EPOCH=1, TRAIN__CHECKPOINT_FREQ=1, TEST__NO_TEST=True
    )
    train(cfg, stop_at=(3, 0))
    resumed, _ = train(cfg)
    assert len(set(resumed.lrs)) == 3 and resumed.lrs == sorted(resumed.lrs, reverse=True)


def test_trap_2_a_checkpoint_without_validation_result_loads(make_cfg, train, quiet):
    cfg = make_cfg()
    trainer, _ = train(cfg)
    with quiet() as out:
        trainer.load_model(cfg.OUTPUT_DIR, epoch=2)
    assert out.getvalue().endswith("to linear (epoch=2, val_result=None)\n")


def test_trap_3_training_without_a_registered_model_says_so_and_testing_works(make_cfg, quiet):
    with quiet():
        trainer = build_trainer(make_cfg(TRAINER__NAME="LiteUnregistered"))
        assert 0 <= trainer.test() <= 100
        assert trainer.resume_model_if_exist(trainer.output_dir) == 0
        with pytest.raises(
            RuntimeError,
            match="LiteUnregistered has registered no model, so there is nothing to train",
        ):
            trainer.train()


def test_trap_4_best_val_without_validation_data_is_an_error_at_the_start(make_cfg, train):
    with pytest.raises(
        ValueError, match="FINAL_MODEL is best_val, but the data set has no validation split"
    ):
        train(make_cfg(DATASET__NAME="LiteBlobsNoVal", TEST__FINAL_MODEL="best_val"))


def test_trap_4_testing_on_a_validation_split_that_is_not_there_is_an_error(make_cfg, quiet):
    with quiet():
        trainer = build_trainer(make_cfg(DATASET__NAME="LiteBlobsNoVal", TEST__SPLIT="val"))
        with pytest.raises(ValueError, match="Cannot evaluate on the validation split"):
            trainer.test()
        with pytest.raises(ValueError, match=r"TEST.SPLIT: .* got \[train\]"):
            trainer.test(split="train")


def test_trap_4_final_model_is_one_of_two_words_and_useless_without_testing(make_cfg, train):
    with pytest.raises(
        ValueError, match=r"TEST.FINAL_MODEL: .* got \[best\] \(do you mean \[best_val\]\?\)"
    ):
        train(make_cfg(TEST__FINAL_MODEL="best"))
    with pytest.warns(UserWarning, match="best_val has no effect with TEST.NO_TEST"):
        train(make_cfg(TEST__FINAL_MODEL="best_val", TEST__NO_TEST=True))


def test_trap_5_a_resume_never_starts_from_the_best_model(make_cfg, train):
    cfg = make_cfg(
        OPTIM__MAX_EPOCH=4, OPTIM__LR=0.05, TRAIN__CHECKPOINT_FREQ=2, TEST__FINAL_MODEL="best_val"
    )
    train(cfg, stop_at=(3, 0))
    folder = f"{cfg.OUTPUT_DIR}/linear"
    assert open(f"{folder}/checkpoint").read() == "model.pth.tar-2\n"
    with open(f"{folder}/checkpoint", "w") as f:
        f.write("model-best.pth.tar\n")  # as the real Dassl leaves it
    _, out = train(cfg)
    assert (
        f'Loading checkpoint from "{folder}/model.pth.tar-2"' in out and "Previous epoch: 2" in out
    )


def test_trap_5_a_run_that_only_saved_a_best_model_starts_from_scratch(make_cfg, train):
    cfg = make_cfg(OPTIM__MAX_EPOCH=3, TEST__FINAL_MODEL="best_val")
    train(cfg, stop_at=(1, 0))
    assert os.listdir(f"{cfg.OUTPUT_DIR}/linear") == ["model-best.pth.tar"]
    trainer, out = train(cfg)
    assert "No checkpoint found, train from scratch" in out and len(trainer.lrs) == 3


def test_trap_6_labels_have_no_gaps_so_classes_and_names_agree(image_root):
    class Item:
        def __init__(self, label):
            self.label, self.classname = label, f"c{label}"

    with pytest.raises(ValueError, match="no image of train_x has label 1"):
        DatasetBase(train_x=[Item(0), Item(2)])
    data = DatasetBase(train_x=[Item(1), Item(0)])
    assert data.num_classes == len(data.classnames) == 2


def test_trap_7_zero_is_a_seed():
    draws = []
    for _ in range(2):
        set_random_seed(0)
        draws.append(torch.rand(2))
    assert torch.equal(*draws)


def test_trap_8_accuracy_of_several_k():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    got = compute_accuracy(logits, torch.tensor([0, 2, 2, 1]), topk=(1, 2, 3))
    assert [g.tolist() for g in got] == [[50.0], [75.0], [100.0]]


def test_trap_9_an_empty_output_is_harmless(capsys):
    before = sys.stdout
    setup_logger("")
    assert sys.stdout is before
    print("still open")
    assert capsys.readouterr().out == "still open\n"


def test_trap_9_a_second_run_into_a_folder_appends_to_its_log(tmp_path, capsys):
    for run in ("first", "second"):
        setup_logger(str(tmp_path))
        print(run)
        sys.stdout.close()
    assert os.listdir(tmp_path) == ["log.txt"]
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"


def test_trap_10_load_model_without_epoch_falls_back_to_the_last_step(make_cfg, train, quiet):
    cfg = make_cfg(OPTIM__MAX_EPOCH=11, TRAIN__CHECKPOINT_FREQ=9, TEST__NO_TEST=True)
    trainer, _ = train(cfg)
    with quiet() as out:
        trainer.load_model(cfg.OUTPUT_DIR)
    assert out.getvalue().startswith(
        f"Load {cfg.OUTPUT_DIR}/linear/model.pth.tar-11 to linear (epoch=11,"
    )


def test_trap_10_what_is_missing_and_what_is_there_is_said(make_cfg, train, tmp_path):
    cfg = make_cfg(TRAIN__CHECKPOINT_FREQ=1, TEST__NO_TEST=True)
    trainer, _ = train(cfg)
    with pytest.raises(
        FileNotFoundError, match="No model at .*tar-7 .it holds model.pth.tar-1, model.pth.tar-2"
    ):
        trainer.load_model(cfg.OUTPUT_DIR, epoch=7)
    with pytest.raises(
        FileNotFoundError, match="No model at .*model-best.pth.tar .there is no such folder"
    ):
        trainer.load_model(str(tmp_path / "elsewhere"))
