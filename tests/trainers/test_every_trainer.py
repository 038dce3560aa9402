"""Generated from the trainer registry: what must hold for every trainer that is registered."""

import shutil
import weakref

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from tests.conftest import (
    BASE,
    FEW,
    GOLDEN,
    IN_EPOCHS,
    LEARNING,
    METHOD_OF,
    NEW,
    TRAINERS,
    slow_but_for,
)
from tests.methods import shape_setting_of
from tests.pretended_gpu import as_on_a_gpu, pretended_gpu
from tests.runs import call, change_split, make_textures, prompts_of, record_of, words_of
from tests.same_run import assert_equal, assert_near_run, kept_answers
from train import main
from trainers.common.metrics import read_metrics
from trainers.data.loader import Pairs
from trainers.engine.checkpoint import MODEL_NAME, newest

FIGURES = GOLDEN["figures"]
IMAGE_ONLY = [name for name in TRAINERS if METHOD_OF[name].text_only is None]
BEST_VAL = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1")
CSC = ("TRAINER.COOP.CSC", "True")
# two steps an epoch, and two batches of test images
SMALL = (*BASE, "DATALOADER.TRAIN_X.BATCH_SIZE", "6", "DATALOADER.TEST.BATCH_SIZE", "8")


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.learner.state_dict().items()}


def saved(folder, name=""):
    """A checkpoint of a run, by default the last."""
    folder = folder / MODEL_NAME
    return torch.load(folder / (name or newest(folder)), weights_only=True)


@pytest.fixture(scope="module", params=TRAINERS)
def of_each(request, just_trained):
    """A trainer's name, and its object and folder after a run on the base classes."""
    with as_on_a_gpu():
        return request.param, *just_trained(request.param, *SMALL)


def test_it_trains_on_base_and_is_tested_on_new(run, of_each):
    name, _, folder = of_each
    base = record_of(folder)
    tester, new, _ = run(name, *NEW, name="test", flags=prompts_of(folder))
    assert set(base["metrics"]["test"]["per_class_accuracy"]) == {"banded", "dotted", "striped"}
    assert set(new["metrics"]["test"]["per_class_accuracy"]) == {"woven", "zigzagged", "grid"}
    assert new["prompts_hash"] == base["prompts_hash"]
    assert (name in LEARNING) == (new["prompts_hash"] is not None)
    if name in LEARNING:
        state = saved(folder)["state_dict"]
        for key, value in weights(tester).items():
            assert torch.equal(value, state[key])


def test_training_changes_all_that_is_learned_and_saved_and_nothing_of_clip(run, of_each):
    name, trainer, folder = of_each
    untrained = run(name, *SMALL, flags=("--no-train",))[0]
    frozen, clip = (each.model.backbone.state_dict() for each in (untrained, trainer))
    torch.testing.assert_close(clip, frozen, rtol=0, atol=0)
    if name in LEARNING:
        before, after, state = weights(untrained), weights(trainer), saved(folder)["state_dict"]
        parameters = trainer.model.learner.named_parameters()
        learned = [key for key, value in parameters if value.requires_grad]
        assert not any(torch.equal(before[key], after[key]) for key in learned)
        assert state.keys() == after.keys()
        numbers = [state[key].numel() for key in learned]
        assert record_of(folder)["parameters"]["learnable"] == sum(numbers)
        last = 3 if name in IN_EPOCHS else 1
        assert newest(folder / MODEL_NAME) == f"model.pth.tar-{last}"


@slow_but_for((*FEW, "TipAdapterF"), TRAINERS, "of_each", indirect=True)
def test_on_a_gpu_it_is_the_same_run(run, of_each):
    """On one that is pretended: what meets on it is on it."""
    name, _, folder = of_each
    with pretended_gpu():
        trainer, record, _ = run(name, *SMALL)
        assert trainer.model.device.type == "cuda"
        assert all(value.is_cuda for value in trainer.model.state_dict().values())
    assert record["device"] == "cuda:0"
    assert_near_run(record, record_of(folder))


def test_text_is_encoded_once_a_test(of_each, monkeypatch):
    """And once a batch where it depends on the image; hand-crafted text once a run, so not again
    for a second test."""
    name, trainer, _ = of_each
    encoder, calls = trainer.model.backbone.text, []
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda *parts: calls.append(1) or forward(*parts))
    with as_on_a_gpu():  # the run keeps these answers, which other tests look at
        trainer.test()
    assert len(trainer.test_loader) == 2
    if METHOD_OF[name].prompts_texts:
        assert len(calls) == (2 if name == "CoCoOp" else 1)
    else:
        assert not calls


@slow_but_for(FEW, TRAINERS)
def test_what_it_says_of_validation_images_is_what_a_test_on_them_says(run, trained, name):
    folder = trained(name)
    _, tested, again = run(name, "TEST.SPLIT", "val", flags=prompts_of(folder))
    assert_equal(kept_answers(folder, "val"), kept_answers(again, "val"), "answers")
    assert set(record_of(folder)["metrics"]) == {"test"}
    assert set(tested["metrics"]) == {"val"}


def test_no_validation_answers_are_kept_where_val_is_missing_or_the_test_or_nothing_is_tested(
    run, tmp_path
):
    few = ("OPTIM.MAX_EPOCH", "1")
    _, record, folder = run("CoOp", *few, "TEST.NO_TEST", "True", name="untested")
    assert not list(folder.glob("predictions-*"))
    assert record["metrics"] == {}
    make_textures(tmp_path)
    for val in ([], change_split(tmp_path)["test"]):
        change_split(tmp_path, val=val)
        name = f"val of {len(val)}"
        _, _, folder = run("CoOp", *few, "DATASET.ROOT", str(tmp_path), name=name)
        assert [path.name for path in folder.glob("predictions-*")] == ["predictions-test.npz"]


@pytest.mark.parametrize("name", FIGURES["figures"])
def test_a_run_measures_and_records_what_it_did(trained, name):
    """A change of its figures is a change of what users measure, and wants a reason."""
    record = record_of(trained(name))
    measured = record["metrics"]["test"]
    assert sorted(record) == FIGURES["record"]
    assert sorted(measured) == sorted(FIGURES["metrics"] + FIGURES["further_metrics"].get(name, []))
    known = FIGURES["figures"][name]
    assert {key: measured[key] for key in known} == pytest.approx(known, rel=1e-3)


@slow_but_for(FEW, TRAINERS)
def test_a_trainer_that_is_let_go_leaves_the_memory_with_its_clip(run, name):
    """At once, without the garbage collector, which looks for cycles ever more rarely."""
    trainer, _, _ = run(name, *SMALL)
    backbone = weakref.ref(trainer.model.backbone)
    del trainer
    assert backbone() is None


def test_metrics_have_a_line_each_few_steps(run):
    lines = read_metrics(run("CDC", "TRAIN.PRINT_FREQ", "2")[2])
    steps = [(epoch, batch) for epoch in (1, 2, 3) for batch in (2, 3)]
    assert [(line["epoch"], line["batch"]) for line in lines] == steps
    assert lines[-1]["eta"] == 0
    rates = [line["lr"] for line in lines[::2]]
    assert rates == pytest.approx([1e-5, 0.02, 0.015])  # that the steps were made at


def spread(logits):
    """What tells images and classes apart: logits (M, B, K) without the part that all images share."""
    return (logits - logits.mean(dim=1, keepdim=True)).flatten()


@pytest.mark.parametrize("precision, tolerance", [("amp", 0.2), ("fp16", 0.03)])
@slow_but_for(("CDC", "CoOp"), TRAINERS)
def test_every_precision_trains_and_stays_near_fp32(
    run, just_trained, name, precision, tolerance, fp16_anywhere
):
    reference, options = just_trained(name, *SMALL)[0], (f"TRAINER.{name.upper()}.PREC", precision)
    trainer, record, _ = run(name, *options, *SMALL, "OPTIM.MAX_EPOCH", "1")
    is_half = precision == "fp16" and not trainer.model.official_precision.stays_fp32
    half = torch.float16 if is_half else torch.float32
    assert trainer.model.backbone.text.text_projection.dtype == half
    assert record["precision"] == trainer.model.towers.precision
    if name in LEARNING:
        trainer.model.learner.load_state_dict(reference.model.learner.state_dict())
    images, _ = next(iter(Pairs(trainer.test_loader)))
    with torch.no_grad():
        logits = [each.model(images).logits for each in (trainer, reference)]
    assert logits[0].dtype == torch.float32
    ours, exact = map(spread, logits)
    assert exact.std() > 0.1  # images differ
    assert (ours - exact).norm() / exact.norm() < tolerance


def test_float16_autocast_with_a_loss_scaler_trains_and_resumes(run, trained, stopped, monkeypatch):
    """What ``amp`` does on a GPU without bfloat16, forced here; a run started without a scaler goes
    on with one."""
    options = ("TRAINER.COOP.PREC", "amp", "TRAIN.CHECKPOINT_FREQ", "1")
    stopped(trained("CoOp", *options), epoch=1)
    monkeypatch.setattr("trainers.prompting.towers.autocast_dtype", lambda *_: torch.float16)
    resumed, _, folder = run("CoOp", *options)
    assert resumed.start_epoch == 1
    assert saved(folder)["scaler"]["scale"] > 0
    assert all(torch.isfinite(value).all() for value in weights(resumed).values())


def test_a_run_resumed_from_another_folder_keeps_the_best_epoch_so_far(run, trained, stopped):
    """A training that goes on from another folder has that folder's best epoch at the end, if none
    beats it."""
    folder = stopped(trained("CoOp", *BEST_VAL), epoch=2, name="first")
    best, state = saved(folder, "model-best.pth.tar"), saved(folder, "model.pth.tar-2")
    torch.save({**state, "best_result": 100.0}, f"{folder}/{MODEL_NAME}/model.pth.tar-2")
    trainer, _, _ = run("CoOp", *BEST_VAL, name="second", flags=("--resume", str(folder)))
    assert trainer.start_epoch == 2
    assert torch.equal(trainer.model.learner.ctx, best["state_dict"]["ctx"])


@slow_but_for(FEW, [name for name in TRAINERS if name not in IMAGE_ONLY])
def test_a_resnet_serves_where_only_texts_are_prompted(run, small_resnet_file, name):
    options = words_of(name, METHOD_OF[name].text_only)
    _, record, _ = run(name, *options, *SMALL, flags=("--backbone", small_resnet_file))
    assert record["metrics"]["test"]["images"] == 12


@slow_but_for(FEW, LEARNING)
def test_prompts_of_another_trainer_backbone_or_shape_are_refused(
    trained, name, error_of, arguments, small_clip_file, tmp_path
):
    folder, state = trained(name), torch.load(small_clip_file, weights_only=True)

    def refused(trainer, *options):
        return error_of(main, *arguments(trainer, *prompts_of(folder), *options))

    other = next(trainer for trainer in LEARNING if trainer != name)
    assert f"was trained by {name}, this is {other}" in refused(other)
    shape_setting = shape_setting_of(name)
    if shape_setting is not None:
        line = refused(name, f"TRAINER.{name.upper()}.{shape_setting}", "7")
        assert "holds prompts of another shape" in line
    backbone = "--backbone", tmp_path / "other.pt"
    torch.save({**state, "text_projection": state["text_projection"] * 2}, backbone[1])
    assert "was trained for the backbone" in refused(name, *backbone)
    torch.save(state, backbone[1])  # the same weights are the same backbone
    assert call(main, *arguments(name, *prompts_of(folder), *backbone)) == 0


def test_class_specific_contexts_are_refused_on_other_classes(trained, refusal):
    line = refusal(*prompts_of(trained("CoOp", *CSC, *BASE)), *CSC, *NEW, trainer="CoOp")
    assert (
        "was trained for 3 other classes: it can only be tested on those, since its contexts are class-specific"
        in line
    )


def test_best_val_deploys_the_best_epoch_and_keeps_its_answers(just_trained, loaded):
    options = (*BEST_VAL, "OPTIM.MAX_EPOCH", "4", "OPTIM.LR", "2.0")
    trainer, folder = just_trained("CoOp", *options)
    best = saved(folder, "model-best.pth.tar")
    assert best["epoch"] < 4
    assert best["val_result"] == trainer.run.best_result
    for model in (trainer.model, loaded("CoOp", *options).method):
        assert torch.equal(best["state_dict"]["ctx"], model.learner.ctx)
    kept = kept_answers(folder, "val")
    right = (kept["top"][:, 0] == kept["label"]).mean()
    assert 100 * right == pytest.approx(best["val_result"])


def test_a_run_is_not_done_while_it_is_being_redone(run, copied, monkeypatch):
    folder = copied("CoOp")

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TRAINER_REGISTRY.get("CoOp"), "after_train", stop)
    shutil.rmtree(folder / MODEL_NAME)
    with pytest.raises(KeyboardInterrupt):
        run("CoOp")
    assert not (folder / "results.json").exists()


def test_seed_0_is_a_seed_and_seeds_differ(run, trained):
    first, again = (run("CoOp", name=name, seed=0)[1] for name in "ab")
    assert first["seed"] == 0
    assert first["prompts_hash"] == again["prompts_hash"]
    assert first["prompts_hash"] != record_of(trained("CoOp"))["prompts_hash"]  # of seed 1


def test_the_record_says_what_was_run(just_trained):
    trainer, folder = just_trained("CDC")
    record, kept = record_of(folder), kept_answers(folder, "test")
    facts = {"trainer": "CDC", "dataset": "DescribableTextures", "seed": 1, "shots": 4}
    assert facts.items() <= record.items()
    learnable, total = record["parameters"].values()
    assert total == learnable + sum(p.numel() for p in trainer.model.backbone.parameters())
    assert record["config"]["TRAINER"]["CDC"]["N_TEMPLATES"] == 4
    assert {"torch": torch.__version__, "which dassl": "lite"}.items() <= record["versions"].items()
    for name in ("texts_to_clip", "texts_between", "images_to_clip", "images_deviations"):
        assert record["learned"][f"{name}_before"] != record["learned"][f"{name}_after"]
    accuracy = record["metrics"]["test"]["accuracy"]
    assert 100 * (kept["top"][:, 0] == kept["label"]).mean() == pytest.approx(accuracy)
    assert f"* accuracy: {accuracy:.1f}%" in (folder / "log.txt").read_text()
