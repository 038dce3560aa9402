"""``--refit``: what learns in epochs is tested on a part of one's own images, then trained on all."""

import pytest
import torch

from labelling import PromptedClassifier
from labelling.threshold import read_validation
from tests.runs import make_pictures, record_of
from trainers.common.errors import UserError

NAMES = ("red square", "blue quokka")
ONE_EPOCH = {"OPTIM.MAX_EPOCH": 1, "DATALOADER.NUM_WORKERS": 0}
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def shapes(tmp_path):
    return make_pictures(tmp_path / "shapes", names=NAMES, count=10)


def fit(shapes, folder, trainer, **more):
    return PromptedClassifier.fit(
        shapes, trainer=trainer, backbone="tiny", folder=folder, settings=ONE_EPOCH, **more
    )


def test_all_images_are_trained_on_and_each_number_says_which_training_it_is_of(shapes, tmp_path):
    run = tmp_path / "run"
    refitted = fit(shapes, run, "CDC", refit=True)
    tested = PromptedClassifier.load(run)
    assert len(tested.trained_on.files) < 20
    assert len(refitted.trained_on.files) == 20  # pictures are numbered by their bytes
    reliability = "evidence.reliability"
    known = tested.method.learned.state_dict()[reliability]
    assert torch.equal(refitted.method.learned.state_dict()[reliability], known)
    assert record_of(run)["prompts_hash"] != record_of(run / "refit")["prompts_hash"]
    for folder in (run, run / "refit"):
        assert "is trained on all 20" in record_of(folder)["notes"][-1]
    assert record_of(run / "refit")["metrics"] == {}


def test_a_refit_repeats_to_the_bit_and_leaves_the_tested_run_as_it_is_without(shapes, tmp_path):
    first = fit(shapes, tmp_path / "one", "CoOp", refit=True)
    again = fit(shapes, tmp_path / "one", "CoOp", refit=True)
    plain = fit(shapes, tmp_path / "two", "CoOp")
    assert first.method.prompts_hash() == again.method.prompts_hash()
    assert record_of(tmp_path / "one")["prompts_hash"] == plain.method.prompts_hash()


def test_a_refit_promises_nothing_and_names_the_run_that_does(shapes, tmp_path):
    fit(shapes, tmp_path / "run", "CoOp", refit=True)
    with pytest.raises(UserError, match=f"label with that, {tmp_path / 'run'}$"):
        read_validation(str(tmp_path / "run" / "refit"))


@pytest.mark.parametrize("trainer", ["GDA", "ZeroshotCLIP"])
def test_what_has_all_images_already_is_refused(shapes, tmp_path, trainer):
    with pytest.raises(UserError, match=f"{trainer} uses all images already"):
        fit(shapes, tmp_path / "run", trainer, refit=True)


def test_a_sample_and_the_choice_of_an_epoch_are_refused(shapes, tmp_path):
    with pytest.raises(UserError, match="--shots 2"):
        fit(shapes, tmp_path / "run", "CoOp", refit=True, shots=2)
    settings = {**ONE_EPOCH, "TEST.FINAL_MODEL": "best_val"}
    with pytest.raises(UserError, match="best_val"):
        PromptedClassifier.fit(
            shapes,
            trainer="CoOp",
            backbone="tiny",
            folder=tmp_path / "run",
            settings=settings,
            refit=True,
        )
