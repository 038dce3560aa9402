"""CDC's trainings: views, phrases, and what is kept with the prompts; its formulas are in formulas.py
and test_cdc_evidence.py."""

import pytest
import torch
import torchvision.transforms as T

from tests.conftest import make_method
from trainers.data.loader import Pairs
from trainers.prompting.prompts import INIT_STD

TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")


@pytest.mark.parametrize(
    "decoupled, limit", [("deviations", "below 1.85"), ("features", "below 0.00667")]
)
def test_weights_under_which_templates_collapse_are_named_in_a_warning(
    vit, caplog, decoupled, limit
):
    weights = {"DECOUPLING_WEIGHT": 0.01, "CONSISTENCY_WEIGHT": 30.0}
    make_method("CDC", vit, ["cat", "dog"], DECOUPLED=decoupled, **weights)
    (line,) = caplog.messages
    assert "TRAINER.CDC.DECOUPLING_WEIGHT 0.01 and CONSISTENCY_WEIGHT 30" in line
    assert limit in line


def test_templates_start_from_their_phrases_and_further_ones_are_gaussian(vit):
    phrases = ["a photo of a", "a photo of one"]
    method = make_method("CDC", vit, ["cat", "dog"], CTX_INIT=phrases, N_CTX=4, N_TEMPLATES=4)
    first, second, third, fourth = method.learner.ctx
    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(first[3], second[3])
    assert not torch.equal(third, fourth)
    assert third.std() < 3 * INIT_STD


@pytest.mark.parametrize("augmentation, crops", [("1", 0), ("2", 1)])
def test_views_differ_by_one_operation(run, augmentation, crops):
    settings = ("TRAINER.CDC.N_TEMPLATES", "5", "TRAINER.CDC.AUGMENTATION", augmentation)
    trainer, _, _ = run("CDC", *TEXT, *settings, flags=("--no-train",))
    usual = [T.RandomResizedCrop, T.RandomHorizontalFlip, T.ToTensor, T.Normalize]
    varied = [[T.ColorJitter], [T.RandomGrayscale, T.RandomApply], [T.RandomAffine]]
    own = []
    for view in trainer.loaders.views:
        kinds = [type(step) for step in view.transforms]
        assert kinds.count(T.RandomCrop) == crops
        assert [kind for kind in kinds if kind in usual] == usual
        own.append([kind for kind in kinds if kind in sum(varied, [])])
    assert own == [[], *varied, []]


def test_each_template_is_trained_on_its_own_view(run):
    trainer, _, _ = run("CDC", *TEXT, flags=("--no-train",))
    images, labels = next(iter(Pairs(trainer.train_loader_x)))
    assert images.shape == (4, 8, 3, 32, 32)
    assert labels.shape == (8,)
    assert all(not torch.equal(images[0], other) for other in images[1:])
