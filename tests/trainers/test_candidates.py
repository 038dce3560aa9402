"""Candidates for one's own pictures: answered by what has not seen them, and the best is taken."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import trainer_node
from trainers import candidates

NAMES = ["cat", "dog", "owl"]


def settings(trainer):
    return trainer_node(trainer, "PREC", "fp32")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_are_even_in_all_and_in_each_class(labels, number, seed):
    labels = torch.tensor(labels)
    fold = candidates.folds(labels, number, seed)
    for part in (fold, *(fold[labels == label] for label in labels.unique())):
        counts = torch.bincount(part, minlength=number)
        assert counts.max() - counts.min() <= 1


def clusters(pictures, spread):
    """Features around a direction a class, which texts know nothing of."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(pictures) % len(NAMES)
    centres = torch.randn(len(NAMES), 512, generator=generator)
    noise = torch.randn(pictures, 512, generator=generator)
    return F.normalize(centres[labels] + spread * noise, dim=-1), labels


def test_what_pictures_show_is_found_and_what_they_do_not_show_is_no_better_than_chance(vit):
    """With labels that say nothing a picture that had been seen would still be right."""
    features, labels = clusters(60, spread=0.5)
    features = features[:, : vit.embed_dim]
    table = candidates.compare(vit, NAMES, features, labels, settings)
    assert [each.trainer for each in table] == [*candidates.CANDIDATES]
    for each in table[1:]:
        assert each.accuracy > 95 and each.low > 90 and each.high > 99
        assert each.answers.probability.sum(dim=1) == pytest.approx(1)
    assert candidates.best(table).trainer == "GDA", "the simplest of equal ones"
    generator = torch.Generator().manual_seed(1)
    said = labels[torch.randperm(60, generator=generator)]
    for each in candidates.compare(vit, NAMES, features, said, settings):
        assert each.accuracy < 60


def test_pictures_are_not_encoded_and_the_clip_is_as_it_was(vit, monkeypatch):
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    monkeypatch.setattr(type(vit.image), "forward", None)
    features, labels = clusters(30, spread=0.5)
    candidates.compare(vit, NAMES, features[:, : vit.embed_dim], labels, settings)
    assert all(value.equal(before[name]) for name, value in vit.state_dict().items())
