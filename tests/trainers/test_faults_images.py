"""Images that are missing or truncated when they are read, and numbers that are none: named, and what
was trained before stays."""

import math
import re
from itertools import count
from multiprocessing import active_children

import pytest
import torch

import predict
from tests.runs import make_textures, prompts_of, refuses
from tests.same_run import assert_equal
from trainers.coop import CoOpMethod
from trainers.data import kept
from trainers.engine import fit as loop


@pytest.fixture
def root(tmp_path):
    make_textures(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("how, workers", [("missing", "0"), ("cut", "1")])
def test_an_image_that_breaks_in_the_middle_of_an_epoch_ends_the_run_with_its_name(
    refusal, root, monkeypatch, how, workers
):
    """All images break: they are read again in each epoch, as nothing is kept decoded."""
    monkeypatch.setattr(kept, "DECODED_BYTES", 0)
    original = loop.training_step
    steps = []

    def watched(*given):
        steps.append(given)
        if len(steps) == 2:
            for image in root.rglob("*.png"):
                image.write_bytes(image.read_bytes()[:-60])
                if how == "missing":
                    image.unlink()
        return original(*given)

    monkeypatch.setattr(loop, "training_step", watched)
    others = {child.pid for child in active_children()}
    message = refusal("DATALOADER.NUM_WORKERS", workers, trainer="CoOp", root=root)
    assert re.search(rf"image {root}/dtd/images/\S+\.png can't be read", message)
    assert 2 <= len(steps) <= 6, "in the first epoch or the second"
    assert {child.pid for child in active_children()} <= others, "a worker would keep the process"


# ---- what is no number ----


def test_the_last_sound_checkpoint_stays_and_the_run_goes_on_from_it(
    run, just_trained, monkeypatch
):
    options = ("TRAIN.CHECKPOINT_FREQ", "1")
    expected, _ = just_trained("CoOp", *options)
    original = CoOpMethod.loss
    steps = count(1)

    def spoilt(self, scores, labels):
        total, figures = original(self, scores, labels)
        return (total * math.inf if next(steps) == 5 else total), figures

    with monkeypatch.context() as patched:
        patched.setattr(CoOpMethod, "loss", spoilt)
        with refuses("at step 5 .epoch 2, batch 2.: lower OPTIM.LR"):
            run("CoOp", *options, name="spoilt")
    resumed, _, _ = run("CoOp", *options, name="spoilt")
    assert resumed.start_epoch == 1
    states = [each.model.learner.state_dict() for each in (resumed, expected)]
    assert_equal(*states, "learner")


def test_what_is_no_number_is_never_an_answer(
    refusal, trained, stock_vit, data_root, tmp_path, error_of
):
    state = {name: value.clone() for name, value in stock_vit.state_dict().items()}
    state["visual.proj"][0, 0] = float("nan")
    path = f"{tmp_path}/broken.pt"
    torch.save(state, path)
    message = "are not numbers (NaN or infinite)"
    assert message in refusal(trainer="ZeroshotCLIP", backbone=path)
    folder = trained("CDC")
    assert message in refusal(*prompts_of(folder), backbone=path)
    words = "--run", folder, "--backbone", path, "--json", f"{data_root}/dtd/images/woven"
    assert message in error_of(predict.main, *words)
    assert error_of.printed == ""
