"""Images that are missing or truncated when they are read: named, or skipped, counted, and left out of the metrics."""

import json
from itertools import count

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from protocols.command_line import parse_arguments
from protocols.training import run
from tests.conftest import base_arguments, make_textures
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.coop import CoOp
from trainers.data import loader as data

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
    """It is read again in each epoch: nothing is kept decoded."""
    monkeypatch.setattr(data, "DECODED_BYTES", 0)
    broken = []

    def path(trainer):
        broken.append(root / "dtd" / "images" / image_name(trainer.dm.dataset.train_x[0].impath))
        return broken[0]

    steps = break_at_step(monkeypatch, 2, path, how)
    message = refusal("DATALOADER.NUM_WORKERS", workers, trainer="CoOp", root=str(root))
    assert f"image {broken[0]} can't be read" in message
    assert 2 <= len(steps) <= 6, "in the first epoch or the second"


def test_the_policy_is_error_or_skip(refusal):
    assert (
        "DATALOADER.BROKEN_IMAGES is 'skp', it takes one of error, skip (did you mean skip?)"
        in refusal("DATALOADER.BROKEN_IMAGES", "skp")
    )


# ---- a loss that is no number ----


def test_a_loss_that_is_no_number_ends_the_run(refusal):
    message = refusal("OPTIM.LR", "1e36", "OPTIM.WARMUP_EPOCH", "-1", trainer="CoOp")
    assert "the loss is nan at step 2 (epoch 1, batch 2): lower OPTIM.LR" in message
    assert not (refusal.output / "prompt_learner").exists()


@pytest.mark.parametrize("trainer, loss", [("CDC", float("nan")), ("ProGrad", float("inf"))])
def test_the_last_sound_checkpoint_stays_and_the_run_goes_on_from_it(
    run, trained, monkeypatch, trainer, loss
):
    kind = TRAINER_REGISTRY.get(trainer).method
    original, options = kind.loss, ("TRAIN.CHECKPOINT_FREQ", "1")
    expected, _ = trained(trainer, *options)
    steps = count(1)

    def spoilt(self, scores, labels):
        total, figures = original(self, scores, labels)
        return (total * loss if next(steps) == 5 else total), figures

    monkeypatch.setattr(kind, "loss", spoilt)
    with pytest.raises(
        UserError,
        match="at step 5 .epoch 2, batch 2.: lower OPTIM.LR",
    ):
        run(trainer, *options, name="spoilt")
    monkeypatch.setattr(kind, "loss", original)
    resumed, _, _ = run(trainer, *options, name="spoilt")
    assert resumed.start_epoch == 1
    assert all(
        torch.equal(value, expected.model.learner.state_dict()[key])
        for key, value in resumed.model.learner.state_dict().items()
    )
