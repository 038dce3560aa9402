"""Generated from the trainer registry: what must hold for every trainer that is registered."""

import json
from pathlib import Path
from unittest import mock

import dassl
import numpy
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from protocols.training import main
from tests.conftest import base_arguments, in_turn, trainer_node
from trainers import config_function
from trainers.common.metrics import read_metrics
from trainers.engine.checkpoint import MODEL_NAME
from trainers.evaluation.run_record import versions
from trainers.trainer import MethodTrainer

TRAINERS = [
    name
    for name in TRAINER_REGISTRY.registered_names()
    if issubclass(TRAINER_REGISTRY.get(name), MethodTrainer)
]
LEARNING = [name for name in TRAINERS if TRAINER_REGISTRY.get(name).method.learns]
TEXT_ONLY = {
    name: tuple(
        word
        for key, value in settings.items()
        for word in (f"TRAINER.{name.upper()}.{key}", str(value))
    )
    for name in TRAINERS
    if (settings := TRAINER_REGISTRY.get(name).method.text_only)
}  # options with which it leaves the image encoder alone
IMAGE_ONLY = [name for name in TRAINERS if TRAINER_REGISTRY.get(name).method.text_only is None]
PROMPTS_NO_TEXT = [
    name for name in TRAINERS if "TEXT_CHUNK" not in trainer_node(config_function(name))
]
BASE, NEW = ("DATASET.SUBSAMPLE_CLASSES", "base"), ("DATASET.SUBSAMPLE_CLASSES", "new")


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.learner.state_dict().items()}


def record_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_it_trains_on_base_and_is_tested_on_new(run, trained, name):
    folder = trained(name, *BASE)[1]
    base = record_of(folder)
    tester, new, _ = run(name, *NEW, name="test", flags=("--eval-only", "--model-dir", str(folder)))
    assert base["classes"] == "base" and new["classes"] == "new"
    assert set(base["metrics"]["test"]["per_class_accuracy"]) == {"banded", "dotted", "striped"}
    assert set(new["metrics"]["test"]["per_class_accuracy"]) == {"woven", "zigzagged", "grid"}
    assert new["metrics"]["test"]["images"] == 12
    assert new["prompts_hash"] == base["prompts_hash"] and (name in LEARNING) == (
        new["prompts_hash"] is not None
    )
    if name in LEARNING:
        trained = torch.load(folder / MODEL_NAME / "model.pth.tar-3", weights_only=True)[
            "state_dict"
        ]
        assert all(torch.equal(value, trained[key]) for key, value in weights(tester).items())


@pytest.mark.parametrize("name", in_turn(LEARNING))
def test_training_changes_every_learnable_parameter_and_nothing_of_clip(run, trained, name):
    untrained, trainer = run(name, flags=("--no-train",))[0], trained(name)[0]
    before, changed = weights(untrained), weights(trainer)
    for key, _ in trainer.model.learner.named_parameters():
        assert not torch.equal(before[key], changed[key]), key
    frozen = untrained.model.backbone.state_dict()
    assert all(
        torch.equal(value, frozen[key])
        for key, value in trainer.model.backbone.state_dict().items()
    )


@pytest.mark.parametrize("name", in_turn(name for name in LEARNING if name not in PROMPTS_NO_TEXT))
def test_encoding_a_few_classes_at_a_time_trains_the_same(run, trained, name):
    whole, folder = trained(name)
    chunked, again, _ = run(name, f"TRAINER.{name.upper()}.TEXT_CHUNK", "2")
    for key, value in whole.model.learner.named_parameters():
        torch.testing.assert_close(weights(chunked)[key], value, rtol=1e-4, atol=1e-5, msg=key)
    found, expected = (of["metrics"]["test"] for of in (again, record_of(folder)))
    # CDC's templates' own: its image witness makes no mistake here, so that its NLL is next to 0
    figure = "mean_probability_nll" if "mean_probability_nll" in found else "nll"
    assert found[figure] == pytest.approx(expected[figure], rel=1e-4)


@pytest.mark.parametrize("name", in_turn(LEARNING))
def test_a_checkpoint_holds_prompts_only_and_loads_without_executing_anything(trained, name):
    trainer, folder = trained(name)
    record = record_of(folder)
    state = torch.load(folder / MODEL_NAME / "model.pth.tar-3", weights_only=True)["state_dict"]
    learned = [n for n, value in trainer.model.learner.named_parameters() if value.requires_grad]
    held = sum(state[name].numel() for name in learned)
    assert set(state) == set(trainer.model.learner.state_dict())
    assert held == record["parameters"]["learnable"]
    assert (folder / MODEL_NAME / "checkpoint").read_text() == "model.pth.tar-3\n"
    assert not list(folder.rglob("*.tmp"))


def test_metrics_have_a_line_each_few_steps(run):
    folder = run("CDC", "TRAIN.PRINT_FREQ", "2")[2]
    assert [(line["epoch"], line["batch"]) for line in read_metrics(folder)] == [
        (epoch, batch) for epoch in (1, 2, 3) for batch in (2, 3)
    ]
    assert read_metrics(folder)[-1]["eta"] == 0 and read_metrics(folder)[0]["eta"] > 0
    assert [line["lr"] for line in read_metrics(folder)[::2]] == pytest.approx(
        [1e-5, 0.02, 0.015]
    ), "as in the log: the rate the steps were made at"


def spread(logits):
    """What tells images and classes apart: logits (M, B, K) without the part that all images share."""
    return (logits - logits.mean(dim=1, keepdim=True)).flatten()


@pytest.mark.parametrize("precision, tolerance", [("amp", 0.2), ("fp16", 0.03)])
@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_every_precision_trains_and_stays_near_fp32(
    run, trained, name, precision, tolerance, monkeypatch
):
    monkeypatch.setattr("trainers.engine.precision.SLOW_IN_FP16", ())
    reference = trained(name)[0]
    trainer, record, _ = run(
        name, f"TRAINER.{name.upper()}.PREC", precision, "OPTIM.MAX_EPOCH", "1"
    )
    assert trainer.model.backbone.text.text_projection.dtype == (
        torch.float16 if precision == "fp16" and not trainer.model.stays_fp32 else torch.float32
    )
    assert record["precision"] == trainer.model.precision
    assert record["metrics"]["test"]["images"] == 24
    if name in LEARNING:
        trainer.model.learner.load_state_dict(reference.model.learner.state_dict())
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    with torch.no_grad():
        logits = []
        for each in (trainer, reference):
            logits.append(each.model(images).logits)
    assert logits[0].dtype == torch.float32
    ours, exact = map(spread, logits)
    assert exact.std() > 0.1, "images must differ for this test to mean anything"
    assert (ours - exact).norm() / exact.norm() < tolerance


def test_float16_autocast_with_a_loss_scaler_trains_and_resumes(run, trained, stopped, monkeypatch):
    """What ``amp`` does on a GPU without bfloat16, forced here; a run started without a scaler goes on with one."""
    options = ("TRAINER.COOP.PREC", "amp", "TRAIN.CHECKPOINT_FREQ", "1")
    stopped(trained("CoOp", *options)[1], epoch=1)
    monkeypatch.setattr("trainers.method.autocast_dtype", lambda *_: torch.float16)
    resumed, record, folder = run("CoOp", *options)
    assert resumed.start_epoch == 1 and record["metrics"]["test"]["images"] == 24
    last = torch.load(folder / MODEL_NAME / "model.pth.tar-3", weights_only=True)
    assert last["scaler"]["scale"] > 0
    assert all(torch.isfinite(value).all() for value in weights(resumed).values())


@pytest.mark.parametrize("name", in_turn(LEARNING, always=("CDC",)))
def test_the_same_seed_gives_the_same_run_with_workers(run, name):
    options = ("DATALOADER.NUM_WORKERS", "2", "OPTIM.MAX_EPOCH", "2")
    first, second = (run(name, *options, name=folder)[0] for folder in ("first", "second"))
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())


def test_a_run_resumed_from_another_folder_keeps_the_best_epoch_so_far(run, trained, stopped):
    """A training that goes on from another folder has that folder's best epoch at the end, if none beats it."""
    options = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1")
    folder = stopped(trained("CoOp", *options)[1], epoch=2, name="first")
    best = torch.load(folder / MODEL_NAME / "model-best.pth.tar", weights_only=True)
    state = torch.load(folder / MODEL_NAME / "model.pth.tar-2", weights_only=True)
    torch.save({**state, "best_result": 100.0}, folder / MODEL_NAME / "model.pth.tar-2")
    trainer, _, _ = run("CoOp", *options, name="second", flags=("--resume", str(folder)))
    assert trainer.start_epoch == 2
    assert torch.equal(trainer.model.learner.ctx, best["state_dict"]["ctx"])


@pytest.mark.parametrize("name", in_turn(name for name in TRAINERS if name not in IMAGE_ONLY))
def test_a_resnet_serves_where_only_texts_are_prompted(run, small_resnet_file, name):
    _, record, _ = run(name, *TEXT_ONLY.get(name, ()), flags=("--backbone", small_resnet_file))
    assert record["metrics"]["test"]["images"] == 24


@pytest.mark.parametrize("name", [*TEXT_ONLY, *IMAGE_ONLY])
def test_a_resnet_is_refused_where_images_are_prompted(
    name, capsys, data_root, small_resnet_file, tmp_path
):
    assert main(base_arguments(name, data_root, small_resnet_file, tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "prompts the image encoder, and the backbone is a ResNet: " in error
        and name.lower() in error.lower()
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_text_is_encoded_once_a_test(run, name, monkeypatch):
    """And once a batch where it depends on the image; hand-crafted text once a run, so not again for a second test."""
    trainer, _, _ = run(name, flags=("--no-train",))
    trainer.test()
    encoder, calls = trainer.model.backbone.text, []
    forward = encoder.forward
    monkeypatch.setattr(
        encoder, "forward", lambda *arguments: calls.append(1) or forward(*arguments)
    )
    trainer.test()
    batches = len(trainer.test_loader)
    expected = 0 if name in PROMPTS_NO_TEXT else batches if name == "CoCoOp" else 1
    assert batches > 1 and len(calls) == expected


@pytest.mark.parametrize("name", in_turn(LEARNING))
def test_prompts_of_another_trainer_backbone_or_shape_are_refused(
    trained, name, capsys, data_root, small_clip_file, tmp_path
):
    folder = trained(name)[1]

    def refused(trainer, *options, backbone=small_clip_file):
        arguments = base_arguments(trainer, data_root, backbone, tmp_path / "other")
        assert main([*arguments, "--eval-only", "--model-dir", str(folder), *options]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    other = next(trainer for trainer in LEARNING if trainer != name)
    assert f"was trained by {name}, this is {other}" in refused(other)
    shape_setting = TRAINER_REGISTRY.get(name).method.shape_setting
    if shape_setting is not None:
        assert "holds prompts of another shape" in refused(
            name, f"TRAINER.{name.upper()}.{shape_setting}", "7"
        )
    state = torch.load(small_clip_file, weights_only=True)
    torch.save(state, tmp_path / "elsewhere.pt")
    arguments = base_arguments(name, data_root, str(tmp_path / "elsewhere.pt"), tmp_path / "same")
    assert main([*arguments, "--eval-only", "--model-dir", str(folder)]) == 0, (
        "the same weights in another place are the same backbone"
    )
    torch.save({**state, "text_projection": state["text_projection"] * 2}, tmp_path / "other.pt")
    assert "was trained for the backbone" in refused(name, backbone=str(tmp_path / "other.pt"))


def test_class_specific_contexts_are_refused_on_other_classes(
    trained, capsys, data_root, small_clip_file, tmp_path
):
    folder = trained("CoOp", "TRAINER.COOP.CSC", "True", *BASE)[1]
    arguments = base_arguments("CoOp", data_root, small_clip_file, tmp_path / "other")
    assert (
        main(
            [
                *arguments,
                "--eval-only",
                "--model-dir",
                str(folder),
                "TRAINER.COOP.CSC",
                "True",
                *NEW,
            ]
        )
        == 2
    )
    assert "class-specific contexts of 3 other classes" in capsys.readouterr().err


def test_best_val_deploys_the_best_epoch(trained):
    trainer, folder = trained(
        "CoOp", "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "4", "TRAIN.CHECKPOINT_FREQ", "1"
    )
    best = torch.load(folder / MODEL_NAME / "model-best.pth.tar", weights_only=True)
    assert best["val_result"] == trainer.best_result
    assert torch.equal(best["state_dict"]["ctx"], trainer.model.learner.ctx)
    assert (folder / MODEL_NAME / "checkpoint").read_text() == "model.pth.tar-4\n"


def test_a_run_is_not_done_while_it_is_being_redone(run, monkeypatch):
    _, _, folder = run("CoOp")
    assert (folder / "results.json").exists()

    def stop(self):
        assert not (folder / "results.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(TRAINER_REGISTRY.get("CoOp"), "after_train", stop)
    (folder / MODEL_NAME / "checkpoint").unlink()
    with pytest.raises(KeyboardInterrupt):
        run("CoOp")
    assert not (folder / "results.json").exists()


def test_seed_0_is_a_seed_and_seeds_differ(run, trained):
    first, record, _ = run("CoOp", name="a", seed=0)
    again, _, _ = run("CoOp", name="b", seed=0)
    other, _ = trained("CoOp")  # of seed 1
    assert record["seed"] == 0
    assert torch.equal(first.model.learner.ctx, again.model.learner.ctx)
    assert not torch.equal(first.model.learner.ctx, other.model.learner.ctx)


def test_the_record_says_what_was_run(trained):
    trainer, folder = trained("CDC")
    record = record_of(folder)
    assert (record["trainer"], record["dataset"], record["seed"], record["shots"]) == (
        "CDC",
        "DescribableTextures",
        1,
        4,
    )
    assert record["parameters"]["learnable"] == sum(
        p.numel() for p in trainer.model.learner.parameters()
    )
    assert record["parameters"]["total"] > record["parameters"]["learnable"] + 49408 * 128
    assert record["config"]["TRAINER"]["CDC"]["N_TEMPLATES"] == 4
    assert record["seconds"]["train"] > 0 and record["versions"]["torch"] == torch.__version__
    assert record["versions"]["which dassl"] == "lite"
    with mock.patch.object(dassl, "is_lite", False):  # which the real one has not
        assert versions()["which dassl"] == "real"
    metrics = record["metrics"]["test"]
    assert len(metrics["template_accuracy"]) == 4 and 0 < metrics["mean_vacuity"] <= 1
    assert {"ece", "nll", "mean_probability_ece", "mean_probability_nll", "macro_f1"} <= set(
        metrics
    )
    assert set(metrics["uncertainty"]) == {"max_probability", "energy", "vacuity", "conflict"}
    kept = numpy.load(folder / "predictions-test.npz", allow_pickle=False)
    assert 100 * (kept["top"][:, 0] == kept["label"]).mean() == pytest.approx(metrics["accuracy"])
    assert kept["vacuity"].mean() == pytest.approx(metrics["mean_vacuity"], rel=1e-5)
    assert [
        f"{item.classname}/{Path(item.impath).name}" for item in trainer.dm.dataset.test
    ] == kept["image"].tolist()
    log = (folder / "log.txt").read_text()
    accuracy = log.split("=> result")[-1].split("* accuracy: ")[1].split("%")[0]
    assert float(accuracy) == pytest.approx(metrics["accuracy"], abs=0.051)
    assert json.loads((folder / "results.json").read_text()) == record


def test_without_a_test_the_run_is_still_recorded(run):
    _, record, _ = run("CoOp", "TEST.NO_TEST", "True")
    assert record["metrics"] == {}
