"""Images that are missing or truncated when they are read: named, or skipped, counted, and left out of the metrics."""

import json

import numpy
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from protocols.command_line import parse_arguments
from protocols.training import main, run
from tests.conftest import base_arguments, make_textures
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.coop import CoOp
from trainers.data import loader as data
from trainers.engine.failed_batch import FILE_NAME

SKIP = ("DATALOADER.BROKEN_IMAGES", "skip")


@pytest.fixture
def root(tmp_path):
    make_textures(tmp_path / "data")
    return tmp_path / "data"


def split_of(root):
    return json.loads((root / "dtd" / "split_zhou_DescribableTextures.json").read_text())


def breaks(path, how):
    """Removes or damages an image file."""
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:-60])


def start(root, backbone, output, *options, trainer="CoOp", flags=()):
    """A run on textures of its own; returns the trainer and the record."""
    finished = run(
        parse_arguments([*base_arguments(trainer, str(root), backbone, output), *flags, *options])
    )
    return finished, json.loads((output / "results.json").read_text())


def break_at_step(monkeypatch, step, path, how):
    """Lets an image break while a training is at that step, counted from 1."""
    original, steps = CoOp.forward_backward, []

    def watched(self, batch):
        steps.append(batch["impath"])
        if len(steps) == step:
            breaks(path(self), how)
        return original(self, batch)

    monkeypatch.setattr(CoOp, "forward_backward", watched)
    return steps


@pytest.mark.parametrize("how, workers", [("missing", "0"), ("cut", "1")])
def test_an_image_that_breaks_in_the_middle_of_an_epoch_ends_the_run_with_its_name(
    refusal, root, monkeypatch, how, workers
):
    """It is read anew in each epoch: nothing is kept decoded."""
    monkeypatch.setattr(data, "DECODED_BYTES", 0)
    broken = []

    def path(trainer):
        broken.append(root / "dtd" / "images" / image_name(trainer.dm.dataset.train_x[0].impath))
        return broken[0]

    steps = break_at_step(monkeypatch, 2, path, how)
    message = refusal("DATALOADER.NUM_WORKERS", workers, trainer="CoOp", root=str(root))
    assert (
        f"image {broken[0]} can't be read" in message
        and "DATALOADER.BROKEN_IMAGES skip goes on without it" in message
    )
    assert 2 <= len(steps) <= 6, "in the first epoch or the second"


@pytest.mark.parametrize("how, workers", [("missing", "1"), ("cut", "0")])
def test_a_run_that_skips_trains_on_and_says_what_it_skipped(
    root, small_clip_file, tmp_path, monkeypatch, how, workers
):
    monkeypatch.setattr(data, "DECODED_BYTES", 0)
    steps = break_at_step(
        monkeypatch,
        2,
        lambda trainer: root / "dtd" / "images" / image_name(trainer.dm.dataset.train_x[0].impath),
        how,
    )
    trainer, record = start(
        root, small_clip_file, tmp_path / "out", *SKIP, "DATALOADER.NUM_WORKERS", workers
    )
    name = image_name(trainer.dm.dataset.train_x[0].impath)
    assert record["skipped_images"] == {"train": [name]} and len(steps) == 9
    assert (tmp_path / "out" / "log.txt").read_text().count(f"{name} of train can't be read") == 1
    last_epoch = [image_name(path) for batch in steps[6:] for path in batch]
    stand_in = image_name(trainer.dm.dataset.train_x[1].impath)
    assert name not in last_epoch and last_epoch.count(stand_in) == 2, (
        "the next one of its class has its place"
    )


def test_what_stands_in_is_the_same_in_every_run_and_every_process(
    root, small_clip_file, tmp_path, monkeypatch
):
    broken = [root / "dtd" / "images" / split_of(root)["train"][index][0] for index in (0, 3)]
    breaks(broken[0], "cut")
    breaks(broken[1], "empty")
    steps, runs = break_at_step(monkeypatch, 0, None, None), []
    for name, workers in (("one", "0"), ("again", "0"), ("two", "2")):
        trainer, record = start(
            root,
            small_clip_file,
            tmp_path / name,
            *SKIP,
            "DATALOADER.NUM_WORKERS",
            workers,
            "DATASET.NUM_SHOTS",
            "8",
        )
        runs.append((trainer.model.learner.ctx, steps[:]))
        assert record["skipped_images"] == {"train": ["banded/00.png", "banded/03.png"]}
        steps.clear()
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert runs[0][1][:6] == runs[2][1][:6], (
        "in the first epoch: workers draw views elsewhere, so the order of the second is another"
    )


def test_skipped_images_are_left_out_of_every_figure_of_a_test(root, small_clip_file, tmp_path):
    """As if the split did not list them: same answers, same metrics; whole batches of them do no harm."""
    whole, split = tmp_path / "whole", split_of(root)
    trainer, _ = start(root, small_clip_file, whole)
    names = [row[0] for row in split["test"]]
    broken = [names[0], *names[3:20]]
    for number, name in enumerate(broken):
        breaks(root / "dtd" / "images" / name, ("missing", "cut", "empty")[number % 3])
    options = ("DATALOADER.TEST.BATCH_SIZE", "4")
    _, record = start(
        root,
        small_clip_file,
        tmp_path / "skipping",
        *SKIP,
        *options,
        flags=("--eval-only", "--model-dir", str(whole)),
    )
    split["test"] = [row for row in split["test"] if row[0] not in broken]
    (root / "dtd" / "split_zhou_DescribableTextures.json").write_text(json.dumps(split))
    _, expected = start(
        root,
        small_clip_file,
        tmp_path / "listed",
        *options,
        flags=("--eval-only", "--model-dir", str(whole)),
    )
    assert record["skipped_images"] == {"test": sorted(broken)} and expected["skipped_images"] == {}
    record, expected = record["metrics"]["test"], expected["metrics"]["test"]
    assert record["images"] == 6 and record["per_class_accuracy"] == expected["per_class_accuracy"]
    assert record["nll"] == pytest.approx(expected["nll"], rel=1e-5) and record[
        "ece"
    ] == pytest.approx(expected["ece"], rel=1e-4)
    answers, wanted = (
        numpy.load(tmp_path / name / "predictions-test.npz") for name in ("skipping", "listed")
    )
    assert all((answers[key] == wanted[key]).all() for key in ("image", "label", "top"))


def test_skipping_changes_nothing_where_no_image_is_broken(run, trained):
    usual, folder = trained("CDC")
    skipping, record, _ = run("CDC", *SKIP)
    assert (
        record["metrics"] == json.loads((folder / "results.json").read_text())["metrics"]
        and record["skipped_images"] == {}
    )
    assert all(
        torch.equal(value, usual.model.learner.state_dict()[key])
        for key, value in skipping.model.learner.state_dict().items()
    )


def test_cdc_starts_from_the_readable_images(root, small_clip_file, tmp_path):
    breaks(root / "dtd" / "images" / split_of(root)["train"][0][0], "cut")
    trainer, record = start(
        root, small_clip_file, tmp_path / "out", *SKIP, "DATASET.NUM_SHOTS", "8", trainer="CDC"
    )
    assert record["skipped_images"] == {"train": ["banded/00.png"]} and torch.isfinite(
        trainer.model.learner.offset
    )


@pytest.mark.parametrize(
    "part, trainer, message",
    [
        ("train", "CoOp", "no training image of the class 'dotted' can be read"),
        ("test", "ZeroshotCLIP", "not one of the test images can be read"),
    ],
)
def test_where_nothing_is_left_to_skip_to_the_run_ends(refusal, root, part, trainer, message):
    for name, label, _ in split_of(root)[part]:
        if part == "test" or label == 1:
            breaks(root / "dtd" / "images" / name, "cut")
    assert message in refusal(*SKIP, trainer=trainer, root=str(root))


def test_the_policy_is_error_or_skip(refusal):
    assert (
        "DATALOADER.BROKEN_IMAGES is 'skp', it takes one of error, skip (did you mean skip?)"
        in refusal("DATALOADER.BROKEN_IMAGES", "skp")
    )


def test_a_run_that_broke_off_goes_on_under_the_other_policy(
    root, small_clip_file, tmp_path, monkeypatch
):
    """A resumed run may have another policy."""
    monkeypatch.setattr(data, "DECODED_BYTES", 0)
    steps = break_at_step(
        monkeypatch,
        5,
        lambda trainer: root / "dtd" / "images" / image_name(trainer.dm.dataset.train_x[0].impath),
        "cut",
    )
    arguments = [
        *base_arguments("CoOp", str(root), small_clip_file, tmp_path / "out"),
        "TRAIN.CHECKPOINT_FREQ",
        "1",
    ]
    assert main(arguments) == 2
    before = len(steps)
    trainer, record = start(
        root, small_clip_file, tmp_path / "out", "TRAIN.CHECKPOINT_FREQ", "1", *SKIP
    )
    assert (
        trainer.start_epoch >= 1
        and len(steps) - before == 3 * (3 - trainer.start_epoch)
        and len(record["skipped_images"]["train"]) == 1
    )


# ---- a loss that is no number ----


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_batch(refusal):
    """The prompts that are saved, on the images that are saved, give that loss again."""
    message = refusal("OPTIM.LR", "1e36", "OPTIM.WARMUP_EPOCH", "-1", trainer="CoOp")
    path = refusal.output / FILE_NAME
    assert f"the loss is nan at step 2 (epoch 1, batch 2): {path} holds the batch" in message
    kept = torch.load(path, weights_only=True)
    assert (kept["epoch"], kept["batch"], kept["step"]) == (1, 2, 2) and numpy.isnan(kept["loss"])
    assert (
        kept["images"].shape == (1, 8, 3, 32, 32)
        and kept["labels"].shape == (8,)
        and kept["learning_rate"] == 1e36
    )
    assert [path.split("/")[-2] for path in kept["paths"]] == [
        ("banded", "dotted", "striped", "woven", "zigzagged", "grid")[label]
        for label in kept["labels"]
    ]
    assert not (refusal.output / "prompt_learner").exists()


@pytest.mark.parametrize("trainer, loss", [("CDC", float("nan")), ("ProGrad", float("inf"))])
def test_the_last_sound_checkpoint_stays_and_the_run_goes_on_from_it(
    run, trained, monkeypatch, trainer, loss
):
    kind = TRAINER_REGISTRY.get(trainer)
    original, options = kind.loss, ("TRAIN.CHECKPOINT_FREQ", "1")
    expected, _ = trained(trainer, *options)

    def spoilt(self, scores, labels):
        total, figures = original(self, scores, labels)
        return (total * loss if (self.epoch, self.batch_idx) == (1, 1) else total), figures

    monkeypatch.setattr(kind, "loss", spoilt)
    with pytest.raises(
        UserError,
        match="at step 5 .epoch 2, batch 2.: .*failed_batch.pt holds the batch and the prompts; lower OPTIM.LR",
    ):
        run(trainer, *options, name="spoilt")
    monkeypatch.setattr(kind, "loss", original)
    resumed, _, _ = run(trainer, *options, name="spoilt")
    assert resumed.start_epoch == 1
    assert all(
        torch.equal(value, expected.model.learner.state_dict()[key])
        for key, value in resumed.model.learner.state_dict().items()
    )
