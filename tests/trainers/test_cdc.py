"""CDC's trainings: views, phrases, and what is kept with the prompts; its formulas are in formulas.py
and test_cdc_evidence.py."""

import json

import pytest
import torch
import torchvision.transforms as T

from datasets.drawn import openmoji
from tests.conftest import make_method
from tests.runs import prompts_of
from trainers.cdc import PHRASES
from trainers.data.loader import pair_of
from trainers.prompting.backbone import load_backbone
from trainers.prompting.prompts import INIT_STD

TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")
DEEP = ("TRAINER.CDC.PROMPT_DEPTH", "3")


def test_weights_under_which_templates_collapse_are_named_in_a_warning(vit, caplog):
    make_method("CDC", vit, ["cat", "dog"], DECOUPLING_WEIGHT=0.01, CONSISTENCY_WEIGHT=30.0)
    (line,) = caplog.messages
    assert "TRAINER.CDC.DECOUPLING_WEIGHT 0.01 and CONSISTENCY_WEIGHT 30" in line
    assert "below 1.85" in line


def test_templates_start_from_their_phrases_and_further_ones_are_gaussian(vit):
    phrases = ["a photo of a", "a photo of one"]
    method = make_method("CDC", vit, ["cat", "dog"], CTX_INIT=phrases, N_CTX=4, N_TEMPLATES=4)
    first, second, third, fourth = method.learner.ctx
    assert torch.equal(first[:3], second[:3]) and not torch.equal(first[3], second[3])
    assert not torch.equal(third, fourth)
    assert third.std() < 3 * INIT_STD


def test_the_phrases_are_known_to_the_clip_that_comes_with_the_package():
    """A class under each of them is nearest to itself under the first; "a view of a", a word that this
    CLIP never saw, would be a quarter of the time."""
    backbone = load_backbone("tiny")
    split = json.loads(openmoji.SPLIT.read_text("utf-8"))
    names = sorted({classname for _, _, classname in split["train"]})
    first, *others = (backbone.encode_classes(f"{phrase} {{}}.", names) for phrase in PHRASES)
    for texts in others:
        nearest = (texts @ first.T).argmax(dim=1)
        assert (nearest == torch.arange(len(names))).double().mean() > 0.95


def test_cosines_are_kept_with_the_prompts(run):
    _, record, folder = run("CDC", *DEEP, name="trained")
    learned = record["learned"]
    for name in ("to_clip", "between", "deviations"):
        for of in ("texts", "images"):
            before, after = (learned[f"{of}_{name}_{when}"] for when in ("before", "after"))
            assert -1 <= before <= 1 and after != before
    _, again, _ = run("CDC", *DEEP, flags=prompts_of(folder), name="tested")
    assert again["metrics"]["test"] == record["metrics"]["test"]


def test_templates_over_another_method_start_from_phrases_of_the_contexts_length(vit):
    phrases = ["a photo of a", "a photo of one", "art of the", "a bad photo of the"]
    method = make_method("CDCPromptSRC", vit, ["cat", "dog"], PHRASES=phrases)
    contexts = [one.ctx for one in method.learner.learners]
    assert torch.equal(contexts[0][:3], contexts[1][:3])
    assert not torch.equal(contexts[0][3], contexts[1][3])


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


@pytest.mark.parametrize("augmentation, views", [("1", 4), ("None", 1)])
def test_each_template_is_trained_on_its_own_view(run, augmentation, views):
    settings = ("TRAINER.CDC.AUGMENTATION", augmentation)
    trainer, _, _ = run("CDC", *TEXT, *settings, flags=("--no-train",))
    images, labels = pair_of(next(iter(trainer.train_loader_x)))
    assert images.shape == (views, 8, 3, 32, 32) and labels.shape == (8,)
    assert all(not torch.equal(images[0], images[m]) for m in range(1, views))


@pytest.mark.parametrize("name", ["CDC", "CDCPromptSRC"])
def test_a_step_encodes_images_once_without_prompts(vit, monkeypatch, name):
    """CDC's an M-th of the batch of each view, over PromptSRC all that it is held to."""
    method = make_method(name, vit, ["cat", "dog"], N_TEMPLATES=2)
    passes, encode = [], method.towers.unprompted_images

    def noted(images):
        passes.append(images.shape[:2])
        return encode(images)

    for each in (method, method.base or method):
        monkeypatch.setattr(each.towers, "unprompted_images", noted)
    method.loss(method(torch.randn(2, 4, 3, 32, 32)), torch.tensor([0, 1, 1, 0]))
    assert passes == [(2, 2 if name == "CDC" else 4)]
